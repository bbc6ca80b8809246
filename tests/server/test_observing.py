"""What is done with an upstream's answer."""

from __future__ import annotations

import pytest

from rate_coordinator import CoordinatorMisuse
from rate_coordinator.answers import Answer, read_answer
from tests.conftest import Make, Place


async def test_a_refusal_that_an_admitted_call_was_answered_is_reported_with_its_reason(
    real: Place, make: Make
) -> None:
    coordinator = await make()

    async with coordinator.admit("openai", "gpt") as call:
        result = await call.observe(read_answer(529, {"retry-after": "7"}), "nightly", 3)

    assert result is not None
    assert result.extended
    (event,) = coordinator.recent_events
    assert (event.backend_type, event.model, event.job_id, event.sheet_num) == ("openai", "gpt", "nightly", 3)
    assert (event.suggested_wait_seconds, event.reason) == (7.0, "overloaded")


async def test_a_refusal_that_another_call_was_answered_is_reported_likewise(real: Place, make: Make) -> None:
    coordinator = await make()

    assert await coordinator.observe("github", Answer()) is None
    result = await coordinator.observe("github", read_answer(429, {"retry-after": "7"}), model="search")

    assert result is not None
    assert await coordinator.is_rate_limited("github") == (False, 0.0)
    assert (await coordinator.is_rate_limited("github", "search"))[0]


@pytest.mark.parametrize(
    ("answer", "guess", "wait"),
    [
        (Answer(limited=True, reason="rate_limit"), 5.0, 5.0),
        (Answer(limited=True, reason="overloaded"), 2.0, 2.0),
        (Answer(limited=True, reason="quota"), 5.0, 900.0),
        (Answer(limited=True, reason="quota"), 1800.0, 1800.0),
        (Answer(limited=True, wait_seconds=0.5, reason="quota"), 5.0, 0.5),
        (Answer(limited=True, wait_seconds=0.0, reason="rate_limit"), 5.0, 0.0),
    ],
)
async def test_where_no_wait_is_told_the_guess_counts(
    real: Place, make: Make, answer: Answer, guess: float, wait: float
) -> None:
    coordinator = await make()
    await coordinator.observe("slack", answer, guess_seconds=guess)
    assert [event.suggested_wait_seconds for event in coordinator.recent_events] == [wait]


async def test_an_answer_that_is_no_refusal_leaves_the_call_served(real: Place, make: Make) -> None:
    coordinator = await make()
    async with coordinator.admit("slack") as call:
        assert await call.observe(Answer(remaining=10, reset_seconds=60)) is None
    assert coordinator.recent_events == []


@pytest.mark.parametrize("guess", [-1.0, float("nan"), float("inf"), "5", True])
async def test_a_guess_that_cannot_be_used_is_refused_by_name(real: Place, make: Make, guess: float) -> None:
    coordinator = await make()
    with pytest.raises(ValueError, match="guess_seconds must be"):
        await coordinator.observe("slack", Answer(), guess_seconds=guess)


async def test_what_was_not_admitted_cannot_have_been_refused(real: Place, make: Make) -> None:
    coordinator = await make()
    with pytest.raises(CoordinatorMisuse, match="after it was admitted"):
        await coordinator.admit("slack").observe(Answer(limited=True))
