"""The zoo of units."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator.answers.quantities import (
    LONGEST_WAIT_SECONDS,
    Clock,
    Unit,
    read_duration,
    read_moment,
    read_seconds,
    split_list,
)
from rate_coordinator.waits import LONGEST_CAP_SECONDS
from tests.answers.samples import NOW, NOW_S

CLOCK = Clock(NOW, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("1s", 1.0),
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("50.597142857s", 50.597142857),
        ("373.801628ms", 0.373801628),
        ("12µs", 12e-6),
        ("500us", 5e-4),
        ("100ns", 1e-7),
        ("1d2h", 93600.0),
        ("5 days 22 hours 11 minutes", 511860.0),
        ("2h 13m", 7980.0),
        ("1 hour, 5 minutes and 3 seconds", 3903.0),
        ("30 seconds.", 30.0),
        ("1 min", 60.0),
        ("2 weeks", 1209600.0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5", "5x", "-5s", "5 s x", "1h2", "1e3s", "5months", "\u0661s"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert read_duration(text) is None


@pytest.mark.parametrize(
    ("value", "unit", "seconds"),
    [
        ("30", "auto", 30.0),
        ("0.5", "auto", 0.5),
        (30, "auto", 30.0),
        ("1500", "ms", 1.5),
        (str(NOW_S + 30), "auto", 30.0),
        (f"{NOW_S + 30.25:.2f}", "auto", 30.25),
        (str((NOW_S + 30) * 1000), "auto", 30.0),
        (str(NOW_S + 30), "epoch_s", 30.0),
        (str((NOW_S + 30) * 1000), "epoch_ms", 30.0),
        (str(NOW_S + 30), "moment", 30.0),
        (str(NOW_S + 30), "s", None),
        ("30", "moment", None),
        ("30", "epoch_s", None),
        ("2026-06-01T12:00:30Z", "auto", 30.0),
        ("2026-06-01T12:00:30.250z", "epoch_s", 30.25),
        ("2026-06-01 14:00:30+02:00", "auto", 30.0),
        ("2026-06-01T07:30:30-04:30", "s", 30.0),
        ("Mon, 01 Jun 2026 12:00:30 GMT", "s", 30.0),
        ("Monday, 01-Jun-26 12:00:30 GMT", "s", 30.0),
        ("Mon Jun  1 12:00:30 2026", "s", 30.0),
        (True, "auto", None),
        (None, "auto", None),
        (LONGEST_WAIT_SECONDS, "s", LONGEST_WAIT_SECONDS),
        (LONGEST_WAIT_SECONDS + 1, "s", None),
        (10**400, "s", None),
    ],
)
def test_times_are_read_in_every_unit(value: object, unit: Unit, seconds: float | None) -> None:
    """P04."""
    assert read_seconds(value, unit, CLOCK) == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


@given(st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2080, 1, 1)), st.integers(-1439, 1439))
def test_a_written_moment_is_the_same_moment(naive: datetime, minutes: int) -> None:
    moment = naive.replace(microsecond=0, tzinfo=UTC)
    offset = timedelta(minutes=minutes)
    sign = "-" if minutes < 0 else "+"
    local = (moment + offset).strftime("%Y-%m-%dT%H:%M:%S") + f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"

    assert read_moment(local) == moment
    assert read_moment(moment.strftime("%a, %d %b %Y %H:%M:%S GMT")) == moment


@given(st.lists(st.sampled_from(["5", "1h2m", "Mon, 01 Jun 2026 12:00:30 GMT", "x"]), min_size=1, max_size=8))
def test_a_joined_header_comes_apart_again(values: list[str]) -> None:
    assert split_list(", ".join(values)) == values or "x" in values


def test_no_wait_is_believed_that_no_coordinator_could_be_told_to_heed() -> None:
    assert LONGEST_WAIT_SECONDS == LONGEST_CAP_SECONDS
