"""What upstreams say is left of their limits, and when a fleet has to slow down for it. Pure; time is passed in.

As long as plenty is left, or it will last until the limit is whole again, nobody is slowed down and nothing is told.
Else what remains is spread evenly over the time until then, for the whole fleet. That suits both kinds of limits: of a
window that ends at a fixed moment all is used, and of a bucket that fills up steadily half is left at the rate at
which it fills.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from rate_coordinator.observing import UpstreamAnswer
from rate_coordinator.targets import Target
from rate_coordinator.turns import MUCH_FASTER

LONGEST_RESET_SECONDS = 3600.0
"""What lasts for longer is an allowance that its user decides how to spend."""
SHORTEST_RESET_SECONDS = 0.05
FEW = 32
"""So few calls can be gone before anybody has seen how fast they go."""
MEASURED_SECONDS = 0.1
"""How fast calls go is known after so long at the earliest ..."""
RECENT_SECONDS = 5.0
"""... and judged by the last seconds, from so many to twice as many."""
UNSEEN_SECONDS = 10.0
"""Of a limit that was seen once, with nothing left, it is believed for so long that nothing comes back; then a call
tries. Where it comes back little by little, waiting for all of it would be too long."""
SAME_RESET_SECONDS = 2.0
"""A moment that was rounded to seconds, and told by answers that were under way for different times, varies by this."""
UNCOUNTED_SECONDS = 0.3
"""The calls of so long a time are not counted in what is left yet: they are under way, or their turns were given."""
NOT_CALLS = re.compile("token|byte|cost|point|complexity|neuron|audio|unit", re.IGNORECASE)
"""Scopes of limits that do not count calls."""
MOST_LIMITS = 10_000


class Spread(NamedTuple):
    """So fast may a fleet go until a limit is whole again."""

    rate: float
    """Calls per second."""
    seconds: float
    """Until the limit is whole again, or a call may try."""
    next_rate: float
    """Calls per second from then on, until what is left then is told."""


@dataclass(slots=True)
class _Limit:
    """One limit of one target, as its answers tell."""

    remaining: float
    resets_at: float
    base_at: float
    """The beginning of the time over which it is measured how fast calls go; ``base`` was left then."""
    base: float
    middle_at: float
    """The next beginning of it."""
    middle: float
    peak: float
    """The most that was left since the last reset."""
    peak_rate: float
    """What a spread of the peak came to, in calls per second."""
    is_window: bool = False
    """Whether its reset stays where it is while calls use it up."""


class Allowances:
    """What one process was told is left of each limit."""

    def __init__(self) -> None:
        self._limits: dict[tuple[Target, str | None], _Limit] = {}

    def observe(
        self, target: Target, answer: UpstreamAnswer, now: float, *, is_spread: bool, spread_rate: float | None = None
    ) -> Spread | None:
        """Take in an answer; return how fast the fleet may go if it has to slow down, or keeps to too slow a pace.

        Args:
            target: Whose limit it is.
            answer: What it said.
            now: Seconds of a monotonic clock.
            is_spread: The fleet keeps to a pace already.
            spread_rate: That pace in calls per second, where it was told for the limit that the answer speaks of.
        """
        remaining, reset, scope = answer.remaining, answer.reset_seconds, answer.scope
        if remaining is None or reset is None or not SHORTEST_RESET_SECONDS <= reset <= LONGEST_RESET_SECONDS:
            return None
        if scope is not None and NOT_CALLS.search(scope):
            return None
        limit = self._taken_in(target, scope, remaining, now, now + reset)
        is_too_slow = spread_rate is not None and remaining / reset > MUCH_FASTER * spread_rate
        if not is_too_slow and not _has_to_slow_down(limit, reset, now, is_spread):
            return None
        if remaining >= 1:
            return Spread(remaining / (reset + UNCOUNTED_SECONDS), reset, limit.peak_rate)
        if limit.is_window or reset <= UNSEEN_SECONDS:
            # No turn before it is whole again.
            return Spread(0.5 / reset, reset, limit.peak_rate)
        if limit.base_at == now:
            return Spread(0.5 / UNSEEN_SECONDS, UNSEEN_SECONDS, limit.peak_rate)
        return None

    def _taken_in(self, target: Target, scope: str | None, remaining: float, now: float, resets_at: float) -> _Limit:
        known = self._limits.get((target, scope))
        is_same = known is not None and abs(resets_at - known.resets_at) <= SAME_RESET_SECONDS
        if known is None or now >= known.resets_at or remaining > known.peak or (known.is_window and not is_same):
            if len(self._limits) >= MOST_LIMITS:
                self._limits.clear()
            # After a reset of which others have used much already, what was seen before is the better estimate.
            peak_rate = max(max(1.0, remaining) / (resets_at - now), known.peak_rate if known else 0.0)
            known = _Limit(remaining, resets_at, now, remaining, now, remaining, remaining, peak_rate)
            self._limits[target, scope] = known
            return known
        known.is_window = is_same and (known.is_window or remaining < known.peak)
        if now - known.middle_at >= RECENT_SECONDS:
            known.base_at, known.base = known.middle_at, known.middle
            known.middle_at, known.middle = now, remaining
        known.remaining = remaining
        # Of a window the first that was told; of a bucket the last.
        known.resets_at = known.resets_at if known.is_window else resets_at
        return known


def _has_to_slow_down(limit: _Limit, reset: float, now: float, is_spread: bool) -> bool:
    measured = now - limit.base_at >= MEASURED_SECONDS
    wanted = (limit.base - limit.remaining) / (now - limit.base_at) * reset if measured else 0.0
    if is_spread:
        # It goes as fast as it may: only what is much slower shows that nobody waits any more.
        return limit.remaining <= FEW or wanted > limit.remaining / 2
    if limit.remaining <= FEW:
        return not (measured and now - limit.base_at >= RECENT_SECONDS and wanted < limit.remaining / 2)
    return limit.remaining <= limit.peak / 2 and wanted > limit.remaining
