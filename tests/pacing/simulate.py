"""What happens when a limit lifts: a virtual-time simulation of many tasks against one limited upstream.

It answers one question: how many calls are wasted on 429s, and how long does the work take compared with the best
possible schedule, when every task of every process obeys one shared coordinator? Time is simulated, so that the figures
are exact and the same on any machine.

The controllers drive the library's pure functions: ``Controller`` asks for each call, ``Batches`` does what processes
do that take turns for a moment ahead and tell of what was served only when they ask again, ``Untold`` begins as the
library's processes do.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

from rate_coordinator import pacing
from rate_coordinator.pacestate import PaceState
from rate_coordinator.probing import held, is_out

# Upstreams: `hit(now)` is None when the call is served, else the seconds that its Retry-After asks for.


class Upstream(Protocol):
    """Something that limits calls."""

    def hit(self, now: float) -> float | None: ...

    def ideal(self, calls: int) -> float:
        """Return how long so many calls take if each goes as soon as it would be served."""
        ...


class TokenBucket:
    """Serves ``rate`` a second with bursts of ``burst``; Retry-After in whole seconds, as most servers send it."""

    def __init__(self, rate: float, burst: int, whole_seconds: bool = True) -> None:
        self.rate, self.burst, self.whole_seconds = rate, burst, whole_seconds
        self.tokens, self.updated = float(burst), 0.0

    def hit(self, now: float) -> float | None:
        self.tokens = min(self.burst, self.tokens + (now - self.updated) * self.rate)
        self.updated = now
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        wait = (1 - self.tokens) / self.rate
        return max(1, math.ceil(wait)) if self.whole_seconds else wait

    def ideal(self, calls: int) -> float:
        return (calls - self.burst) / self.rate


class FixedWindow:
    """Serves ``limit`` calls in each aligned window of ``seconds``; Retry-After to the window's end."""

    def __init__(self, limit: int, seconds: float, begun: float = 0.0) -> None:
        self.limit, self.seconds, self.begun = limit, seconds, begun
        self.window, self.used = 0, 0

    def hit(self, now: float) -> float | None:
        now += self.begun
        window = int(now // self.seconds)
        if window != self.window:
            self.window, self.used = window, 0
        if self.used < self.limit:
            self.used += 1
            return None
        return math.ceil((window + 1) * self.seconds - now)

    def ideal(self, calls: int) -> float:
        return max(0.0, ((calls - 1) // self.limit) * self.seconds - self.begun)


class SlidingWindow:
    """Serves ``limit`` calls in any ``seconds``."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds, self.served = limit, seconds, deque[float]()

    def hit(self, now: float) -> float | None:
        while self.served and self.served[0] <= now - self.seconds:
            self.served.popleft()
        if len(self.served) < self.limit:
            self.served.append(now)
            return None
        return max(1, math.ceil(self.served[0] + self.seconds - now))

    def ideal(self, calls: int) -> float:
        return ((calls - 1) // self.limit) * self.seconds


class Tiers:
    """Several limits at once: a call is served when all of them serve it, and counts in none when one refuses."""

    def __init__(self, *tiers: Upstream) -> None:
        self.tiers = tiers

    def hit(self, now: float) -> float | None:
        tried = deepcopy(self.tiers)
        waits = [wait for tier in tried if (wait := tier.hit(now)) is not None]
        if waits:
            return max(waits)
        self.tiers = tried
        return None

    def ideal(self, calls: int) -> float:
        return max(tier.ideal(calls) for tier in self.tiers)


class Guessed:
    """An upstream that sends no Retry-After: the caller always waits for as long as it guesses."""

    def __init__(self, upstream: Upstream, guess: float) -> None:
        self.upstream, self.guess = upstream, guess

    def hit(self, now: float) -> float | None:
        return None if self.upstream.hit(now) is None else self.guess

    def ideal(self, calls: int) -> float:
        return self.upstream.ideal(calls)


# Controllers: the one shared brain that all processes obey.


class Shared(Protocol):
    """What decides when a call may go. Times are in seconds."""

    @property
    def epoch(self) -> int:
        """Which knowledge a call that goes now is admitted under; it comes back with the call's answer."""
        ...

    def next_slot(self, now: float) -> float:
        """Return the earliest time at which one more call may go."""
        ...

    def admit(self, now: float) -> None:
        """One call goes now."""

    def succeeded(self, now: float, epoch: int) -> None:
        """A call admitted under ``epoch`` was served."""

    def limited(self, now: float, wait: float, epoch: int, age: float) -> None:
        """A call admitted under ``epoch``, ``age`` seconds ago, was answered 429 with ``wait`` seconds."""


def floor_ms(seconds: float) -> int:
    return math.floor(seconds * 1000 + 1e-6)


def hold(state: PaceState, now_ms: int) -> PaceState:
    """Say for whoever makes a probe that it still lives, as it does itself all the time."""
    return held(state, now_ms) if is_out(state) and now_ms <= state.next_free_ms else state


class Controller:
    """One turn at a time, everything told at once."""

    def __init__(self, initial_rate: float | None = None) -> None:
        self.state = pacing.fresh(initial_rate)

    @property
    def epoch(self) -> int:
        return self.state.epoch

    def next_slot(self, now: float) -> float:
        now_ms = floor_ms(now)
        self.state = hold(self.state, now_ms)
        _, grant = pacing.take(self.state, now_ms, 1)
        return now if grant.count else math.ceil(now_ms + grant.first_ms) / 1000

    def admit(self, now: float) -> None:
        self.state, _ = pacing.take(self.state, floor_ms(now), 1)

    def succeeded(self, now: float, epoch: int) -> None:
        self.state = pacing.succeeded(self.state, math.floor(now * 1000), 1, epoch)

    def limited(self, now: float, wait: float, epoch: int, age: float) -> None:
        self.state = pacing.limited(self.state, math.ceil(now * 1000), math.ceil(wait * 1000), epoch, floor_ms(age))


@dataclass(frozen=True, slots=True)
class Permit:
    """A turn that a process holds."""

    at: float
    epoch: int


class Process:
    """One that takes turns in batches."""

    def __init__(self) -> None:
        self.permits: deque[Permit] = deque()
        self.asks_at = 0.0
        self.untold: dict[int, int] = {}
        """Calls that were served since it asked last, by their epoch."""


class Batches:
    """Eight processes that take turns for the next 250 ms at once, and tell of successes only when they take more.

    A refusal cancels the turns that were not used yet: they are of an older epoch, and are given back.
    """

    STALE_AFTER = 0.5

    def __init__(self, processes: int = 8, wanted: int = 16, horizon_ms: int = 250) -> None:
        self.state = pacing.fresh()
        self.wanted, self.horizon_ms = wanted, horizon_ms
        self.processes = [Process() for _ in range(processes)]
        self.answers = 0
        self.epoch = 0

    def next_slot(self, now: float) -> float:
        self.state = hold(self.state, floor_ms(now))
        self._cancel(now)
        slots = []
        for process in self.processes:
            if not process.permits and process.asks_at <= now + 1e-9:
                self._ask(process, now)
            slots.append(process.permits[0].at if process.permits else process.asks_at)
        return max(now, min(slots))

    def admit(self, now: float) -> None:
        self._cancel(now)
        holders = [process for process in self.processes if process.permits]
        permit = min(holders, key=lambda process: process.permits[0].at).permits.popleft()
        assert permit.at <= now + 1e-6
        assert now * 1000 >= self.state.resume_ms - 1e-3
        self.epoch = permit.epoch

    def succeeded(self, now: float, epoch: int) -> None:
        self.answers += 1
        untold = self.processes[self.answers % len(self.processes)].untold
        untold[epoch] = untold.get(epoch, 0) + 1
        self._answer_probe(now, epoch)

    def limited(self, now: float, wait: float, epoch: int, age: float) -> None:
        was_out = is_out(self.state)
        self.state = pacing.limited(self.state, math.ceil(now * 1000), math.ceil(wait * 1000), epoch, floor_ms(age))
        if was_out:
            self._wake(now)

    def _answer_probe(self, now: float, epoch: int) -> None:
        """Who made the probe tells at once, and everyone hears of it."""
        if is_out(self.state) and epoch == self.state.epoch:
            self.state = pacing.succeeded(self.state, math.floor(now * 1000), 1, epoch)
            self._wake(now)

    def _wake(self, now: float) -> None:
        for process in self.processes:
            process.asks_at = min(process.asks_at, now)

    def _ask(self, process: Process, now: float) -> None:
        now_ms = floor_ms(now)
        for epoch, count in process.untold.items():
            self.state = pacing.succeeded(self.state, now_ms, count, epoch)
        process.untold = {}
        self.state, grant = pacing.take(self.state, now_ms, self.wanted, self.horizon_ms)
        first_ms = now_ms + grant.first_ms
        due = (math.ceil(first_ms + number * grant.spacing_ms) / 1000 for number in range(grant.count))
        process.permits = deque(Permit(at, self.state.epoch) for at in due)
        process.asks_at = now if grant.count else math.ceil(first_ms) / 1000

    def _cancel(self, now: float) -> None:
        for process in self.processes:
            kept = [permit for permit in process.permits if self._holds(permit, now)]
            if len(kept) < len(process.permits):
                epoch = process.permits[0].epoch
                self.state = pacing.give_back(self.state, len(process.permits) - len(kept), epoch)
                process.permits = deque(kept)

    def _holds(self, permit: Permit, now: float) -> bool:
        admitted = permit.epoch == self.state.epoch and permit.at * 1000 >= self.state.resume_ms - 1e-6
        return admitted and permit.at >= now - self.STALE_AFTER


class Untold(Batches):
    """Such processes as the library has them: calls that go while nothing is known are told of when one is refused.

    Then each process tells once how many of its calls were served, and since when.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known = False
        self.tallies: list[tuple[float, int] | None] = [None for _ in self.processes]

    def next_slot(self, now: float) -> float:
        return super().next_slot(now) if self.known else now

    def admit(self, now: float) -> None:
        if self.known:
            super().admit(now)

    def succeeded(self, now: float, epoch: int) -> None:
        self.answers += 1
        number = self.answers % len(self.processes)
        since, served = self.tallies[number] or (now, 0)
        self.tallies[number] = since, served + 1
        self._answer_probe(now, epoch)

    def limited(self, now: float, wait: float, epoch: int, age: float) -> None:
        if not self.known:
            self.known, epoch = True, math.ceil(now * 1000)
            self.state = PaceState(epoch=epoch)
        super().limited(now, wait, epoch or self.state.epoch - 1, age)

    def _ask(self, process: Process, now: float) -> None:
        number = self.processes.index(process)
        tally, self.tallies[number] = self.tallies[number], None
        if tally:
            since, served = tally
            self.state = pacing.tell(self.state, floor_ms(now), served, floor_ms(now - since))
        super()._ask(process, now)


class Lossy:
    """A part of the answers is never told."""

    def __init__(self, controller: Shared, share: float, seed: int) -> None:
        self.controller, self.share, self.rng = controller, share, random.Random(seed)

    @property
    def epoch(self) -> int:
        return self.controller.epoch

    def next_slot(self, now: float) -> float:
        return self.controller.next_slot(now)

    def admit(self, now: float) -> None:
        self.controller.admit(now)

    def succeeded(self, now: float, epoch: int) -> None:
        if self.rng.random() >= self.share:
            self.controller.succeeded(now, epoch)

    def limited(self, now: float, wait: float, epoch: int, age: float) -> None:
        if self.rng.random() >= self.share:
            self.controller.limited(now, wait, epoch, age)


# The simulation.


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the work."""

    done: int
    sent: int
    """Requests that reached the upstream."""
    first: int
    """429s to requests sent before anyone knew of a limit: nobody can avoid these."""
    late: int
    """429s after that: the waste that a coordinator is responsible for."""
    time: float
    """When the last call was served, in seconds."""


def simulate(
    upstream: Upstream,
    controller: Shared,
    calls: int,
    tasks: int,
    seed: int,
    *,
    latency: tuple[float, float] = (0.05, 0.2),
    up: float = 0.5,
    refusing: tuple[float, float] | None = None,
    longest: float = 20_000.0,
    changes: tuple[tuple[float, Callable[[Upstream], None]], ...] = (),
) -> Outcome:
    """Let ``tasks`` concurrent tasks make ``calls`` successful calls; a refused call queues again.

    Of the ``latency`` (seconds, from and to), the part ``up`` passes before a call counts, the rest after. Where
    ``refusing`` is given, that is what refusals take, and the ``latency`` begins when a call counts.
    """
    rng = random.Random(seed)
    agenda: list[tuple[float, int, Callable[[float], None]]] = []
    order, waiting, left = 0, 0, calls
    planned: float | None = None
    finished, done, sent, first, late = 0.0, 0, 0, 0, 0

    def at(time: float, action: Callable[[float], None]) -> None:
        nonlocal order
        order += 1
        heapq.heappush(agenda, (time, order, action))

    def plan(now: float) -> None:
        nonlocal planned
        if waiting:
            slot = max(now, controller.next_slot(now))
            if planned is None or slot < planned - 1e-9:
                planned = slot
                at(slot, lambda now: release(now, slot))

    def release(now: float, slot: float) -> None:
        nonlocal planned, waiting
        if planned == slot:
            planned = None
            while waiting and controller.next_slot(now) <= now + 1e-9:
                controller.admit(now)
                waiting -= 1
                send(now)
            plan(now)

    def send(now: float) -> None:
        nonlocal sent
        sent, epoch = sent + 1, controller.epoch
        at(now + rng.uniform(*(refusing or latency)) * up, lambda later: arrive(later, epoch, now))

    def arrive(now: float, epoch: int, sent_at: float) -> None:
        wait = upstream.hit(now)
        if refusing is None:
            rest = rng.uniform(*latency) * (1 - up)
        else:
            rest = rng.uniform(*refusing) * (1 - up) if wait is not None else rng.uniform(*latency)
        at(now + rest, lambda now: answered(now, epoch, wait, sent_at))

    def answered(now: float, epoch: int, wait: float | None, sent_at: float) -> None:
        nonlocal finished, done, first, late, waiting
        if wait is None:
            controller.succeeded(now, epoch)
            finished, done = now, done + 1
            next_call(now)
        else:
            first, late = (first + 1, late) if epoch == 0 else (first, late + 1)
            controller.limited(now, wait, epoch, now - sent_at)
            waiting += 1
        plan(now)

    def next_call(now: float) -> None:
        nonlocal left, waiting
        if left > 0:
            left, waiting = left - 1, waiting + 1
            plan(now)

    for _ in range(tasks):
        at(rng.uniform(0, 0.05), next_call)
    for time, change in changes:
        at(time, lambda _, change=change: change(upstream))  # type: ignore[misc]
    while agenda and agenda[0][0] <= longest:
        now, _, action = heapq.heappop(agenda)
        action(now)
    return Outcome(done, sent, first, late, finished)
