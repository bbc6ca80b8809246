"""Which metrics there are of a coordinator, and how each is read: names, units and meanings, for every exporter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, Protocol, TypeAlias

from rate_coordinator import Health, PaceStatus

Labels: TypeAlias = tuple[str, ...]
"""The values of a family's labels, in their order; or their names."""

Kind: TypeAlias = Literal["counter", "gauge"]

WAIT_BOUNDS = (0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 7 * 24 * 3600.0)
"""Upper bounds of buckets for waits, in seconds: upstreams ask for anything between a moment and a week."""
DELAY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of buckets for the way of a notice, in seconds."""


class State(Protocol):
    """A coordinator at one moment, each target by its labels."""

    @property
    def health(self) -> Health:
        """How it is doing."""
        ...

    @property
    def limits(self) -> Sequence[tuple[Labels, float]]:
        """Seconds remaining of each active limit."""
        ...

    @property
    def paces(self) -> Sequence[tuple[Labels, PaceStatus]]:
        """Each pace that is remembered."""
        ...

    @property
    def reports(self) -> Mapping[Labels, int]:
        """How many, by backend, model and reason."""
        ...

    @property
    def changes(self) -> Mapping[Labels, int]:
        """How many, by backend, model and kind."""
        ...


@dataclass(frozen=True)
class Family:
    """One metric, whoever exports it."""

    name: str
    """As OpenTelemetry names metrics: with a dot, without the unit."""
    unit: str
    """In UCUM's form, as OpenTelemetry has it; empty where there is none. https://ucum.org/ucum"""
    about: str
    labels: Labels
    """Their names."""


@dataclass(frozen=True)
class Reading(Family):
    """A metric whose values are read when they are asked for."""

    kind: Kind
    read: Callable[[State], Mapping[Labels, float]]


@dataclass(frozen=True)
class Distribution(Family):
    """A histogram, to which each value is told when it comes."""

    bounds: tuple[float, ...]
    """Upper bounds of its buckets, inclusive."""


def _reading(
    name: str, unit: str, about: str, kind: Kind, read: Callable[[State], Mapping[Labels, float]], *labels: str
) -> Reading:
    return Reading(f"rate_coordinator.{name}", unit, about, labels, kind, read)


def _of_health(
    name: str, unit: str, about: str, kind: Kind, read: Callable[[Health], float | None] | None = None
) -> Reading:
    """Return a reading of the field of that name, unless told otherwise; None is not told."""
    read_value = read or attrgetter(name)

    def values(state: State) -> dict[Labels, float]:
        value = read_value(state.health)
        return {} if value is None else {(): value}

    return _reading(name, unit, about, kind, values)


def _of_paces(name: str, about: str, read: Callable[[PaceStatus], float]) -> Reading:
    """Return a reading of calls per second by target; 0.0 stands for what is not known, and is not told."""

    def values(state: State) -> dict[Labels, float]:
        return _sums((labels, rate) for labels, pace in state.paces if (rate := read(pace)))

    return _reading(name, "{call}/s", about, "gauge", values, "backend", "model")


def _sums(values: Iterable[tuple[Labels, float]]) -> dict[Labels, float]:
    sums: dict[Labels, float] = {}
    for labels, value in values:
        sums[labels] = sums.get(labels, 0.0) + value
    return sums


def _longest(limits: Iterable[tuple[Labels, float]]) -> dict[Labels, float]:
    return dict(sorted(limits, key=lambda limit: limit[1]))


READINGS = (
    _reading(
        "reports",
        "{report}",
        "Refusals that this process reported.",
        "counter",
        lambda state: state.reports,
        *("backend", "model", "reason"),
    ),
    _reading(
        "changes",
        "{change}",
        "Limits set or extended, clears and changes of a pace that this process learned of, whoever made them.",
        "counter",
        lambda state: state.changes,
        *("backend", "model", "kind"),
    ),
    _reading("limits_active", "{limit}", "Limits that are active.", "gauge", lambda state: {(): len(state.limits)}),
    _reading(
        "limit_remaining",
        "s",
        "Until a limit lifts; of several that are told of together the longest.",
        "gauge",
        lambda state: _longest(state.limits),
        *("backend", "model"),
    ),
    _of_paces("pace_rate", "Calls that the whole fleet may make now.", lambda pace: pace.rate),
    _of_paces("pace_ceiling", "The pace at which the upstream refused last.", lambda pace: pace.ceiling),
    _of_paces("fleet_rate", "Calls that the whole fleet was let through lately.", lambda pace: pace.fleet_per_second),
    _reading(
        "calls_waiting",
        "{call}",
        "Calls that wait for their turn in this process.",
        "gauge",
        lambda state: _sums((labels, pace.waiting) for labels, pace in state.paces),
        *("backend", "model"),
    ),
    _of_health("calls_avoided", "{call}", "Calls that were held back because a limit was known.", "counter"),
    _of_health(
        "connected", "", "1 while Redis is heard and written, else 0.", "gauge", lambda h: h.state == "connected"
    ),
    _of_health(
        "degraded", "s", "How long this process went on without Redis.", "counter", lambda h: h.degraded_total_seconds
    ),
    _of_health("round_trip", "s", "The latest round trip to Redis.", "gauge", lambda h: h.round_trip_seconds),
    _of_health("reports_delivered", "{report}", "Reports that Redis has recorded.", "counter"),
    _of_health("reports_buffered", "{report}", "Reports that wait for Redis to come back.", "gauge"),
    _of_health("reports_dropped", "{report}", "Reports that were given up.", "counter"),
    _of_health("notices_received", "{notice}", "Notices that were heard.", "counter"),
    _of_health("notices_missed", "{gap}", "Gaps in the chain of notices, each healed by a snapshot.", "counter"),
    _of_health("notices_dropped", "{notice}", "Notices that slow listeners of this process lost.", "counter"),
    _of_health("notices_unreadable", "{message}", "Messages on the channel that were no notices.", "counter"),
    _of_health("notices_newer", "{message}", "Messages of a newer version, not understood.", "counter"),
    _of_health("callback_errors", "{error}", "Errors that callbacks for notices raised.", "counter"),
    _of_health("resyncs", "{snapshot}", "Snapshots that were read.", "counter"),
    _of_health("reconnects", "{connection}", "Connections of the subscription after the first.", "counter"),
    _of_health("script_calls", "{call}", "Calls of scripts in Redis.", "counter"),
    _of_health("garbage_removed", "{key}", "Keys of a wrong type that were removed.", "counter"),
)

WAIT = Distribution(
    "rate_coordinator.wait",
    "s",
    "How long calls waited in admit and wait_until_clear, those that nothing held included.",
    ("backend", "model", "outcome"),
    WAIT_BOUNDS,
)
ASKED_WAIT = Distribution(
    "rate_coordinator.asked_wait",
    "s",
    "The waits that this process reported, as they were asked for.",
    ("backend", "model"),
    WAIT_BOUNDS,
)
NOTICE_DELAY = Distribution(
    "rate_coordinator.notice_delay",
    "s",
    "How long notices were on their way from Redis: so far the mirror is behind.",
    (),
    DELAY_BOUNDS,
)
DISTRIBUTIONS = (WAIT, ASKED_WAIT, NOTICE_DELAY)
