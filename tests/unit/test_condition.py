"""How long Redis could not be heard or written, added up."""

from __future__ import annotations

import pytest

from rate_coordinator import clock
from rate_coordinator.condition import Condition


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """This process's clock, which stands still until the test moves it."""
    moments = [100.0]
    monkeypatch.setattr(clock, "now", lambda: moments[0])
    return moments


def test_all_outages_count_together_and_time_between_them_does_not(at: list[float]) -> None:
    condition = Condition("somewhere")
    condition.hears(False)
    at[0] += 3.0
    condition.delivers(False)
    at[0] += 2.0
    assert (condition.degraded_seconds, condition.degraded_total_seconds) == (5.0, 5.0)

    condition.hears(True)
    condition.delivers(True)
    at[0] += 60.0
    assert (condition.degraded_seconds, condition.degraded_total_seconds) == (0.0, 5.0)

    condition.delivers(False)
    at[0] += 1.0
    assert (condition.degraded_seconds, condition.degraded_total_seconds) == (1.0, 6.0)


def test_being_closed_is_no_outage(at: list[float]) -> None:
    condition = Condition("somewhere")
    condition.hears(False)
    at[0] += 4.0
    condition.closed()
    at[0] += 60.0
    assert (condition.degraded, condition.degraded_total_seconds) == (False, 4.0)
