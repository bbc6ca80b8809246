"""Requests over time, counted in bins, and axes that fit several of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.herd.policies import SECOND_NS
from benchmarks.herd.runs import Run

BIN_SECONDS = 0.5
MOST_TICKS = 8


@dataclass(frozen=True)
class Histogram:
    """How many requests were sent in each bin after the start, by what became of them."""

    served: tuple[int, ...]
    refused: tuple[int, ...]

    @classmethod
    def of(cls, run: Run) -> Histogram:
        """Count the requests of a run."""
        numbers = [max(0, one.sent_ns - run.start_ns) // round(BIN_SECONDS * SECOND_NS) for one in run.requests]
        served, refused = ([0] * (max(numbers, default=0) + 1) for _ in range(2))
        for number, one in zip(numbers, run.requests, strict=True):
            (served if one.served else refused)[number] += 1
        return cls(tuple(served), tuple(refused))

    @property
    def sent(self) -> tuple[int, ...]:
        """All of them together."""
        return tuple(one + other for one, other in zip(self.served, self.refused, strict=True))

    @property
    def seconds(self) -> float:
        """Where the last bin ends."""
        return len(self.served) * BIN_SECONDS


@dataclass(frozen=True)
class Axis:
    """From 0 to ``end``, with a tick at each multiple of ``step``."""

    end: float
    step: float

    @classmethod
    def up_to(cls, values: Iterable[float]) -> Axis:
        """Return an axis on which all of these have their place."""
        highest = max(values, default=0.0) or 1.0
        magnitude = 10.0 ** math.floor(math.log10(highest / MOST_TICKS))
        step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude * MOST_TICKS >= highest)
        return cls(highest, step)

    @property
    def ticks(self) -> Sequence[float]:
        """Where the ticks are."""
        return [number * self.step for number in range(math.floor(self.end / self.step) + 1)]
