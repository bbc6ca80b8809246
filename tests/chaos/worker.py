"""One of the processes: reports, waits and clears at random, and never stops reading.

It tells the driver everything that it does and sees, one JSON line each, and takes a few commands the same way. It does
not judge, except for what can be judged from here alone: a read that raises, or a limit that went down. Times are those
of this host's clock, on which the server runs as well.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from rate_coordinator import CoordinatorUnavailable, LimitWaitTimeout, RateLimitCoordinator, ServerUnsuitable
from tests.metronome import Metronome

Name = tuple[str, str | None]

TARGETS: tuple[Name, ...] = (
    *((f"b{number}", None) for number in range(5)),
    *(("b0", "m0"), ("b0", "m1"), ("b1", "m0"), ("b4", "m0")),
)
LONGEST_WAIT_SECONDS = 20.0
SETTINGS: dict[str, Any] = {
    "connect_timeout": 1.0,
    "command_timeout": 1.0,
    "ping_interval": 0.3,
    "ping_timeout": 0.5,
    "resync_interval": 2.0,
    "max_events": 1_000_000,
}
"""The same mechanisms as with the defaults, faster; and no event is ever cut off, so that all can be looked for."""

LANES = 3
"""So many things does a process at once, besides reading."""
LOOK_SECONDS = 0.01
MOST_ACTIONS = 100_000
NUMBERS_PER_WORKER = 1_000_000

TOLERANCE_SECONDS = 0.02
"""So much lower may a deadline be than was once told. The server's clock is told in milliseconds, rounded down: 1 ms.
Clocks that are being adjusted may drift apart by 500 ppm, which is 10 ms in the longest wait."""
SLOW_READ_SECONDS = 0.1
"""A read that waited for anything would take longer, the machine's own stalls apart."""


@dataclass
class Seen:
    """The latest resume time that a target was told to have, and since when."""

    promise: float
    since: float
    sheet: int | None
    exact: bool = True
    """Whether it is the resume time, and not an upper bound of it: what a reply says is left, from its arrival on."""


@dataclass
class Counters:
    """What was done so far."""

    reads: int = 0
    longest_read: float = 0.0
    longest_stall: float = 0.0
    waits: int = 0


class Life:
    """What one process does all the time.

    Args:
        coordinator: Its coordinator.
        number: Which of the processes it is.
        seed: Of what it does by chance.
    """

    def __init__(self, coordinator: RateLimitCoordinator, number: int, seed: int) -> None:
        self.counters = Counters()
        self._coordinator = coordinator
        self._number = number
        self._chance = random.Random(f"{seed} {number}")
        self._numbers = iter(range(number * NUMBERS_PER_WORKER, (number + 1) * NUMBERS_PER_WORKER))
        self._seen: dict[Name, Seen] = {}
        self._early: dict[Name, float] = {}
        self._may_act = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._acting = 0

    async def run(self) -> None:
        """Live until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            for _ in range(LANES):
                tasks.create_task(self._act())

    async def resume(self) -> None:
        """Begin, or go on, to act."""
        self._may_act.set()

    async def pause(self) -> None:
        """Do nothing but read any more, and return when everything that is being done has ended."""
        self._may_act.clear()
        await self._idle.wait()

    async def state(self) -> dict[str, Any]:
        """Return what it knows and how it is."""
        health = self._coordinator.health
        limits = self._coordinator.limits
        return {
            "state": health.state,
            "buffered": health.reports_buffered,
            "dropped": health.reports_dropped,
            "error": health.last_error,
            "held": [str(limit.target) for limit in limits if not limit.delivered],
            "limits": {str(limit.target): round(limit.resume_at.timestamp() * 1000) for limit in limits},
            "counters": asdict(self.counters),
        }

    async def clear(self, backend: str | None, model: str | None) -> None:
        """Lift limits."""
        number = next(self._numbers)
        began = time.time()
        # Told before it is done: others may see it before this process knows that it was done.
        _tell(kind="clear", number=number, backend=backend, model=model, began=began, ended=None, done=False)
        done = False
        try:
            await self._coordinator.clear_limits(backend, model=model)
            done = True
        except (CoordinatorUnavailable, ServerUnsuitable):
            pass
        except Exception as error:
            _tell(kind="raised", what="clear", error=repr(error))
        _tell(kind="clear", number=number, backend=backend, model=model, began=began, ended=time.time(), done=done)

    async def _act(self) -> None:
        for _ in range(MOST_ACTIONS // LANES):
            await self._may_act.wait()
            self._acting += 1
            self._idle.clear()
            try:
                await self._act_once()
            finally:
                self._acting -= 1
                if not self._acting:
                    self._idle.set()
            await asyncio.sleep(self._chance.expovariate(5.0))

    async def _act_once(self) -> None:
        what = self._chance.choices(("report", "storm", "wait", "clear", "refresh"), (60, 3, 30, 2, 1))[0]
        if what == "report":
            await self._report()
        elif what == "storm":
            await asyncio.gather(*(self._report() for _ in range(10)))
        elif what == "wait":
            await self._wait()
        elif what == "clear":
            backend, model = self._chance.choice((*TARGETS, (None, None)))
            await self.clear(backend, model)
        else:
            await self._timed("refresh", SETTINGS["command_timeout"], self._coordinator.refresh())

    async def _report(self) -> None:
        number = next(self._numbers)
        backend, model = target = self._chance.choice(TARGETS)
        wait = self._chance.choice(
            (0.0, self._chance.uniform(0.05, 2.0), self._chance.uniform(2.0, LONGEST_WAIT_SECONDS))
        )
        made = time.time()
        told = {"number": number, "backend": backend, "model": model, "wait": wait, "made": made}
        # Told before it is done as well: this process may be killed before it knows what became of it.
        _tell(kind="report", **told, ended=None, event=None)
        try:
            result = await self._coordinator.report_rate_limit(backend, wait, "chaos", number, model=model)
        except Exception as error:
            _tell(kind="raised", what="report", error=repr(error))
            return
        self._look_at(target, made + wait if wait else 0.0, number, "own write")
        _tell(kind="report", **told, ended=time.time(), event=result.event_id)

    async def _wait(self) -> None:
        backend, model = self._chance.choice(TARGETS)
        timeout = self._chance.uniform(0.0, 1.0)
        self.counters.waits += 1
        began = time.time()
        seen = self._seen.get((backend, model))
        try:
            await self._coordinator.wait_until_clear(backend, model, timeout)
            released = time.time()
            if seen is not None and released < seen.promise - TOLERANCE_SECONDS:
                self._tell_drop((backend, model), seen, released, released, "released early")
        except LimitWaitTimeout:
            pass
        except Exception as error:
            _tell(kind="raised", what="wait", error=repr(error))
        _tell_slow("wait", timeout, began)

    async def _timed(self, what: str, timeout: float, call: Any) -> None:
        began = time.time()
        try:
            await call
        except (CoordinatorUnavailable, ServerUnsuitable):
            pass
        except Exception as error:
            _tell(kind="raised", what=what, error=repr(error))
        _tell_slow(what, timeout, began)

    async def _watch(self) -> None:
        """Read all the time; whatever goes wrong, go on."""
        with Metronome() as metronome:
            while True:
                await self._watch_once()
                for since, until in metronome.take():
                    _tell(kind="stall", since=since, until=until)

    async def _watch_once(self) -> None:
        began = time.time()
        for target in TARGETS:
            await self._read(target)
        try:
            self._look()
        except Exception as error:
            _tell(kind="raised", what="limits", error=repr(error))
        before = time.time()
        await asyncio.sleep(LOOK_SECONDS)
        stall = time.time() - before - LOOK_SECONDS
        self.counters.longest_stall = max(self.counters.longest_stall, stall)
        if before - began > SLOW_READ_SECONDS:
            _tell(kind="slow", what="reads", bound=SLOW_READ_SECONDS, began=began, ended=before)

    async def _read(self, target: Name) -> None:
        began = time.perf_counter()
        try:
            await self._coordinator.is_rate_limited(*target)
        except Exception as error:
            _tell(kind="raised", what="read", error=repr(error))
        took = time.perf_counter() - began
        self.counters.reads += 1
        if took <= SLOW_READ_SECONDS:
            # A longer one is told of by the whole round, and judged there: this process may have been stopped.
            self.counters.longest_read = max(self.counters.longest_read, took)

    def _look(self) -> None:
        """Compare what every target's limit is now with what was told of it before."""
        before = time.time()
        limits = {(limit.backend, limit.model): limit for limit in self._coordinator.limits}
        after = time.time()
        for target in limits.keys() | self._seen.keys():
            limit = limits.get(target)
            seen = self._seen.get(target)
            # As late as it can be: a process that is interrupted in between must not be blamed for it.
            deadline = after + limit.seconds_remaining if limit else 0.0
            if seen is not None and deadline < seen.promise - TOLERANCE_SECONDS:
                if seen.promise > before:
                    self._tell_drop(target, seen, deadline, after, "drop")
                seen = None
            if limit is not None:
                promise = limit.resume_at.timestamp() if limit.delivered else before + limit.seconds_remaining
                if seen is None or promise > seen.promise + 0.0005:
                    sheet = limit.sheet_num if limit.delivered and limit.job_id == "chaos" else None
                    self._seen[target] = Seen(promise, after, sheet, limit.delivered)
                else:
                    self._seen[target] = seen
                if deadline < promise - TOLERANCE_SECONDS and self._early.get(target) != promise:
                    self._early[target] = promise
                    told = {"sheet": limit.sheet_num, "delivered": limit.delivered, "wait": limit.wait_seconds}
                    _tell(kind="early", target=target, promise=promise, deadline=deadline, at=after, **told)
            else:
                self._seen.pop(target, None)

    def _look_at(self, target: Name, promise: float, number: int, what: str) -> None:
        """Compare what a target's limit is now with what was just reported."""
        limits = {(limit.backend, limit.model): limit.seconds_remaining for limit in self._coordinator.limits}
        after = time.time()
        deadline = after + limits[target] if target in limits else 0.0
        if promise > after and deadline < promise - TOLERANCE_SECONDS:
            self._tell_drop(target, Seen(promise, after, number), deadline, after, what)

    def _tell_drop(self, target: Name, seen: Seen, deadline: float, at: float, what: str) -> None:
        backend, model = target
        told = {"worker": self._number, "backend": backend, "model": model, "deadline": deadline, "at": at}
        _tell(kind="drop", what=what, **told, **asdict(seen))


def _tell(**told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _tell_slow(what: str, bound: float, began: float) -> None:
    ended = time.time()
    if ended - began > bound:
        _tell(kind="slow", what=what, bound=bound, began=began, ended=ended)


async def serve(url: str, namespace: str, number: int, seed: int, seconds: float) -> None:
    """Live until standard input ends, but no longer than so many seconds."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    coordinator = RateLimitCoordinator.from_url(url, namespace, reporter=f"worker {number}", **SETTINGS)
    # It may be started in the middle of a fault.
    await coordinator.start(degraded_ok=True)
    async with coordinator:
        life = Life(coordinator, number, seed)
        living = asyncio.create_task(life.run())
        try:
            async with asyncio.timeout(seconds):
                while line := await reader.readline():
                    what, arguments = json.loads(line)
                    _tell(kind="answer", result=await getattr(life, what)(*arguments))
        finally:
            living.cancel()
            await asyncio.wait([living])


def main() -> None:
    """Run the process: ``python -m tests.chaos.worker URL NAMESPACE NUMBER SEED SECONDS``."""
    url, namespace, number, seed, seconds = sys.argv[1:]
    # That Redis is away is the point of it all; what was not foreseen is an error.
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(url, namespace, int(number), int(seed), float(seconds)))


if __name__ == "__main__":
    main()
