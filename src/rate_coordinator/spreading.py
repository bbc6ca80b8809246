"""Turns while an upstream has said how much is left: evenly spaced until its limit is whole again. Pure.

This stands beside the pace that is learned from refusals (``pacing``) and knows nothing of it: where both are kept, the
slower one counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rate_coordinator.pacing import Grant

SPREAD_GRACE_MS = 10_000
"""For so long after a limit is whole again, turns go at the next rate, unless it is told what is left then."""


@dataclass(frozen=True, slots=True)
class SpreadState:
    """All that is remembered; `_ms` are times of the server's clock, rates are calls/s."""

    spread_rate: float
    spread_ms: int
    """When the limit is whole again."""
    next_rate: float
    """From then on."""
    free_ms: float
    """When the next turn is due."""

    @property
    def until_ms(self) -> int:
        """When it is forgotten."""
        return self.spread_ms + SPREAD_GRACE_MS


def spread(state: SpreadState | None, now_ms: int, spread_rate: float, for_ms: int, next_rate: float) -> SpreadState:
    """Take in what an upstream says.

    Args:
        state: Before, if it is not over.
        now_ms: The time.
        spread_rate: What is left, spread over the time until the limit is whole again; calls/s.
        for_ms: That time.
        next_rate: The same from then on.
    """
    free_ms = min(now_ms + 1000 / spread_rate, now_ms + for_ms)
    if state is not None:
        free_ms = min(max(now_ms, state.free_ms), free_ms)
    return SpreadState(spread_rate, now_ms + for_ms, next_rate, free_ms)


def spread_rate(state: SpreadState, now_ms: int) -> float:
    """The pace now, in calls/s."""
    return state.spread_rate if now_ms < state.spread_ms else state.next_rate


def spread_turns(state: SpreadState, now_ms: int, wanted: int, horizon_ms: int) -> Grant:
    """Tell which turns are due within `horizon_ms` (ms) from now, none beyond the moment when the limit is whole."""
    spacing_ms, first_ms = 1000 / spread_rate(state, now_ms), max(now_ms, state.free_ms)
    last_ms: float = now_ms + horizon_ms
    if now_ms < state.spread_ms:
        last_ms = min(last_ms, state.spread_ms - 1)
        first_ms = min(first_ms, state.spread_ms)
    if wanted <= 0 or first_ms > last_ms:
        return Grant(first_ms - now_ms, spacing_ms, 0)
    return Grant(first_ms - now_ms, spacing_ms, min(wanted, math.floor((last_ms - first_ms) / spacing_ms) + 1))


def spread_taken(state: SpreadState, now_ms: int, count: int) -> SpreadState:
    """`count` of these turns were taken; if negative, given back."""
    free_ms = max(now_ms, max(now_ms, state.free_ms) + count * 1000 / spread_rate(state, now_ms))
    if now_ms < state.spread_ms:
        free_ms = min(free_ms, state.spread_ms)
    return replace(state, free_ms=free_ms)
