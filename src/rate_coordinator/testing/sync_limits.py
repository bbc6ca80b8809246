"""The same limits for tests of code that does not await."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from rate_coordinator import Reason
from rate_coordinator.sync import RateLimitCoordinator
from rate_coordinator.testing.clock import ManualClock
from rate_coordinator.testing.limits import NAMESPACE


class SyncRateLimits:
    """``RateLimits`` without ``await``; see there."""

    def __init__(self, coordinator: RateLimitCoordinator, url: str, namespace: str, clock: ManualClock) -> None:
        self.coordinator = coordinator
        self.url = url
        self.namespace = namespace
        self.clock = clock

    def limit(
        self, backend: str, wait_seconds: float = 60.0, model: str | None = None, *, reason: Reason = "rate_limit"
    ) -> None:
        """Limit a backend now; see ``RateLimits.limit``."""
        self.coordinator.report_rate_limit(backend, wait_seconds, "test", model=model, reason=reason)

    def clear(self, backend: str | None = None, model: str | None = None) -> None:
        """Lift limits; see ``RateLimits.clear``."""
        self.coordinator.clear_limits(backend, model=model)

    def advance(self, seconds: float) -> None:
        """Move the time on; see ``ManualClock.advance_blocking``.

        Threads that it woke go on by themselves, and one that has not begun to wait yet waits from then on.
        """
        self.clock.advance_blocking(seconds)


@contextmanager
def sync_manual_rate_limits(**settings: Any) -> Iterator[SyncRateLimits]:
    """Give limits whose time only the test moves; see ``manual_rate_limits``."""
    clock = ManualClock()
    arguments = {"url": f"memory://{uuid4()}", "namespace": NAMESPACE, **settings}
    with clock.in_use(), RateLimitCoordinator.from_url(**arguments) as coordinator:
        yield SyncRateLimits(coordinator, arguments["url"], arguments["namespace"], clock)
