"""Tells the fleet to slow down when an upstream says that little is left of a limit.

None of it fails: what cannot be told to Redis counts in this process, and the next answer says it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from rate_coordinator import clock
from rate_coordinator.allowances import Allowances, Spread
from rate_coordinator.errors import CoordinatorError
from rate_coordinator.observing import UpstreamAnswer
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from rate_coordinator.turns import Paces

logger = logging.getLogger(__name__)

CHANGE = 0.15
"""A pace that differs by less than this part is not told again ..."""
RENEWED_AT = 0.5
"""... unless so much of the time has passed for which it was told."""
MOST_OFTEN_SECONDS = 0.25
MOST_TOLD = 10_000


class Spreader:
    """What is left of limits, for the calls of one process.

    Args:
        store: Where the fleet is told.
        paces: What is known of each pace; a target is kept to what is left from the moment when it is told.
        is_away: Tells whether Redis is known to be away.
    """

    def __init__(self, store: Store, paces: Paces, is_away: Callable[[], bool]) -> None:
        self._store = store
        self._paces = paces
        self._is_away = is_away
        self._allowances = Allowances()
        self._tasks: asyncio.TaskGroup | None = None
        self._told: dict[Target, tuple[float, float, float]] = {}
        """Per target when a spread was told, until when it counts, and its rate."""

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
        spread = self._allowances.observe(target, answer, now, is_spread=self._paces.remembered(target, now))
        if spread is not None and self._is_news(target, spread, now) and self._tasks is not None:
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            self._told[target] = now, now + spread.seconds, spread.rate
            # From now on calls ask for turns, behind this.
            self._paces.limited(target, now + spread.seconds)
            await asyncio.wait([self._tasks.create_task(self._tell(target, spread))])

    def _is_news(self, target: Target, spread: Spread, now: float) -> bool:
        told_at, until, rate = self._told.get(target, (-1.0, 0.0, 0.0))
        if now >= until or not self._paces.remembered(target, now):
            return True
        if now - told_at < MOST_OFTEN_SECONDS:
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
        self._paces.tell(target, spread.rate, None)
