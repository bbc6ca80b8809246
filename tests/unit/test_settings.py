"""Within which bounds a coordinator can be configured."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from rate_coordinator import MAX_WAIT_SECONDS, RateLimitCoordinator
from rate_coordinator.settings import Settings, check_timeout
from rate_coordinator.waits import LONGEST_CAP_SECONDS

POSITIVE = ("forget_after", "connect_timeout", "command_timeout", "ping_interval", "ping_timeout", "resync_interval")
NOT_NEGATIVE = ("wake_margin_seconds", "wake_jitter_seconds", "verify_every")
WHOLE = ("max_events", "notice_buffer", "max_buffered_reports")
NAMES = ("namespace", "reporter")
NO_SECONDS: list[Any] = [math.nan, math.inf, -math.inf, -1, -0.001, 10**400, "5", b"5", None, True, [1], 1j]

REFUSED = [
    *((name, value) for name in ("max_wait_seconds", *POSITIVE) for value in [*NO_SECONDS, 0, 0.0]),
    *((name, value) for name in NOT_NEGATIVE for value in NO_SECONDS),
    *((name, value) for name in WHOLE for value in [0, -1, 1.0, "5", None, True, math.inf]),
    *((name, value) for name in NAMES for value in ["", "x" * 257, "a\nb", None, 5, b"a"]),
    ("max_wait_seconds", LONGEST_CAP_SECONDS + 1),
]
TAKEN = [
    *((name, value) for name in ("max_wait_seconds", *POSITIVE) for value in (0.001, 1, 3_600.5)),
    *((name, value) for name in NOT_NEGATIVE for value in (0, 0.0, 1, 0.5)),
    *((name, value) for name in WHOLE for value in (1, 10**6)),
    *((name, value) for name in NAMES for value in ("x" * 256, "ключ {}: /%")),
    ("max_wait_seconds", LONGEST_CAP_SECONDS),
]


def test_every_setting_is_in_the_tables() -> None:
    names = {"max_wait_seconds", *POSITIVE, *NOT_NEGATIVE, *WHOLE, *NAMES}
    assert {field.name for field in fields(Settings)} == names


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda value: repr(value)[:24])
def test_what_cannot_work_is_refused_by_name(name: str, value: Any) -> None:
    """P07 P10: a 0 is never taken for the default."""
    with pytest.raises(ValueError, match=rf"^{name} must"):
        Settings(**{name: value})
    if (name, value) != ("reporter", None):
        with pytest.raises(ValueError, match=rf"^{name} must"):
            RateLimitCoordinator.from_url("redis://localhost", **{name: value})


@pytest.mark.parametrize(("name", "value"), TAKEN, ids=lambda value: repr(value)[:24])
def test_what_can_work_is_taken_as_it_is(name: str, value: Any) -> None:
    """P10."""
    assert getattr(Settings(**{name: value}), name) == value


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().max_events = 5  # type: ignore[misc]


def test_the_default_cap_is_an_hour() -> None:
    assert Settings().max_wait_seconds == MAX_WAIT_SECONDS == 3600.0


@pytest.mark.parametrize(("timeout", "seconds"), [(None, None), (math.inf, None), (0, 0.0), (0.5, 0.5), (10**9, 1e9)])
def test_a_timeout_is_seconds_or_none(timeout: Any, seconds: float | None) -> None:
    """P33: 0 is a timeout."""
    assert check_timeout(timeout) == seconds


@pytest.mark.parametrize("timeout", [-1, 10**400, -0.001, math.nan, -math.inf, "5", True, [5]])
def test_what_is_no_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout must"):
        check_timeout(timeout)
