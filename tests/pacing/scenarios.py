"""Upstreams and workloads, each with the bounds that the pace must hold on it.

``GIVEN`` are the nine that the pace is made for. ``FURTHER`` are others in which no more is refused and the work takes
at most a quarter longer than the ideal. ``HARDER`` have bounds of their own, on the mean of several runs: what can be
learned there from refusals alone comes later or costs more, or depends on chance, and must not get worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tests.pacing.simulate import (
    Batches,
    Controller,
    FixedWindow,
    Guessed,
    Lossy,
    Outcome,
    Shared,
    SlidingWindow,
    Tiers,
    TokenBucket,
    Untold,
    Upstream,
    simulate,
)

LATE_SHARE = 0.01
LATE_COUNT = 5
LONG_SECONDS = 60.0
TIME_SHORT, TIME_LONG = 1.25, 1.10

CONTROLLERS: dict[str, Callable[[], Shared]] = {"calls": Controller, "batches": Batches, "processes": Untold}


@dataclass(frozen=True)
class Scenario:
    """So many calls of so many tasks."""

    upstream: Callable[[], Upstream]
    calls: int
    tasks: int
    latency: tuple[float, float] = (0.05, 0.2)
    up: float = 0.5
    """The part of it that passes before a call counts."""
    refusing: tuple[float, float] | None = None
    """The latency of refusals, where it is another one."""
    changes: tuple[tuple[float, float], ...] = ()
    """When the upstream's rate becomes what."""
    ideal: float | None = None
    """Seconds that the best possible schedule takes, where it is not what the upstream says."""
    lost: float = 0.0
    """The share of answers that are never told."""
    late_share: float = LATE_SHARE
    """429s after the first ones, as a share of all that is sent; so few as ``LATE_COUNT`` are always fine."""
    time: float | None = None
    """Bound of the time, as a multiple of the ideal."""

    @property
    def ideal_seconds(self) -> float:
        return self.upstream().ideal(self.calls) if self.ideal is None else self.ideal

    @property
    def time_bound(self) -> float:
        if self.time is not None:
            return self.time
        return TIME_LONG if self.ideal_seconds > LONG_SECONDS else TIME_SHORT


def set_rate(rate: float) -> Callable[[Upstream], None]:
    def change(upstream: Upstream) -> None:
        assert isinstance(upstream, TokenBucket)
        upstream.rate = rate

    return change


def changing(burst: int, calls: int, *changes: tuple[float, float], time: float | None = None) -> Scenario:
    """A bucket of 50/s whose rate changes."""
    left, rate, since = float(calls - burst), 50.0, 0.0
    for at, becomes in changes:
        left, rate, since = left - (at - since) * rate, becomes, at
    return Scenario(lambda: TokenBucket(50, burst), calls, 400, changes=changes, ideal=since + left / rate, time=time)


GIVEN = {
    "bucket 50/s, burst 50": Scenario(lambda: TokenBucket(50, 50), 2000, 400),
    "bucket 50/s, burst 5": Scenario(lambda: TokenBucket(50, 5), 2000, 400),
    "bucket 50/s, burst 5, long": Scenario(lambda: TokenBucket(50, 5), 10_000, 400),
    "bucket 50/s, exact Retry-After": Scenario(lambda: TokenBucket(50, 50, whole_seconds=False), 2000, 400),
    "bucket 5/s, burst 5": Scenario(lambda: TokenBucket(5, 5), 400, 100),
    "window 500 in 10 s": Scenario(lambda: FixedWindow(500, 10), 2000, 400),
    "window 600 in 60 s, long": Scenario(lambda: FixedWindow(600, 60), 6000, 400),
    "window 60 in 60 s": Scenario(lambda: FixedWindow(60, 60), 400, 100),
    "sliding 100 in 10 s": Scenario(lambda: SlidingWindow(100, 10), 1000, 200),
}

MODEL = (2.0, 20.0)
"""Seconds that a language model takes to answer."""
QUICK = (0.05, 0.2)
"""What its refusals take, where it refuses at once."""
MODEL_TAIL = 18.0
"""Seconds that the last answers of a model take, whatever the schedule."""

FURTHER = {
    "falls 50 -> 20, burst 50": changing(50, 4000, (40, 20)),
    "two tiers, 20/s and 600/min": Scenario(
        lambda: Tiers(TokenBucket(20, 20), FixedWindow(600, 60)), 3000, 400, time=1.2
    ),
    "two tiers, sliding minute": Scenario(
        lambda: Tiers(TokenBucket(20, 20), SlidingWindow(600, 60)), 3000, 400, time=1.2
    ),
    "guess 1 s, bucket 50/s, burst 50": Scenario(lambda: Guessed(TokenBucket(50, 50), 1), 2000, 400),
    "guess 1 s, bucket 50/s, burst 5": Scenario(lambda: Guessed(TokenBucket(50, 5), 1), 4000, 400, time=1.2),
    "guess 5 s, bucket 50/s, burst 50": Scenario(lambda: Guessed(TokenBucket(50, 50), 5), 10_000, 400, time=1.15),
    "lost 10 %, bucket 50/s, burst 50": Scenario(lambda: TokenBucket(50, 50), 2000, 400, lost=0.1),
    "lost 10 %, bucket 50/s, burst 5": Scenario(lambda: TokenBucket(50, 5), 4000, 400, lost=0.1, time=1.25),
    "lost 10 %, window 500 in 10 s": Scenario(lambda: FixedWindow(500, 10), 2000, 400, lost=0.1),
    "lost 10 %, window 60 in 60 s": Scenario(lambda: FixedWindow(60, 60), 400, 100, lost=0.1),
    "model 2-20 s, never limited": Scenario(
        lambda: TokenBucket(50, 50), 4000, 400, latency=MODEL, ideal=110 + MODEL_TAIL
    ),
    "model 2-20 s, window 600 in 60 s": Scenario(
        lambda: FixedWindow(600, 60), 3000, 400, latency=MODEL, ideal=240 + MODEL_TAIL, time=1.2
    ),
    "model 2-20 s, refuses at once, bucket 20/s, burst 20": Scenario(
        lambda: TokenBucket(20, 20), 2000, 400, latency=MODEL, refusing=QUICK, ideal=99 + MODEL_TAIL, time=1.2
    ),
    "model 2-20 s, refuses at once, bucket 50/s, burst 5": Scenario(
        lambda: TokenBucket(50, 5), 4000, 400, latency=MODEL, refusing=QUICK, ideal=110 + MODEL_TAIL, time=1.22
    ),
    "model 2-20 s, refuses at once, bucket 5/s, burst 5": Scenario(
        lambda: TokenBucket(5, 5), 1000, 400, latency=MODEL, refusing=QUICK, ideal=199 + MODEL_TAIL
    ),
    "model 2-20 s, refuses at once, window 600 in 60 s": Scenario(
        lambda: FixedWindow(600, 60), 3000, 400, latency=MODEL, refusing=QUICK, ideal=240 + MODEL_TAIL
    ),
    "answers after 0.5-2 s, refuses at once, bucket 50/s, burst 50": Scenario(
        lambda: TokenBucket(50, 50), 4000, 400, latency=(0.5, 2), refusing=QUICK
    ),
    "counted on arrival, bucket 50/s, burst 50": Scenario(lambda: TokenBucket(50, 50), 2000, 400, up=0),
    "counted on arrival, bucket 50/s, burst 5": Scenario(lambda: TokenBucket(50, 5), 2000, 400, up=0, time=1.15),
    "counted on arrival, bucket 100/s, burst 10": Scenario(lambda: TokenBucket(100, 10), 4000, 400, up=0, time=1.2),
    "counted on arrival, bucket 8/s, burst 3": Scenario(lambda: TokenBucket(8, 3), 400, 400, up=0, time=1.15),
    "counted on arrival, window 500 in 10 s": Scenario(lambda: FixedWindow(500, 10, begun=3), 2000, 400, up=0),
    "answers after 1-3 s, window 600 in 60 s": Scenario(lambda: FixedWindow(600, 60), 4000, 400, latency=(1, 3)),
    "bucket 200/s, burst 200": Scenario(lambda: TokenBucket(200, 200), 6000, 400),
    "bucket 1/s, burst 1": Scenario(lambda: TokenBucket(1, 1), 200, 50, time=1.25),
    "bucket 1/s, burst 10": Scenario(lambda: TokenBucket(1, 10), 300, 50),
    "bucket 30/s, burst 1000": Scenario(lambda: TokenBucket(30, 1000), 5000, 400),
    "window 100 in 1 s": Scenario(lambda: FixedWindow(100, 1), 12_000, 400, time=1.25),
    "window 1000 in an hour": Scenario(lambda: FixedWindow(1000, 3600), 1300, 200),
    "window 5000 in 5 min": Scenario(lambda: FixedWindow(5000, 300), 12_000, 400),
    "window 100 in 7 s": Scenario(lambda: FixedWindow(100, 7), 1500, 200),
    "window 40 in 100 s": Scenario(lambda: FixedWindow(40, 100), 300, 50),
    "window 600 in 60 s, begun 25 s before": Scenario(lambda: FixedWindow(600, 60, begun=25), 4000, 400),
    "window 500 in 10 s, begun 7 s before": Scenario(lambda: FixedWindow(500, 10, begun=7), 4000, 400),
    "sliding 50 in 5 s": Scenario(lambda: SlidingWindow(50, 5), 1000, 200),
    "sliding 300 in 60 s": Scenario(lambda: SlidingWindow(300, 60), 2000, 200),
    "20 tasks, bucket 50/s, burst 50": Scenario(lambda: TokenBucket(50, 50), 3000, 20),
    "50 tasks, bucket 50/s, burst 5": Scenario(lambda: TokenBucket(50, 5), 3000, 50),
    "20 tasks, window 500 in 10 s": Scenario(lambda: FixedWindow(500, 10), 3000, 20),
    "20 tasks, bucket 5/s, burst 5": Scenario(lambda: TokenBucket(5, 5), 400, 20),
    "50 tasks, sliding 100 in 10 s": Scenario(lambda: SlidingWindow(100, 10), 1000, 50),
}

HARDER = {
    "lost 10 %, sliding 100 in 10 s": Scenario(lambda: SlidingWindow(100, 10), 1000, 200, lost=0.1, time=1.15),
    "lost 10 %, bucket 50/s, burst 5, 2000 calls": Scenario(lambda: TokenBucket(50, 5), 2000, 400, lost=0.1, time=1.22),
    "falls 50 -> 20, burst 5": changing(5, 4000, (40, 20), time=1.2),
    "rises 50 -> 150, burst 50": changing(50, 10_000, (40, 150), time=1.2),
    "rises 50 -> 150, burst 5": changing(5, 10_000, (40, 150), time=1.45),
    "two tiers, 20 in 1 s and 600/min": Scenario(
        lambda: Tiers(FixedWindow(20, 1), FixedWindow(600, 60)), 3000, 400, time=1.2
    ),
    "guess 5 s, bucket 50/s, 2000 calls": Scenario(lambda: Guessed(TokenBucket(50, 50), 5), 2000, 400, time=1.32),
    "guess 1 s, window 500 in 10 s": Scenario(lambda: Guessed(FixedWindow(500, 10), 1), 2000, 400, time=1.25),
    "guess 5 s, window 600 in 60 s": Scenario(lambda: Guessed(FixedWindow(600, 60), 5), 3000, 400, time=1.15),
    "model 2-20 s, bucket 20/s, burst 20": Scenario(
        lambda: TokenBucket(20, 20), 2000, 400, latency=MODEL, ideal=99 + MODEL_TAIL, time=1.27
    ),
    "model 2-20 s, bucket 5/s, burst 5": Scenario(
        lambda: TokenBucket(5, 5), 1000, 400, latency=MODEL, ideal=199 + MODEL_TAIL, late_share=0.012, time=1.55
    ),
    "model 2-20 s, bucket 50/s, burst 5": Scenario(
        lambda: TokenBucket(50, 5), 4000, 400, latency=MODEL, ideal=110 + MODEL_TAIL, time=1.62
    ),
    "model 2-20 s, refuses at once, bucket 5/s, burst 50": Scenario(
        lambda: TokenBucket(5, 50), 1000, 400, latency=MODEL, refusing=QUICK, ideal=190 + MODEL_TAIL
    ),
    "answers after 0.5-2 s, refuses at once, bucket 50/s, burst 5": Scenario(
        lambda: TokenBucket(50, 5), 4000, 400, latency=(0.5, 2), refusing=QUICK, time=1.18
    ),
    "answers after 0.5-2 s, bucket 50/s, burst 50": Scenario(
        lambda: TokenBucket(50, 50), 4000, 400, latency=(0.5, 2), time=1.15
    ),
    "answers after 0.5-2 s, bucket 50/s, burst 5": Scenario(
        lambda: TokenBucket(50, 5), 4000, 400, latency=(0.5, 2), time=2.1
    ),
    "bucket 200/s, burst 20": Scenario(lambda: TokenBucket(200, 20), 6000, 400),
    "bucket 10/s, burst 100": Scenario(lambda: TokenBucket(10, 100), 1500, 400),
    "bucket 0.2/s, burst 50": Scenario(lambda: TokenBucket(0.2, 50), 200, 100, late_share=0.035),
}

SCENARIOS = GIVEN | FURTHER | HARDER


@cache
def run(name: str, controller: str, seed: int) -> Outcome:
    """Play a scenario; the same one is played once."""
    scenario = SCENARIOS[name]
    shared = CONTROLLERS[controller]()
    return simulate(
        scenario.upstream(),
        Lossy(shared, scenario.lost, seed) if scenario.lost else shared,
        scenario.calls,
        scenario.tasks,
        seed,
        latency=scenario.latency,
        up=scenario.up,
        refusing=scenario.refusing,
        changes=tuple((at, set_rate(rate)) for at, rate in scenario.changes),
    )
