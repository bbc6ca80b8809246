"""How limits, changes, times and durations are written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from rate_coordinator import ActiveLimit, PaceStatus, RateLimitEvent
from rate_coordinator.cli import texts
from rate_coordinator.cli.changes import as_fields, changes, line

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def limit(backend: str, seconds: float, model: str | None = None) -> ActiveLimit:
    return ActiveLimit(
        backend=backend,
        model=model,
        seconds_remaining=seconds,
        resume_at=NOW + timedelta(seconds=seconds),
        reporter="host:1",
    )


def test_times_are_local_and_never_earlier_than_they_are() -> None:
    assert texts.clock_time(NOW, NOW) == "07:00:00"
    assert texts.clock_time(NOW + timedelta(milliseconds=1), NOW) == "07:00:01"
    assert texts.log_time(NOW) == "2026-01-31 07:00:00.000-05:00"


def test_a_time_of_another_day_has_its_date() -> None:
    assert texts.clock_time(NOW + timedelta(days=1), NOW) == "2026-02-01 07:00:00"
    # Still the same day in New York, though no more in UTC.
    assert texts.clock_time(NOW + timedelta(hours=16), NOW) == "23:00:00"


@pytest.mark.parametrize(
    ("seconds", "text"), [(30.0, "30.0 s"), (29.91, "30.0 s"), (0.01, "0.1 s"), (0.3, "0.3 s"), (0.0, "0.0 s")]
)
def test_seconds_are_rounded_up(seconds: float, text: str) -> None:
    assert texts.seconds(seconds) == text


def test_a_bar_shows_what_is_left_of_the_wait() -> None:
    assert texts.bar(30, 30) == "██████████"
    assert texts.bar(14, 30) == "█████░░░░░"
    assert texts.bar(0.01, 30) == "█░░░░░░░░░"
    # The wait is not known, or the clock was stepped.
    assert texts.bar(30, 0) == "██████████"
    assert texts.bar(0, 0) == "░░░░░░░░░░"


def test_a_text_of_others_stays_on_its_line_and_out_of_control() -> None:
    assert texts.printable("ключ 🗝") == "ключ 🗝"
    assert texts.printable("a\n\x1b[31m\u202eb") == "a\\n\\x1b[31m\\u202eb"


def test_a_new_limit_and_an_extended_one_are_changes() -> None:
    before, after = [limit("a", 10), limit("b", 10)], [limit("a", 10), limit("b", 20), limit("c", 5, "m")]
    assert [(change.kind, str(change.limit.target)) for change in changes(before, after, 0.0)] == [
        ("extended", "b"),
        ("limited", "c/m"),
    ]


def test_a_limit_that_is_gone_was_lifted_by_the_clock_or_cleared_by_somebody() -> None:
    found = changes([limit("a", 1), limit("b", 10)], [], 1.5)
    assert [(change.kind, str(change.limit.target)) for change in found] == [("lifted", "a"), ("cleared", "b")]
    assert [line(change) for change in found] == ["a lifted", "b cleared"]
    assert as_fields(found[1])["seconds_remaining"] == 0.0


def test_a_limit_that_was_cleared_and_set_anew_in_between_is_limited() -> None:
    (change,) = changes([limit("a", 20)], [limit("a", 10)], 0.0)
    assert change.kind == "limited"
    assert line(change).startswith("a limited: 10.0 s left, until ")


def test_a_pace_is_written_with_what_is_known_of_it() -> None:
    pace = PaceStatus(
        backend="openai",
        model="gpt",
        rate=0.0,
        ceiling=0.0,
        forgets_seconds=899.96,
        waiting=3,
        admitted_per_second=0.0,
        fleet_per_second=0.0,
        processes=1,
        alone=False,
    )
    assert texts.pace_line(pace) == "openai/gpt: still to be learned; forgotten in 900.0 s"
    learned = pace.model_copy(update={"rate": 48.53, "ceiling": 50.04})
    assert texts.pace_line(learned) == ("openai/gpt: 48.5 calls per second, last refused at 50; forgotten in 900.0 s")


@pytest.mark.parametrize(("rate", "said"), [(48.53, "48.5 calls per second"), (None, "forgotten")])
def test_an_event_of_a_pace_says_what_was_learned(rate: float | None, said: str) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    event = RateLimitEvent(
        backend_type="openai", detected_at=at, suggested_wait_seconds=0.0, kind="pace", pace_rate=rate
    )
    assert texts.event_line(event).endswith(f"  pace     openai  {said}")
