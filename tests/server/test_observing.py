"""What is done with an upstream's answer."""

from __future__ import annotations

import asyncio

import pytest

from rate_coordinator import CoordinatorMisuse, LimitWaitTimeout, RateLimitCoordinator, clock
from rate_coordinator.answers import Answer, read_answer
from tests.conftest import Make, Place
from tests.servers import RedisServer, eventually


async def test_the_refusal_of_an_admitted_call_is_reported_with_its_reason(real: Place, make: Make) -> None:
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


# Slowing down before the first refusal.


class Window:
    """An upstream that serves so many calls in each period and says how many are left."""

    def __init__(self, limit: int, period: float) -> None:
        self.limit, self.period = limit, period
        self.begun, self.used, self.refused = clock.now(), 0, 0

    def hit(self) -> Answer:
        now = clock.now()
        while now >= self.begun + self.period:
            self.begun, self.used = self.begun + self.period, 0
        reset = self.begun + self.period - now
        if self.used >= self.limit:
            self.refused += 1
            return Answer(limited=True, reason="rate_limit", wait_seconds=reset)
        self.used += 1
        return Answer(remaining=self.limit - self.used, reset_seconds=reset)


async def test_a_fleet_that_is_told_what_is_left_is_hardly_ever_refused(real: Place, make: Make) -> None:
    upstream, left = Window(20, 1.5), list(range(45))
    coordinators = [await make() for _ in range(3)]

    async def work(coordinator: RateLimitCoordinator) -> None:
        while left:
            left.pop()
            async with coordinator.admit("openai") as call:
                await call.observe(upstream.hit())

    async with asyncio.TaskGroup() as tasks:
        for number in range(9):
            tasks.create_task(work(coordinators[number % 3]))

    # A turn that was given just before the end of a window may be used when nothing is left of it.
    assert upstream.refused <= 1


async def test_what_one_process_is_told_counts_for_all_and_for_those_that_start_later(
    shared_place: Place, make: Make
) -> None:
    one, other = await make(), await make()

    await one.observe("openai", Answer(remaining=10, reset_seconds=20))
    await eventually(lambda: bool(other.health.paces))
    later = await make()

    for coordinator in (one, other, later):
        pace = await coordinator.pace("openai")
        assert pace is not None
        assert pace.rate == pytest.approx(0.5, rel=0.02)
        assert pace.ceiling == 0.0
    with pytest.raises(LimitWaitTimeout):
        await other.admit("openai", timeout=1.0).__aenter__()
    await _is_free(other, "github")


async def _is_served(coordinator: RateLimitCoordinator, answer: Answer) -> None:
    async with coordinator.admit("openai") as call:
        await call.observe(answer)


async def _is_free(coordinator: RateLimitCoordinator, backend: str) -> None:
    async with coordinator.admit(backend, timeout=5.0) as call:
        assert call.waited_seconds < 1.0


async def test_a_models_calls_alone_are_slowed_down(real: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.observe("openai", Answer(remaining=1, reset_seconds=600), model="gpt")

    assert await coordinator.pace("openai") is None
    assert await coordinator.pace("openai", "gpt") is not None
    await _is_free(coordinator, "openai")


async def test_when_the_limit_is_whole_again_the_calls_that_wait_go(real: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.observe("openai", Answer(remaining=50, reset_seconds=2))
    await coordinator.observe("openai", Answer(remaining=0, reset_seconds=1.5))

    began = clock.now()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        entered = [tasks.create_task(_enter(coordinator)) for _ in range(5)]
    assert all(task.result() >= began + 1.4 for task in entered)


async def _enter(coordinator: RateLimitCoordinator) -> float:
    async with coordinator.admit("openai"):
        return clock.now()


async def test_calls_that_wait_go_when_more_is_told_to_be_left_after_all(shared_place: Place, make: Make) -> None:
    one, other = await make(), await make()
    await one.observe("openai", Answer(remaining=3, reset_seconds=300))
    await eventually(lambda: bool(other.health.paces))

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(_enter(coordinator)) for coordinator in (one, other)]
        await eventually(lambda: all(c.health.paces[0].waiting for c in (one, other)))
        assert not any(task.done() for task in waiting)
        await one.observe("openai", Answer(remaining=5000, reset_seconds=300))


async def test_calls_are_not_held_to_what_was_left_before_once_the_limit_is_whole(real: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.observe("openai", Answer(remaining=1, reset_seconds=1))

    async with asyncio.timeout(20):
        await _is_served(coordinator, Answer(remaining=100, reset_seconds=10))
        began = clock.now()
        for number in range(10):
            await _is_served(coordinator, Answer(remaining=99 - number, reset_seconds=10))
    # At the pace before it would be a second for each.
    assert clock.now() - began < 5


async def test_a_limit_of_one_scope_says_nothing_of_what_is_left_of_another(real: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.observe("github", Answer(remaining=3, reset_seconds=300, scope="search"))
    await coordinator.observe("github", Answer(remaining=4000, reset_seconds=300, scope="core"))

    with pytest.raises(LimitWaitTimeout):
        await coordinator.admit("github", timeout=0.5).__aenter__()


async def test_nothing_left_at_first_sight_holds_everybody(shared_place: Place, make: Make) -> None:
    one, other = await make(), await make()
    await one.observe("openai", Answer(remaining=0, reset_seconds=60))
    await eventually(lambda: bool(other.health.paces))

    for coordinator in (one, other):
        with pytest.raises(LimitWaitTimeout):
            await coordinator.admit("openai", timeout=1.0).__aenter__()


async def test_while_redis_is_away_this_process_keeps_to_it(own_server: RedisServer, make: Make) -> None:
    coordinator = await make(command_timeout=1.0, ping_interval=0.2, ping_timeout=0.5)
    own_server.stop()
    await eventually(lambda: coordinator.health.state == "degraded")

    await coordinator.observe("openai", Answer(remaining=5, reset_seconds=60))

    async with coordinator.admit("openai"):
        pass
    with pytest.raises(LimitWaitTimeout):
        await coordinator.admit("openai", timeout=0.5).__aenter__()


async def test_clearing_a_backend_forgets_what_was_left(real: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.observe("openai", Answer(remaining=1, reset_seconds=600))
    assert await coordinator.forget_pace("openai")

    await _is_free(coordinator, "openai")


async def test_a_refusal_of_a_fleet_that_is_slowed_down_is_learned_from(real: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.observe("openai", Answer(remaining=100, reset_seconds=10))
    await coordinator.observe("openai", Answer(remaining=20, reset_seconds=10))
    async with coordinator.admit("openai") as call:
        await call.observe(Answer(limited=True, reason="rate_limit", wait_seconds=0.2))

    async with coordinator.admit("openai", timeout=20):
        pass

    pace = await coordinator.pace("openai")
    assert pace is not None
    assert pace.forgets_seconds > 60


async def test_answers_that_say_that_plenty_is_left_cost_no_call_of_redis(real: Place, make: Make) -> None:
    coordinator = await make()
    before = coordinator.health.script_calls
    for number in range(200):
        async with coordinator.admit("openai") as call:
            await call.observe(Answer(remaining=5000 - number, reset_seconds=3600))
    assert coordinator.health.script_calls - before <= 2  # the snapshots that are read now and then
