"""How much of an asked wait counts."""

from __future__ import annotations

import logging
import math
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rate_coordinator.waits import LONGEST_CAP_SECONDS, MAX_WAIT_SECONDS, Clamp, read_wait, to_ms

CAP = MAX_WAIT_SECONDS

COUNTED: list[tuple[Any, int, Clamp | None]] = [
    (0, 0, None),
    (-0.0, 0, None),
    (0.0004, 1, None),
    (0.001, 1, None),
    (2.007, 2_007, None),
    (1, 1_000, None),
    (1.0005, 1_001, None),
    (Decimal("1.5"), 1_500, None),
    (Fraction(1, 3), 334, None),
    (CAP, 3_600_000, None),
    (CAP + 0.001, 3_600_000, "above_cap"),
    (253_402_300_799, 3_600_000, "above_cap"),
    (10**400, 3_600_000, "above_cap"),
    (sys.float_info.max, 3_600_000, "above_cap"),
    (-0.001, 0, "negative"),
    (-(10**400), 0, "negative"),
    (math.nan, 0, "not_finite"),
    (math.inf, 0, "not_finite"),
    (-math.inf, 0, "not_finite"),
    (float("1e999"), 0, "not_finite"),
    (Decimal("NaN"), 0, "not_finite"),
    (Decimal("Infinity"), 0, "not_finite"),
]
REFUSED: list[Any] = [
    None,
    "5",
    "1e999",
    "",
    b"5",
    bytearray(b"5"),
    True,
    False,
    [5],
    {},
    object(),
    5j,
    Decimal("sNaN"),
]


@pytest.mark.parametrize(("asked", "wait_ms", "clamped"), COUNTED, ids=lambda value: repr(value)[:24])
def test_a_wait_counts_as_far_as_it_can(asked: Any, wait_ms: int, clamped: Clamp | None) -> None:
    """P06 P07 P10: 0 stays 0, nonsense never limits, and what is cut says why."""
    wait = read_wait(asked, CAP)

    assert (wait.wait_ms, wait.clamped) == (wait_ms, clamped)
    assert isinstance(wait.wait_ms, int)


@pytest.mark.parametrize("asked", REFUSED, ids=lambda value: repr(value)[:12])
def test_what_is_no_number_is_refused(asked: Any) -> None:
    """P07."""
    with pytest.raises(ValueError, match=r"^wait_seconds must be a number of seconds"):
        read_wait(asked, CAP)


@pytest.mark.parametrize("asked", [math.nan, math.inf, -math.inf])
def test_a_wait_that_is_not_finite_is_warned_of(asked: float, caplog: pytest.LogCaptureFixture) -> None:
    """P07."""
    with caplog.at_level(logging.WARNING):
        read_wait(asked, CAP)

    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "a wait that is not finite counts as 0")
    ]


@given(st.floats(min_value=0.0, max_value=LONGEST_CAP_SECONDS))
@example(2.007)
@example(1.001)
@example(5e-324)
def test_milliseconds_are_never_rounded_below_what_was_told(seconds: float) -> None:
    """P02 P15: the told time is a floor; the price is less than a millisecond."""
    milliseconds = to_ms(seconds)

    assert 0 <= milliseconds - seconds * 1000 + 1e-6 < 1 + 1e-5


@given(st.integers(0, 366 * 24 * 3600 * 1000))
@example(2_007)
def test_whole_milliseconds_stay_what_they_are(milliseconds: int) -> None:
    """P15."""
    assert to_ms(milliseconds / 1000) == milliseconds


@given(st.floats(), st.floats(min_value=0.001, max_value=LONGEST_CAP_SECONDS))
def test_no_wait_is_longer_than_the_cap_and_a_cut_one_says_so(asked: float, cap: float) -> None:
    """P06."""
    wait = read_wait(asked, cap)

    assert 0 <= wait.wait_ms <= to_ms(cap)
    assert (wait.clamped is None) == (0 <= asked <= cap)
    assert wait.asked_seconds == asked or math.isnan(asked)
