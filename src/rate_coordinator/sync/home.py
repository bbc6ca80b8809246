"""What a sync coordinator stands on, which is another in each process."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import NamedTuple, TypeVar
from weakref import WeakSet

import rate_coordinator
from rate_coordinator import CoordinatorClosed, CoordinatorMisuse, Meter
from rate_coordinator.sync.notices import NoticeHandle
from rate_coordinator.sync.portal import Portal

T = TypeVar("T")

AsyncCoordinator = rate_coordinator.RateLimitCoordinator

CLOSE_SECONDS = 5.0
"""How much longer than one call to Redis the end of a coordinator may take."""


class Room(NamedTuple):
    """An async coordinator, and the portal to the thread in which it lives."""

    coordinator: AsyncCoordinator
    portal: Portal


class Home:
    """One room in each process: a forked child opens one of its own when it first needs it.

    Args:
        make: Makes the async coordinator.
        command_timeout: Its longest call to Redis, in seconds.
    """

    def __init__(self, make: Callable[[], AsyncCoordinator], command_timeout: float) -> None:
        self.closed = False
        self.known: Callable[[str, str | None], Coroutine[object, object, tuple[bool, float]]] = _nothing_known
        """The read path, as soon as there is something to read."""
        self._make = make
        self._farewell_seconds = command_timeout + CLOSE_SECONDS
        self._hints: dict[tuple[str, str | None], Callable[[AsyncCoordinator], None]] = {}
        self._handles: list[NoticeHandle] = []
        self._meters: tuple[Meter, ...] = ()
        # A signal's handler may come back to it in the same thread.
        self._lock = threading.RLock()
        self._room: Room | None = self._furnish()
        _homes.add(self)

    @property
    def started(self) -> bool:
        """Whether it was used in this process."""
        return self.known is not _nothing_known

    @property
    def room(self) -> Room:
        """What this process has, closed or not."""
        room = self._room
        if room is None:
            with self._lock:
                room = self._room = self._room or self._furnish()
        return room

    def open(self) -> Room:
        """Return what can be used.

        Raises:
            CoordinatorClosed: It is closed.
        """
        room = self.room
        if self.closed:
            raise CoordinatorClosed("the coordinator is closed")
        return room

    def run(self, ask: Callable[[AsyncCoordinator], Awaitable[T]], *, blocks: bool = True) -> T:
        """Await something of the coordinator, which starts it; see ``Portal.run``."""
        room = self.open()
        answer = room.portal.run(partial(ask, room.coordinator), blocks=blocks)
        self.known = room.coordinator.is_rate_limited
        return answer

    def hint(self, backend: str, model: str | None, give: Callable[[AsyncCoordinator], None]) -> None:
        """Give a hint, here and in every child."""
        room = self.open()
        room.portal.apply(partial(give, room.coordinator))
        self._hints[backend, model] = give

    def listen(self, handle: NoticeHandle) -> None:
        """Let a callback hear notices, here and in every child."""
        room = self.open()
        room.portal.apply(partial(handle.listen, *room))
        with self._lock:
            self._handles = [known for known in self._handles if not known.cancelled] + [handle]

    def add_meter(self, meter: Meter) -> None:
        """Tell a meter of everything, here and in every child."""
        room = self.room
        with self._lock:
            self._meters = (*self._meters, meter)
        room.coordinator.add_meter(meter)

    def remove_meter(self, meter: Meter) -> None:
        """Tell a meter nothing more, here and in every child."""
        room = self.room
        with self._lock:
            self._meters = tuple(other for other in self._meters if other is not meter)
        room.coordinator.remove_meter(meter)

    def close(self) -> None:
        """Close what this process has. Children that are forked later have nothing."""
        with self._lock:
            self.closed = True
            room = self._room
        if room is not None:
            room.portal.close()
        self.known = _nothing_known

    def forked(self) -> None:
        """In a forked child: nothing is here yet."""
        self._lock = threading.RLock()
        self._room = None
        self.known = _nothing_known

    def _furnish(self) -> Room:
        coordinator = self._make()
        room = Room(coordinator, Portal(coordinator.aclose, self._farewell_seconds))
        for meter in self._meters:
            coordinator.add_meter(meter)
        for give in self._hints.values():
            give(coordinator)
        for handle in self._handles:
            if not handle.cancelled:
                handle.listen(*room)
        return room


async def _nothing_known(backend_type: str, model: str | None = None) -> tuple[bool, float]:
    raise CoordinatorMisuse("it has not been started")


_homes: WeakSet[Home] = WeakSet()


def _after_fork() -> None:
    for home in list(_homes):
        home.forked()


os.register_at_fork(after_in_child=_after_fork)
