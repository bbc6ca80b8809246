"""A clock that stands still until a test moves it, beneath every coordinator of this process."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from unittest.mock import patch

from rate_coordinator import clock, embedded, timers

TICKS_PER_SECOND = 2**20
"""A power of two: sums of ticks have no rounding error, so that 29 s and 1 s are 30 s."""
MOST_ROUNDS = 1000
"""So often each event loop goes round at most, after each step, before the next is made."""
LOOK_SECONDS = 0.01
"""How often it is looked whether an event loop of another thread has ended."""
STUCK_SECONDS = 10.0
"""An event loop of another thread that does not go round for so long is told of."""


@dataclass(slots=True, order=True)
class _Timer:
    due: int
    order: int
    loop: asyncio.AbstractEventLoop = field(compare=False)
    call: Callable[[], object] = field(compare=False)
    context: contextvars.Context = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        # Of another thread, it may have been closed just now.
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._run, context=self.context)

    def _run(self) -> None:
        if not self.cancelled:
            self.call()


class ManualClock:
    """The time of all coordinators of this process, and of all servers on ``memory://``, while it is in use.

    It stands still until it is moved, and then does what is due, in order, each at its time. It moves limits, waits,
    turns and leases. It does not move what is not the coordinator's (``asyncio.sleep``, timeouts of sockets,
    ``time.time()``), and a coordinator on a real Redis must not be used with it.
    """

    def __init__(self) -> None:
        self._began_at = math.ceil(clock.now())
        self._began_on = int(time.time())
        self._ticks = 0
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._loops: set[asyncio.AbstractEventLoop] = set()

    def now(self) -> float:
        """Return the seconds on the process's clock: only differences mean something."""
        return self._began_at + self._ticks / TICKS_PER_SECOND

    def wall_time(self) -> float:
        """Return the seconds since 1970 on the servers' clock."""
        return self._began_on + self._ticks / TICKS_PER_SECOND

    async def advance(self, seconds: float) -> None:
        """Move on, do what is due meanwhile, and return when the tasks that this woke have nothing left to do.

        Args:
            seconds: How far, finite and at least 0; rounded up to the next 2**-20 of a second.

        Raises:
            ValueError: ``seconds`` cannot be used.
        """
        own = asyncio.get_running_loop()
        for _ in self._steps(_ticks(seconds)):
            for loop in [own, *self._running_loops() - {own}]:
                if loop is own:
                    await _settle()
                else:
                    await asyncio.to_thread(_settle_elsewhere, loop)

    def advance_blocking(self, seconds: float) -> None:
        """Do the same from a thread without an event loop, for coordinators whose loop runs in another one.

        Args:
            seconds: See ``advance``.

        Raises:
            ValueError: ``seconds`` cannot be used.
        """
        for _ in self._steps(_ticks(seconds)):
            for loop in self._running_loops():
                _settle_elsewhere(loop)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Put it beneath everything, while the context lasts.

        Raises:
            RuntimeError: Another one is in use.
            ModuleNotFoundError: The extra ``embedded`` is not installed.
        """
        if isinstance(getattr(clock.now, "__self__", None), ManualClock):
            raise RuntimeError("another manual clock is in use: there is one time in a process")
        with ExitStack() as patches:
            patches.enter_context(embedded.clocked_by(self.wall_time))
            patches.enter_context(patch.object(clock, "now", self.now))
            for name, ours in (("call_later", self._call_later), ("timeout", self._timeout), ("sleep", self._sleep)):
                patches.enter_context(patch.object(timers, name, ours))
            yield

    def _steps(self, ticks: int) -> Iterator[None]:
        """Move from one timer to the next, and pause after each for what it woke."""
        until = self._ticks + ticks
        yield
        while (timer := self._next(until)) is not None:
            self._ticks = max(self._ticks, timer.due)
            timer.fire()
            yield
        self._ticks = max(self._ticks, until)
        yield

    def _next(self, until: int) -> _Timer | None:
        with self._lock:
            while self._timers and (self._timers[0].cancelled or self._timers[0].due <= until):
                timer = heapq.heappop(self._timers)
                if not timer.cancelled:
                    return timer
        return None

    def _running_loops(self) -> set[asyncio.AbstractEventLoop]:
        with self._lock:
            self._loops = {loop for loop in self._loops if loop.is_running()}
            return set(self._loops)

    def _call_later(self, seconds: float, callback: Callable[..., object], *arguments: object) -> _Timer:
        loop = asyncio.get_running_loop()
        due = self._ticks + _ticks(max(0.0, seconds))
        timer = _Timer(due, next(self._order), loop, lambda: callback(*arguments), contextvars.copy_context())
        with self._lock:
            self._loops.add(loop)
            if seconds > 0:
                heapq.heappush(self._timers, timer)
        if seconds <= 0:
            timer.fire()
        return timer

    @asynccontextmanager
    async def _timeout(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as bound:
            timer = None if seconds is None else self._call_later(seconds, lambda: bound.reschedule(loop.time()))
            try:
                yield bound
            finally:
                if timer is not None:
                    timer.cancel()

    async def _sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        timer = self._call_later(seconds, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()


async def _settle() -> None:
    """Let all other tasks of this event loop go on, until none of them can without a timer, a thread or a socket."""
    loop = asyncio.get_running_loop()
    for _ in range(MOST_ROUNDS):
        await asyncio.sleep(0)
        if _is_quiet(loop):
            return


def _settle_elsewhere(loop: asyncio.AbstractEventLoop) -> None:
    """Do the same with the event loop of another thread, which may end meanwhile."""
    quiet = threading.Event()

    def go_round(left: int) -> None:
        if left and not _is_quiet(loop):
            loop.call_soon(go_round, left - 1)
        else:
            quiet.set()

    with suppress(RuntimeError):
        loop.call_soon_threadsafe(go_round, MOST_ROUNDS)
    for _ in range(round(STUCK_SECONDS / LOOK_SECONDS)):
        if quiet.wait(LOOK_SECONDS) or not loop.is_running():
            return
    raise TimeoutError(f"the event loop {loop!r} has not gone round for {STUCK_SECONDS:g} s")


def _is_quiet(loop: asyncio.AbstractEventLoop) -> bool:
    # Of asyncio's own loops it can be seen; others (uvloop) go round as often as it may ever take.
    return not getattr(loop, "_ready", True)


def _ticks(seconds: object) -> int:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"seconds must be a finite number of at least 0, not {seconds!r:.80}")
    return math.ceil(seconds * TICKS_PER_SECOND)
