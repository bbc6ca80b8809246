"""What the output of a command means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from rate_coordinator.answers import Answer, read_output
from rate_coordinator.answers.moments import read_when
from tests.answers.outputs import CLAUDE_EPOCH, NOW, OUTPUTS, Output

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.name)
def test_an_output_means_what_its_program_says(output: Output) -> None:
    """P45."""
    answer = read_output(output.text, output.exit_code, now=NOW)

    assert (answer.limited, answer.reason, answer.wait_seconds, answer.scope) == output.expected


@pytest.mark.parametrize("output", [output for output in OUTPUTS if output.expected[0]], ids=lambda output: output.name)
@pytest.mark.parametrize("exit_code", [0, None])
def test_a_run_that_succeeded_was_not_refused_whatever_it_printed(output: Output, exit_code: int | None) -> None:
    """P45: neither in the middle of its output nor at its end."""
    report = f"Here is what the log says, line by line, and what I make of it.\n{output.text}\nThat is all."

    assert read_output(report, exit_code, now=NOW) == Answer()


@pytest.mark.parametrize("exit_code", [1, 2, 127, -9, 255])
def test_any_failure_confirms_a_notice(exit_code: int) -> None:
    assert read_output(CLAUDE_EPOCH.encode(), exit_code, now=NOW).limited


def test_colours_and_carriage_returns_do_not_hide_a_notice() -> None:
    assert read_output(f"\x1b[31m{CLAUDE_EPOCH}\x1b[0m\r\n", 1, now=NOW).wait_seconds == 11200.0


@pytest.mark.parametrize("output", [None, 5, ["429"], bytearray(b"429"), memoryview(b"429"), object()])
def test_what_is_no_output_is_none(output: Any) -> None:
    assert read_output(output, 1, now=NOW) == Answer()


def test_only_the_end_of_an_output_counts() -> None:
    assert read_output(CLAUDE_EPOCH + "\n" + "compiling\n" * 100, 1, now=NOW) == Answer()
    assert read_output("x" * 10_000_000 + "\n" + CLAUDE_EPOCH, 1, now=NOW).wait_seconds == 11200.0


def test_an_epoch_that_has_passed_is_no_wait() -> None:
    """P51."""
    answer = read_output("Claude AI usage limit reached|1749924000", 1, now=NOW)

    assert (answer.limited, answer.wait_seconds) == (True, None)


def test_the_time_has_to_tell_its_zone() -> None:
    with pytest.raises(ValueError, match=r"^now must tell its time zone"):
        read_output("", 0, now=datetime(2026, 6, 1))


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


HOUR = 3600.0
WHEN = [
    # Around midnight.
    ("2026-06-01T23:00", "12am", 1 * HOUR),
    ("2026-06-01T23:00", "2am", 3 * HOUR),
    ("2026-06-01T00:00", "12am", 0.0),
    ("2026-06-01T11:00", "12pm", 1 * HOUR),
    ("2026-06-01T00:30", "12:45am", 0.25 * HOUR),
    ("2026-12-31T23:00", "1am", 2 * HOUR),
    # What has passed is not tomorrow's.
    ("2026-06-01T15:05", "3pm", None),
    ("2026-06-01T22:00", "6:30pm", None),
    ("2026-06-01T12:00", "11:59am", None),
    # When summer begins, 2 o'clock is 3 o'clock.
    ("2026-03-29T01:00", "4am", 2 * HOUR),
    ("2026-03-28T23:00", "6am", 6 * HOUR),
    # When it ends, 2 o'clock comes twice.
    ("2026-10-25T01:00", "4am", 4 * HOUR),
    ("2026-10-24T23:00", "6am", 8 * HOUR),
    # Other zones.
    ("2026-06-01T12:00", "8:30pm (Asia/Tokyo)", 1.5 * HOUR),
    ("2026-06-01T12:00", "1pm (Etc/GMT+5)", 8 * HOUR),
    ("2026-06-01T12:00", "4pm (Asia/Calcutta)", 0.5 * HOUR),
    ("2026-06-01T12:00", "3pm (PDT)", None),
    ("2026-06-01T12:00", "3pm (../../etc/passwd)", None),
    ("2026-06-01T12:00", "3pm (Europe)", None),
    ("2026-06-01T12:00", "3pm (America/New", None),
    ("2026-06-01T12:00", "3pm ()", None),
    # Dates.
    ("2026-06-01T12:00", "Jun 3, 12pm", 48 * HOUR),
    ("2026-06-01T12:00", "June 3rd at 12:00", 48 * HOUR),
    ("2026-12-30T12:00", "Jan 2 at 7am", 67 * HOUR),
    ("2026-06-01T12:00", "May 3 at 7am", None),
    ("2026-06-01T12:00", "Jun 1, 2027 12:00 PM", 8760 * HOUR),
    ("2026-06-01T12:00", "Jun 3, 2029 12:00 PM", None),
    ("2026-06-01T12:00", "Feb 29 at 7am", None),
    ("2028-02-28T07:00", "Feb 29 at 7am", 24 * HOUR),
    ("2026-06-01T12:00", "Jun 31 at 7am", None),
    ("2026-06-01T12:00", "Jun 3, 9999 7am", None),
    ("2026-06-01T12:00", "Tuesday 12:00am", 12 * HOUR),
    ("2026-06-01T12:00", "Mon 1pm", 1 * HOUR),
    ("2026-06-01T12:00", "Mon 11am", None),
    # No times.
    ("2026-06-01T12:00", "3", None),
    ("2026-06-01T12:00", "25:00", None),
    ("2026-06-01T12:00", "13pm", None),
    ("2026-06-01T12:00", "0am", None),
    ("2026-06-01T12:00", "soon", None),
]


@pytest.mark.parametrize(("now", "text", "seconds"), WHEN)
def test_a_time_of_day_is_never_taken_for_another_days(now: str, text: str, seconds: float | None) -> None:
    """P52."""
    assert read_when(text, at(now), BERLIN) == seconds


def test_in_the_hour_that_comes_twice_the_one_to_come_is_meant() -> None:
    """P52."""
    first = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)

    assert read_when("2:30am", first, BERLIN) == 0.75 * HOUR


@pytest.mark.parametrize(("now", "seconds"), [("2026-06-01T08:00", 15.5 * HOUR), ("2026-06-01T23:45", None)])
def test_a_time_that_is_always_todays_may_be_further_away(now: str, seconds: float | None) -> None:
    """P52: codex tells the date as soon as it is another day."""
    assert read_when("11:30 PM", at(now), BERLIN, today_only=True) == seconds


def test_times_without_a_zone_are_of_the_zone_of_now() -> None:
    text = "5-hour limit reached ∙ resets 3pm"

    assert read_output(text, 1, now=at("2026-06-01T12:00")).wait_seconds == 3 * HOUR
    assert read_output(text, 1, now=at("2026-06-01T12:00", ZoneInfo("UTC"))).wait_seconds == 3 * HOUR


def test_without_now_they_are_of_this_machines_zone() -> None:
    local = datetime.now().astimezone()
    text = f"5-hour limit reached ∙ resets {(local.hour + 2) % 24}:00"

    seconds = read_output(text, 1).wait_seconds

    assert seconds is not None
    assert HOUR - 60 <= seconds <= 3 * HOUR + 60
