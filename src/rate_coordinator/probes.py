"""A probe as data: what is asked of Redis about one, and what it answers. Pure; see ``probing`` for the algorithm."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rate_coordinator.mirror import Limit
from rate_coordinator.models import FIRST_ID
from rate_coordinator.targets import Target

ProbeNews = Literal["begins", "opens", "verifies", "held", "served", "refused", "back"]
"""``"begins"``: a pace is told by a user; ``"opens"``: a limit has lifted that calls waited for; ``"verifies"``: a call
asks to try one before its time; the others: what became of a probe."""


class Probe(NamedTuple):
    """A call that finds out for the whole fleet whether a target is open; a lease."""

    target: Target
    epoch: int
    """Of the pace, when it was given out."""
    probe_ms: int
    """With the epoch, which of the target's probes it is."""
    resume_at_ms: int = 0
    """Of the limit that is tried before its time; 0 for a probe that goes after it."""


class ProbeAnswer(NamedTuple):
    """What Redis answers."""

    given: bool
    """Whether the probe was given out, or is still the one that counts."""
    wait_seconds: float
    """Where none was given out: until it is worth asking again."""
    epoch: int
    probe_ms: int
    order_epoch: str
    """That of the event's ID."""
    lifted_by: str
    """ID of the event that lifted the limit, because the probe was served; empty where none was lifted."""


def verifiable_at(limit: Limit, verify_every: float, server_now_ms: int) -> float:
    """Return when a limit may be tried, on this process's clock; infinite where it may not.

    That is one that lasts longer than ``verify_every``, or was cut to the longest wait that counts; while it is held by
    hand it is not tried.

    Args:
        limit: As it is known.
        verify_every: Seconds; 0 tries none.
        server_now_ms: The server's clock now: what remains counts where it is not known how long the limit lasts.
    """
    long_ms = verify_every * 1000
    lasts_ms = limit.wait_ms if limit.wait_ms is not None else limit.resume_at_ms - server_now_ms
    clamped = limit.details is not None and limit.details.clamped == "above_cap"
    if not verify_every or not (clamped or lasts_ms > long_ms):
        return float("inf")
    return max(limit.held_until, limit.deadline - (limit.resume_at_ms - set_at_ms(limit) - long_ms) / 1000)


def set_at_ms(limit: Limit) -> int:
    """Return when a limit was set, on the server's clock; as far as is known."""
    if limit.id != FIRST_ID:
        return limit.id.ms
    return limit.resume_at_ms - (limit.wait_ms or 0)
