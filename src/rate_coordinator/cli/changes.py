"""What changed between two looks at the active limits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rate_coordinator import ActiveLimit
from rate_coordinator.cli import fields, texts

Kind = Literal["limited", "extended", "cleared", "lifted"]


class Change(NamedTuple):
    """One change of one limit."""

    kind: Kind
    """``cleared`` by somebody before its time, or ``lifted`` by the clock."""
    limit: ActiveLimit
    """As it is now, or as it was last seen."""


def changes(before: Sequence[ActiveLimit], after: Sequence[ActiveLimit], elapsed_seconds: float) -> list[Change]:
    """Return what changed.

    Args:
        before: The limits at an earlier moment.
        after: The limits now.
        elapsed_seconds: The time between the two.
    """
    known = {limit.target: limit for limit in before}
    found = [
        Change("extended" if earlier and limit.resume_at > earlier.resume_at else "limited", limit)
        for limit in after
        if (earlier := known.get(limit.target)) is None or earlier.resume_at != limit.resume_at
    ]
    present = {limit.target for limit in after}
    found += [
        Change("lifted" if limit.seconds_remaining <= elapsed_seconds else "cleared", limit)
        for limit in before
        if limit.target not in present
    ]
    return found


def line(change: Change) -> str:
    """Return a change as a line of text."""
    limit = change.limit
    text = f"{texts.printable(texts.target(limit.backend, limit.model))} {change.kind}"
    if change.kind in ("cleared", "lifted"):
        return text
    until = f"{texts.seconds(limit.seconds_remaining)} left, until {texts.clock_time(limit.resume_at)}"
    return f"{text}: {until}, {texts.why(limit)}, by {texts.who(limit)}"


def as_fields(change: Change) -> fields.Fields:
    """Return a change as ``--json`` prints it."""
    told = fields.of_limit(change.limit)
    if change.kind in ("cleared", "lifted"):
        told["seconds_remaining"] = 0.0
    return {"change": change.kind, **told}
