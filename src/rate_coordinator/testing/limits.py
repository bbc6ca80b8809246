"""Limits that a test makes and lifts as it likes: a coordinator on a server of its own, by a manual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from rate_coordinator import RateLimitCoordinator, Reason
from rate_coordinator.testing.clock import ManualClock

NAMESPACE = "test"


class RateLimits:
    """What a test holds: it limits backends, lifts limits, and moves the time.

    Args:
        coordinator: Started.
        url: What it was made with. Coordinators of this process with this URL and ``namespace`` share its limits and
            its time, sync ones as well; close them before the test ends.
        namespace: See ``url``.
        clock: In use.
    """

    def __init__(self, coordinator: RateLimitCoordinator, url: str, namespace: str, clock: ManualClock) -> None:
        self.coordinator = coordinator
        self.url = url
        self.namespace = namespace
        self.clock = clock

    async def limit(
        self, backend: str, wait_seconds: float = 60.0, model: str | None = None, *, reason: Reason = "rate_limit"
    ) -> None:
        """Limit a backend now, as if somebody else had been refused by it.

        Args:
            backend: The upstream.
            wait_seconds: For how long, in seconds.
            model: Only this model of it.
            reason: Why it refused.

        Raises:
            ValueError: An argument cannot be used.
        """
        await self.coordinator.report_rate_limit(backend, wait_seconds, "test", model=model, reason=reason)

    async def clear(self, backend: str | None = None, model: str | None = None) -> None:
        """Lift the limits of a backend, with those of its models, or of one model of it; None lifts all.

        Raises:
            ValueError: A name cannot be used, or a model is given without a backend.
        """
        await self.coordinator.clear_limits(backend, model=model)

    async def advance(self, seconds: float) -> None:
        """Move the time on; see ``ManualClock.advance``."""
        await self.clock.advance(seconds)


@asynccontextmanager
async def manual_rate_limits(**settings: Any) -> AsyncIterator[RateLimits]:
    """Give limits whose time only the test moves: what the fixture ``rate_limits`` gives, for other test frameworks.

    Args:
        settings: Arguments of ``RateLimitCoordinator.from_url``, such as ``max_wait_seconds``.

    Raises:
        RuntimeError: There are such limits already.
        ModuleNotFoundError: The extra ``testing`` is not installed.
        ValueError: A setting cannot be used.
    """
    clock = ManualClock()
    arguments = {"url": f"memory://{uuid4()}", "namespace": NAMESPACE, **settings}
    with clock.in_use():
        async with RateLimitCoordinator.from_url(**arguments) as coordinator:
            yield RateLimits(coordinator, arguments["url"], arguments["namespace"], clock)
