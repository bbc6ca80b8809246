"""Our side: the same writes and the same listening through the library, with its defaults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Self

from benchmarks.outages.sides import LIMIT_SECONDS, Ear, Fate, backend, now, number_of, wait_until
from rate_coordinator import Notice, RateLimitCoordinator
from rate_coordinator.keys import Keys
from rate_coordinator.targets import Target

NAMESPACE = "benchmark of outages"
LOOK_SECONDS = 0.01
"""How often a listener's health is looked at."""
SETTLING_SECONDS = 15.0
"""Longest time that a listener may need, after the last write, to know of everything."""
LAST_NOTICES_SECONDS = 0.5


class OurWriter:
    """Writes limits.

    Args:
        coordinator: Through which; started.
    """

    def __init__(self, coordinator: RateLimitCoordinator) -> None:
        self._coordinator = coordinator

    async def write(self, number: int) -> Fate:
        """See ``Writer.write``."""
        result = await self._coordinator.report_rate_limit(backend(number), LIMIT_SECONDS)
        return "acknowledged" if result.delivered else "kept"

    def key(self, number: int) -> str:
        """See ``Writer.key``."""
        return Keys(NAMESPACE).limit(Target(backend(number)))


class OurListener:
    """Listens.

    Args:
        coordinator: Through which; not started yet.
    """

    def __init__(self, coordinator: RateLimitCoordinator) -> None:
        self.ear = Ear()
        self.coordinator = coordinator
        coordinator.on_notice(self._take)

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str) -> AsyncIterator[Self]:
        """Make a listener and start it."""
        coordinator = coordinator_of(url)
        listener = cls(coordinator)
        async with coordinator:
            yield listener

    @property
    def mirrored(self) -> set[int]:
        """Numbers of the writes whose limits its mirror holds."""
        return {number_of(name) for name in self.coordinator.active_limits}

    async def settle(self, promised: Collection[int]) -> set[int]:
        """Wait until its mirror holds these writes' limits, but not for ever; return what it lacks in the end."""

        def lacks() -> set[int]:
            return set(promised) - self.mirrored

        await wait_until(lambda: not lacks(), SETTLING_SECONDS)
        # What was missed is told to callbacks after the mirror has it.
        await asyncio.sleep(LAST_NOTICES_SECONDS)
        return lacks()

    async def watch(self) -> None:
        """Take down each time that the coordinator notices that it cannot hear, until cancelled."""
        state = self.coordinator.health.state
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before, state = state, self.coordinator.health.state
            if state == "degraded" and before != "degraded":
                self.ear.breaks.append(now())

    def _take(self, notice: Notice) -> None:
        self.ear.hear(number_of(notice.backend), recovered=notice.recovered)


def coordinator_of(url: str) -> RateLimitCoordinator:
    """Make a coordinator as anyone would."""
    return RateLimitCoordinator.from_url(url, NAMESPACE)
