"""What a user knows beforehand about an upstream: where its pace begins, and how many calls may be under way."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field

from rate_coordinator import timers
from rate_coordinator.targets import Target
from rate_coordinator.waits import is_finite


@dataclass(slots=True, order=True)
class _Waiter:
    priority: float
    order: int
    future: asyncio.Future[None] = field(compare=False)


class Slots:
    """At most so many calls of this process are under way at once.

    Args:
        most: 1 or more.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._waiters: list[_Waiter] = []

    async def take(self, priority: float, order: int, timeout: float | None) -> None:
        """Wait for a slot; who has a lower priority goes first, and among the same the lower order.

        Raises:
            TimeoutError: None became free within ``timeout`` seconds.
        """
        if self._taken < self.most:
            self._taken += 1
            return
        waiter = _Waiter(priority, order, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiters, waiter)
        try:
            async with timers.timeout(timeout):
                await waiter.future
        except BaseException:
            if waiter.future.done() and not waiter.future.cancelled():
                self.free()
            waiter.future.cancel()
            raise

    def free(self) -> None:
        """Hand a slot to who is next."""
        self._taken -= 1
        self.resize(self.most)

    def resize(self, most: int) -> None:
        """Allow another number; calls that are under way go on."""
        self.most = most
        while self._waiters and self._taken < self.most:
            waiter = heapq.heappop(self._waiters)
            if not waiter.future.done():
                self._taken += 1
                waiter.future.set_result(None)


class Hints:
    """The hints of one coordinator. ``given`` is looked at by every admission: it is empty where there are none."""

    def __init__(self) -> None:
        self.given: dict[Target, float | None] = {}
        """Each target with a hint, and its initial rate in calls per second."""
        self._slots: dict[Target, Slots] = {}

    def give(self, target: Target, initial_rate: float | None, max_in_flight: int | None) -> None:
        """Remember what is known of a target, in the place of what was told before."""
        slots = self._slots.get(target)
        if max_in_flight is not None:
            self._slots[target] = slots or Slots(max_in_flight)
            self._slots[target].resize(max_in_flight)
        elif slots is not None:
            del self._slots[target]
            slots.resize(2**63)
        self.given.pop(target, None)
        if initial_rate is not None or max_in_flight is not None:
            self.given[target] = initial_rate

    def slots(self, target: Target) -> Slots | None:
        """Return a target's slots; None where there may be any number of calls."""
        return self._slots.get(target)


def check_initial_rate(rate: object) -> float | None:
    """Return an initial rate in calls per second, or None.

    Raises:
        ValueError: ``rate`` is neither None nor a finite number above 0.
    """
    if rate is None:
        return None
    if not is_finite(rate) or rate <= 0:
        raise ValueError(f"initial_rate must be a number of calls per second above 0, not {rate!r:.80}")
    return float(rate)


def check_max_in_flight(count: object) -> int | None:
    """Return how many calls may be under way, or None.

    Raises:
        ValueError: ``count`` is neither None nor a whole number of at least 1.
    """
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise ValueError(f"max_in_flight must be a whole number of at least 1, not {count!r:.80}")
    return count
