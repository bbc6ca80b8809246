"""What there is to see at one moment, and what of it is different from an earlier one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rate_coordinator import ActiveLimit, Health, Notice, RateLimitEvent
from rate_coordinator.cli import fields
from rate_coordinator.cli.fields import Fields

Key = tuple[str, str | None]
"""A backend, and a model of it or None."""

SAME_SECONDS = 0.25
"""Two countdowns that are no further apart are the same."""

_COUNTDOWNS = frozenset({"seconds_remaining", "forgets_seconds", "degraded_seconds"})


@dataclass(frozen=True)
class Asked:
    """What the report asked for that set a limit."""

    resume_at_ms: int
    wait_seconds: float
    clamped: str | None

    @classmethod
    def of_notice(cls, notice: Notice) -> Asked:
        """Return what was asked for, as the notice of the limit tells it."""
        return cls(notice.resume_at_ms, notice.asked_wait_seconds, notice.clamped)

    @classmethod
    def of_event(cls, event: RateLimitEvent) -> Asked | None:
        """Return what was asked for; None of an event that set no limit."""
        if not event.extended or event.resume_at is None:
            return None
        return cls(round(event.resume_at.timestamp() * 1000), event.asked_wait_seconds, event.clamped)


@dataclass(frozen=True)
class Look:
    """What there is to see at one moment."""

    at: float
    """The moment, on this process's monotonic clock, in seconds."""
    lifts_at: float
    """When the next limit lifts, on the same clock; infinity without one."""
    limits: Mapping[Key, Fields]
    """The longest first."""
    paces: Mapping[Key, Fields]
    health: Fields


def of_limit(limit: ActiveLimit, asked: Asked | None) -> Fields:
    """Return an active limit as ``--json`` prints it, and what was asked for where that is known."""
    known = asked is not None and asked.resume_at_ms == round(limit.resume_at.timestamp() * 1000)
    return {
        **fields.of_limit(limit),
        "delivered": limit.delivered,
        "asked_wait_seconds": fields.number(asked.wait_seconds) if asked and known else None,
        "clamped": asked.clamped if asked and known else None,
    }


def of_health(health: Health) -> Fields:
    """Return whether Redis can be heard; if not, since when and why."""
    return {
        "state": health.state,
        "degraded_seconds": health.degraded_seconds,
        "last_error": health.last_error if health.state == "degraded" else None,
    }


def difference(before: Look, after: Look) -> Fields | None:
    """Return what is new or different, and what is gone; None when a countdown is all that went on."""
    elapsed = after.at - before.at
    found: Fields = {}
    for name, old, new in (("limits", before.limits, after.limits), ("paces", before.paces, after.paces)):
        changed = [told for key, told in new.items() if key not in old or _differs(old[key], told, elapsed)]
        gone = [{"backend": backend, "model": model} for backend, model in old if (backend, model) not in new]
        if changed:
            found[name] = changed
        if gone:
            found[f"{name}_gone"] = gone
    if _without_countdowns(before.health) != _without_countdowns(after.health):
        found["health"] = after.health
    return found or None


def _differs(old: Fields, new: Fields, elapsed: float) -> bool:
    if _without_countdowns(old) != _without_countdowns(new):
        return True
    return any(_jumped(old.get(name), new.get(name), elapsed) for name in _COUNTDOWNS)


def _jumped(old: object, new: object, elapsed: float) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - elapsed - new) > SAME_SECONDS
    return False


def _without_countdowns(told: Fields) -> Fields:
    return {name: value for name, value in told.items() if name not in _COUNTDOWNS}
