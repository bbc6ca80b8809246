"""What every experiment lets each side do, however that side does it: write limits, and listen to who writes them.

Every write limits a target of its own, which is named after the write's number, and is told to all listeners. So what
was lost, or never heard, can be counted by its number afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

LIMIT_SECONDS = 600.0
"""No limit lifts while an experiment lasts."""
RETRY_SECONDS = 0.05
"""How long a writer pauses after a write that was not acknowledged."""
LOOK_SECONDS = 0.05
"""How often one looks whether something has happened."""
MOST_WRITES = 20_000
"""Nobody writes more than this in one experiment."""

Fate = Literal["acknowledged", "kept", "refused"]
"""What a writer was told: it is done, it will be done when Redis is back, or it failed."""


def now() -> float:
    """Return the clock by which everything is timed."""
    return time.monotonic()


def backend(number: int) -> str:
    """Return what the write of this number limits."""
    return f"b{number}"


def number_of(name: str) -> int:
    """Return the number of the write that limits this."""
    return int(name.removeprefix("b"))


class Writer(Protocol):
    """Writes limits and tells others."""

    async def write(self, number: int) -> Fate:
        """Limit the target of this number and tell everyone. Never raises because of Redis."""
        ...

    def key(self, number: int) -> str:
        """Return the key in Redis by which one sees whether that limit is there."""
        ...


@dataclass
class Desk:
    """Where a side writes, and the record of what its writes came to."""

    writer: Writer
    first: int = 1
    """Number of the first write."""
    begun: dict[int, float] = field(default_factory=dict)
    """When each write, by its number, was begun."""
    acknowledged: dict[int, float] = field(default_factory=dict)
    """When each write that was acknowledged was."""
    kept: set[int] = field(default_factory=set)
    """Numbers of the writes that are to be done when Redis is back."""
    stops_after: float = math.inf
    """A writer ends with the first write that was begun after this and acknowledged."""

    def __post_init__(self) -> None:
        """Make all who write here share their numbers."""
        self._numbers = iter(range(self.first, self.first + MOST_WRITES))

    async def write_on(self, pause_seconds: float = 0.0) -> None:
        """Write one limit after the other, the next when the one before was acknowledged."""
        for number in self._numbers:
            self.begun[number] = now()
            fate = await self.writer.write(number)
            if fate == "acknowledged":
                self.acknowledged[number] = now()
                if self.begun[number] > self.stops_after:
                    return
                await asyncio.sleep(pause_seconds)
            else:
                if fate == "kept":
                    self.kept.add(number)
                await asyncio.sleep(max(RETRY_SECONDS, pause_seconds))

    def with_all_of(self, other: Desk) -> Desk:
        """Return the record of both."""
        return replace(
            self,
            begun=self.begun | other.begun,
            acknowledged=self.acknowledged | other.acknowledged,
            kept=self.kept | other.kept,
        )

    @property
    def promised(self) -> set[int]:
        """Numbers of the writes that are done, or are to be done."""
        return self.acknowledged.keys() | self.kept

    def begun_after(self, moment: float) -> dict[int, float]:
        """Return when each write that was begun after a moment was acknowledged; the answer was not under way then."""
        return {number: at for number, at in self.acknowledged.items() if self.begun[number] > moment}

    def silent_after(self, moment: float) -> float:
        """Return how many seconds after a moment a write was acknowledged; infinity if none was."""
        return min(self.begun_after(moment).values(), default=math.inf) - moment


@dataclass
class Ear:
    """What one listener heard, and when it noticed that it could not hear."""

    heard: dict[int, float] = field(default_factory=dict)
    """Number of each write that it heard of, and when it did for the first time."""
    recovered: set[int] = field(default_factory=set)
    """Those that it missed, and learned of by comparing itself with Redis."""
    breaks: list[float] = field(default_factory=list)
    """When it noticed that its connection was of no use, and when it made itself a new one."""

    def hear(self, number: int, *, recovered: bool = False) -> None:
        """Take down that this write was heard of now."""
        if number not in self.heard:
            self.heard[number] = now()
            if recovered:
                self.recovered.add(number)

    def noticed_after(self, moment: float) -> float:
        """Return how many seconds after a moment it noticed a break; infinity if it did not."""
        return min((at for at in self.breaks if at > moment), default=math.inf) - moment

    def hears_since(self, moment: float, desk: Desk) -> bool:
        """Return whether it heard of anything that was written after a moment."""
        return not self.heard.keys().isdisjoint(desk.begun_after(moment))

    def deaf_after(self, moment: float, desk: Desk) -> float:
        """Return the longest time after a moment that it heard nothing although writes were acknowledged.

        Counted from the first of these writes, infinity if it did not hear any more.
        """
        written = desk.begun_after(moment).items()
        # A notice may be faster than the acknowledgement.
        told = sorted(min(at, self.heard.get(number, at)) for number, at in written)
        heard = sorted(at for at in self.heard.values() if at > moment)
        longest = 0.0
        for silent_from, until in itertools.pairwise([moment, *heard, math.inf]):
            first = bisect_right(told, silent_from)
            if first < len(told) and told[first] < until:
                longest = max(longest, until - told[first])
        return longest


async def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds, but no longer than so many seconds."""
    deadline = now() + seconds
    while not condition():
        if now() > deadline:
            return
        await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def in_background(*endless: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run what does not end by itself, until the block does."""
    async with asyncio.TaskGroup() as group:
        tasks = {group.create_task(one) for one in endless}
        try:
            yield
        finally:
            while tasks:
                for task in tasks:
                    task.cancel()
                # Once is not always enough: redis-py sends with wait_for(), which loses some in Python 3.11.
                _, tasks = await asyncio.wait(tasks, timeout=LOOK_SECONDS)
