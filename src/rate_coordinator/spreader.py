"""Tells the fleet to slow down when an upstream says that little is left of a limit.

None of it fails: what cannot be told to Redis counts in this process, and the next answer says it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from rate_coordinator import clock
from rate_coordinator.allowances import Allowances, Spread
from rate_coordinator.errors import CoordinatorError
from rate_coordinator.observing import UpstreamAnswer
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from rate_coordinator.turns import MUCH_FASTER, Paces

logger = logging.getLogger(__name__)

CHANGE = 0.15
"""A pace that differs by less than this part is not told again ..."""
RENEWED_AT = 0.5
"""... unless so much of the time has passed for which it was told."""
MOST_OFTEN_SECONDS = 0.25
MOST_TOLD = 10_000


class _Told(NamedTuple):
    """A spread that this process told."""

    at: float
    until: float
    rate: float
    scope: str | None


class Spreader:
    """What is left of limits, for the calls of one process.

    Args:
        store: Where the fleet is told.
        paces: What is known of each pace; a target is kept to what is left from the moment when it is told.
        is_away: Tells whether Redis is known to be away.
        changed: Told of targets whose calls may go much faster than before.
    """

    def __init__(
        self,
        store: Store,
        paces: Paces,
        is_away: Callable[[], bool],
        changed: Callable[[set[Target]], None],
    ) -> None:
        self._store = store
        self._paces = paces
        self._is_away = is_away
        self._changed = changed
        self._allowances = Allowances()
        self._tasks: asyncio.TaskGroup | None = None
        self._told: dict[Target, _Told] = {}

    async def run(self) -> None:
        """Own the tasks that tell Redis, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None

    async def observe(self, target: Target, answer: UpstreamAnswer) -> None:
        """Take in what an upstream says is left; return when the fleet knows, where it has to slow down."""
        now = clock.now()
        is_spread = self._paces.remembered(target, now)
        spread_rate = self._spread_rate(target, answer.scope) if is_spread else None
        spread = self._allowances.observe(target, answer, now, is_spread=is_spread, spread_rate=spread_rate)
        if spread is not None and self._is_news(target, spread, now) and self._tasks is not None:
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            self._told[target] = _Told(now, now + spread.seconds, spread.rate, answer.scope)
            # From now on calls ask for turns, behind this.
            self._paces.limited(target, now + spread.seconds)
            await asyncio.wait([self._tasks.create_task(self._tell(target, spread))])

    def _spread_rate(self, target: Target, scope: str | None) -> float | None:
        """Return the spread that is kept to; None where that is not known, or was told for a limit of another scope."""
        known, told = self._paces.get(target), self._told.get(target)
        # Of what others told the scope is not known: then it is the only one of its target, or left alone.
        is_same = scope == (told.scope if told is not None else None)
        # With an epoch it is what was learned from refusals, which what is left says nothing about.
        return known.rate if known is not None and known.rate and not known.epoch and is_same else None

    def _is_news(self, target: Target, spread: Spread, now: float) -> bool:
        told_at, until, rate, _ = self._told.get(target, (-1.0, 0.0, 0.0, None))
        if now >= until or not self._paces.remembered(target, now):
            return True
        if now - told_at < MOST_OFTEN_SECONDS and spread.rate < MUCH_FASTER * rate:
            return False
        # What the others told counts for all.
        known = self._paces.get(target)
        rates = [rate] if known is None else [rate, known.rate]
        is_other = all(abs(spread.rate - rate) > CHANGE * rate for rate in rates)
        return is_other or now - told_at > RENEWED_AT * (until - told_at)

    async def _tell(self, target: Target, spread: Spread) -> None:
        until = clock.now() + spread.seconds
        if not self._is_away():
            try:
                until = clock.now() + await self._store.spread(target, spread)
            except Exception as error:
                # Whatever it is: the call that was answered must not fail for it.
                level = logging.DEBUG if isinstance(error, CoordinatorError) else logging.ERROR
                logger.log(level, "what is left of a limit was not told", extra={"target": str(target)}, exc_info=error)
        self._paces.limited(target, until)
        if self._paces.tell(target, spread.rate, None):
            self._changed({target})
