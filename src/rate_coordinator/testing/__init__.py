"""For the tests of programs that use a coordinator: ``pytest_plugins = ["rate_coordinator.testing"]`` in conftest.py.

It is no entry point: those are loaded in every run of pytest, also where nobody uses them.
PYTEST_DONT_REWRITE: it asserts nothing, and may well have been imported for its types before.
"""

from rate_coordinator.testing.clock import ManualClock
from rate_coordinator.testing.fixtures import (
    rate_limit_coordinator,
    rate_limit_settings,
    rate_limits,
    sync_rate_limit_coordinator,
    sync_rate_limits,
)
from rate_coordinator.testing.limits import RateLimits, manual_rate_limits
from rate_coordinator.testing.sync_limits import SyncRateLimits, sync_manual_rate_limits

__all__ = [
    "ManualClock",
    "RateLimits",
    "SyncRateLimits",
    "manual_rate_limits",
    "rate_limit_coordinator",
    "rate_limit_settings",
    "rate_limits",
    "sync_manual_rate_limits",
    "sync_rate_limit_coordinator",
    "sync_rate_limits",
]
