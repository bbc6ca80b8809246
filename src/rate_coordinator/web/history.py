"""How each pace went in the last minutes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rate_coordinator import PaceStatus
from rate_coordinator.web.looks import Key

KEPT_SECONDS = 300.0
MOST_TARGETS = 100
LEAST_SECONDS = 2.0
"""Between two points of one target."""


class Point(NamedTuple):
    """A pace at one moment; it holds until the next point."""

    at: float
    rate: float
    ceiling: float
    fleet: float


class PaceHistory:
    """The paces of the last minutes, bounded in time and in targets; of more targets, the first ones are kept."""

    def __init__(self) -> None:
        self._points: dict[Key, deque[Point]] = {}

    def record(self, paces: Iterable[PaceStatus], at: float) -> None:
        """Take down the paces of a moment, and forget what is too old.

        Args:
            paces: All that are remembered.
            at: The moment, in seconds of a monotonic clock.
        """
        told = {(pace.backend, pace.model): pace for pace in paces}
        for key, pace in told.items():
            if key in self._points or len(self._points) < MOST_TARGETS:
                self._add(key, Point(at, _short(pace.rate), _short(pace.ceiling), _short(pace.fleet_per_second)))
        for key in self._points.keys() - told.keys():
            # It was forgotten: the upstream may be called at any pace.
            self._add(key, Point(at, 0.0, 0.0, 0.0))
        for key, points in list(self._points.items()):
            while len(points) > 1 and points[1].at < at - KEPT_SECONDS:
                points.popleft()
            if key not in told and len(points) == 1 and points[0].at < at - KEPT_SECONDS:
                del self._points[key]

    def ages(self, at: float) -> Mapping[Key, list[tuple[float, float, float, float]]]:
        """Return for each target how long ago, in seconds, and then the rate, the ceiling and what was let through."""
        return {
            key: [(round(at - point.at, 1), point.rate, point.ceiling, point.fleet) for point in points]
            for key, points in self._points.items()
        }

    def _add(self, key: Key, point: Point) -> None:
        points = self._points.setdefault(key, deque())
        if points and points[-1][1:] == point[1:]:
            return
        if len(points) > 1 and points[-1].at - points[-2].at < LEAST_SECONDS:
            points.pop()
        points.append(point)


def _short(rate: float) -> float:
    return float(f"{rate:.4g}")
