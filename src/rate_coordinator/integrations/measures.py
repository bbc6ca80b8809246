"""Counts what a coordinator does and reads the rest from it, so that all exporters of metrics say the same numbers."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Protocol

from rate_coordinator import ActiveLimit, Health, Meter, Notice, PaceStatus, Reason
from rate_coordinator.integrations.families import ASKED_WAIT, NOTICE_DELAY, WAIT, Distribution, Labels

MAX_TARGETS = 100
"""How many targets are told apart unless told otherwise."""

OTHER = "other"
"""The backend and the model of all targets together that come when there are enough."""

LONGEST_WAIT_SECONDS = 366 * 24 * 3600.0
"""An asked wait above this is nonsense, and would drown all others in their sum."""


class Coordinator(Protocol):
    """What is asked of a coordinator here."""

    @property
    def health(self) -> Health:
        """How it is doing."""
        ...

    @property
    def limits(self) -> tuple[ActiveLimit, ...]:
        """Every active limit."""
        ...

    def add_meter(self, meter: Meter) -> None:
        """Tell a meter of everything from now on."""
        ...

    def remove_meter(self, meter: Meter) -> None:
        """Tell it nothing more."""
        ...


class Measures:
    """Counts what a coordinator does, by target, and reads the rest from it. Safe to read from any thread.

    Targets get a name of their own first come, first served, and keep it, so that no counter ever goes down; all that
    come when ``max_targets`` have one are counted together. It does not keep the coordinator alive.

    Args:
        coordinator: What to count; from now on, until ``close``.
        max_targets: How many targets are told apart, 1 or more.
        record: Takes one value of a distribution, with its labels. Called in the coordinator's event loop.

    Raises:
        ValueError: ``max_targets`` is not a whole number of at least 1.
    """

    def __init__(
        self, coordinator: Coordinator, max_targets: int, record: Callable[[Distribution, Labels, float], None]
    ) -> None:
        self._coordinator = weakref.ref(coordinator)
        self._max_targets = _check_max_targets(max_targets)
        self._record = record
        self._names: set[Labels] = set()
        # Counted in one thread only, and copied in one step by those who read; a lock could be held while forking.
        self._reports: Counter[Labels] = Counter()
        self._changes: Counter[Labels] = Counter()
        coordinator.add_meter(self)

    def close(self) -> None:
        """Count no more. What was counted can still be read."""
        coordinator = self._coordinator()
        if coordinator is not None:
            coordinator.remove_meter(self)

    def waited(self, backend: str, model: str | None, seconds: float, *, cleared: bool) -> None:
        """See ``Meter``."""
        self._record(WAIT, (*self.labels(backend, model), "cleared" if cleared else "given_up"), seconds)

    def reported(self, backend: str, model: str | None, asked_wait_seconds: float, reason: Reason | str) -> None:
        """See ``Meter``."""
        name = self.labels(backend, model)
        self._reports[*name, reason] += 1
        # What is not finite counts as 0 everywhere.
        asked = asked_wait_seconds if math.isfinite(asked_wait_seconds) else 0.0
        self._record(ASKED_WAIT, name, min(max(0.0, asked), LONGEST_WAIT_SECONDS))

    def changed(self, notice: Notice, delay_seconds: float | None) -> None:
        """See ``Meter``."""
        self._changes[*self.labels(notice.backend, notice.model), notice.kind] += 1
        if delay_seconds is not None:
            self._record(NOTICE_DELAY, (), delay_seconds)

    def state(self) -> Snapshot | None:
        """Return the present numbers; None when the coordinator is gone."""
        coordinator = self._coordinator()
        return None if coordinator is None else Snapshot(coordinator, self)

    def reports(self) -> dict[Labels, int]:
        """Return how many were made, by backend, model and reason."""
        return dict(self._reports)

    def changes(self) -> dict[Labels, int]:
        """Return how many this process learned of, by backend, model and kind."""
        return dict(self._changes)

    def labels(self, backend: str, model: str | None) -> Labels:
        """Return the labels of a target, which get it from now on."""
        name = (backend, model or "")
        if name not in self._names:
            if len(self._names) >= self._max_targets:
                return (OTHER, OTHER)
            self._names.add(name)
        return name


class Snapshot:
    """A coordinator at one moment. What nobody asks for is not read: there may be very many limits."""

    def __init__(self, coordinator: Coordinator, measures: Measures) -> None:
        self._coordinator = coordinator
        self._measures = measures

    @cached_property
    def health(self) -> Health:
        """How it is doing."""
        return self._coordinator.health

    @cached_property
    def limits(self) -> list[tuple[Labels, float]]:
        """Seconds remaining of each active limit."""
        limits = self._coordinator.limits
        return [(self._measures.labels(limit.backend, limit.model), limit.seconds_remaining) for limit in limits]

    @cached_property
    def paces(self) -> list[tuple[Labels, PaceStatus]]:
        """Each pace that is remembered."""
        return [(self._measures.labels(pace.backend, pace.model), pace) for pace in self.health.paces]

    @cached_property
    def reports(self) -> dict[Labels, int]:
        """How many, by backend, model and reason."""
        return self._measures.reports()

    @cached_property
    def changes(self) -> dict[Labels, int]:
        """How many, by backend, model and kind."""
        return self._measures.changes()


def _check_max_targets(count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"max_targets must be a whole number of at least 1, not {count!r:.80}")
    return count
