"""Takes probes for the calls of this process, says for each that it lives, and tells what became of it.

None of it fails: where Redis is away nobody probes, and what cannot be told is found out by the lease that ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress

from rate_coordinator import clock, timers
from rate_coordinator.errors import CoordinatorError
from rate_coordinator.mirror import Limit, Mirror
from rate_coordinator.models import EntryId
from rate_coordinator.pacestate import PROBE_LEASE_MS
from rate_coordinator.probes import Probe, ProbeAnswer, ProbeNews, set_at_ms, verifiable_at
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from rate_coordinator.turns import Paces

logger = logging.getLogger(__name__)

HOLD_SECONDS = PROBE_LEASE_MS / 4000
"""How often a probe's owner says that it still lives."""
LONGEST_HELD_SECONDS = 3600.0
"""A call that takes longer is believed to be forgotten."""
RETRY_SECONDS = 1.0
"""After a probe that ended in an unrelated error the next one may go."""
MOST_ASKED = 10_000


class Prober:
    """Probes for the calls of one process.

    Args:
        store: Where the leases are.
        mirror: What is limited.
        paces: Learns where a pace begins.
        verify_every: A limit that lasts longer, in seconds, is tried so often; 0 tries none.
        forget_after: Seconds without a refusal after which a pace is forgotten.
        is_away: Tells whether Redis is known to be away.
        changed: Called with the targets whose limit changed.
    """

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        paces: Paces,
        verify_every: float,
        forget_after: float,
        is_away: Callable[[], bool],
        changed: Callable[[set[Target]], None],
    ) -> None:
        self.verify_every = verify_every
        self._store = store
        self._mirror = mirror
        self._paces = paces
        self._forget_after = forget_after
        self._is_away = is_away
        self._changed = changed
        self._tasks: asyncio.TaskGroup | None = None
        self._not_before: dict[Target, tuple[int, float]] = {}
        self._opening: dict[Target, tuple[int, asyncio.Task[None]]] = {}
        self._beginning: dict[Target, asyncio.Task[None]] = {}
        self._holding: dict[Probe, asyncio.Task[None]] = {}
        self._sleeping: dict[Target, set[asyncio.Future[None]]] = {}

    async def run(self) -> None:
        """Own the tasks that speak for probes, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None

    def tries_at(self, target: Target) -> float:
        """Return when this process may ask to try a target's limit, on its clock; infinite where it may not."""
        limit = self._mirror.limit(target)
        if limit is None or not self.verify_every or self._is_away():
            return float("inf")
        resume_at_ms, not_before = self._not_before.get(target, (0, 0.0))
        at = verifiable_at(limit, self.verify_every, self._server_now_ms())
        return max(at, not_before) if resume_at_ms == limit.resume_at_ms else at

    async def verify(self, targets: list[Target]) -> list[Probe]:
        """Ask to try the limits of some targets with one call; return its probes, none if it may not go now."""
        probes: list[Probe] = []
        for target in targets:
            limit = self._mirror.limit(target)
            probe = await self._verify(target, limit) if limit is not None else None
            if probe is None:
                for other in probes:
                    self.give_back(other, retry_seconds=0.0)
                return []
            probes.append(probe)
            self.hold(probe)
        return probes

    async def opens(self, target: Target, limit: Limit) -> None:
        """Calls have waited for a limit that has lifted now: one of them goes first, for the whole fleet."""
        resume_at_ms, task = self._opening.get(target, (0, None))
        if resume_at_ms < limit.resume_at_ms and self._tasks is not None and not self._is_away():
            task = self._tasks.create_task(self._opens(target, limit))
            self._opening[target] = limit.resume_at_ms, task
            if len(self._opening) > MOST_ASKED:
                del self._opening[next(iter(self._opening))]
        if task is not None and not task.done():
            await asyncio.wait([task])

    async def begins(self, target: Target, initial_rate: float) -> None:
        """A call is made of which a user told the pace, in calls per second, and no pace is remembered."""
        task = self._beginning.get(target)
        if task is None:
            if self._tasks is None:
                return
            task = self._beginning[target] = self._tasks.create_task(self._begins(target, initial_rate))
            task.add_done_callback(lambda _: self._beginning.pop(target, None))
        await asyncio.wait([task])

    async def pause(self, targets: list[Target], seconds: float, waiting: asyncio.Task[object]) -> None:
        """Wait for a task, for at most so many seconds, and until something is heard of a probe of these targets."""
        news = asyncio.get_running_loop().create_future()
        for target in targets:
            self._sleeping.setdefault(target, set()).add(news)
        try:
            timeout = seconds if math.isfinite(seconds) else None
            with suppress(TimeoutError):
                async with timers.timeout(timeout):
                    await asyncio.wait([waiting, news], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for target in targets:
                self._wakes(target, news)

    def heard(self, target: Target) -> None:
        """A probe has come to its end, or may be asked for sooner than was told: who waits looks again."""
        self._not_before.pop(target, None)
        self._wake(target)

    def hold(self, probe: Probe) -> None:
        """Say again and again that the probe's call is under way, until it is told what became of it."""
        if self._tasks is not None:
            self._holding[probe] = self._tasks.create_task(self._hold(probe))

    def let_go(self, probe: Probe) -> None:
        """Say no more that it is under way: another call has it, or its end is told otherwise."""
        holding = self._holding.pop(probe, None)
        if holding is not None:
            holding.cancel()

    async def served(self, probe: Probe) -> None:
        """Its call was served: whoever waits may go."""
        task = self._settle(self._served(probe), probe)
        if task is not None:
            await asyncio.wait([task])

    def refused(self, probe: Probe) -> None:
        """Its call was refused, which has been reported."""
        self._settle(self._tell(probe, "refused"), probe)

    def give_back(self, probe: Probe, *, retry_seconds: float) -> None:
        """Its call was not made, or told nothing; the next one may go after so many seconds."""
        self._settle(self._tell(probe, "back", retry_seconds), probe)

    def _settle(self, told: Coroutine[None, None, object], probe: Probe) -> asyncio.Task[object] | None:
        self.let_go(probe)
        if self._tasks is None:
            told.close()
            return None
        return self._tasks.create_task(told)

    async def _verify(self, target: Target, limit: Limit) -> Probe | None:
        # The others of this process wait for this answer.
        self._put_off(target, limit, RETRY_SECONDS)
        answer = await self._ask(Probe(target, 0, 0, limit.resume_at_ms), "verifies", since_ms=set_at_ms(limit))
        if answer is None:
            return None
        self._put_off(target, limit, HOLD_SECONDS if answer.given else answer.wait_seconds)
        self._wake(target)
        if not answer.given:
            return None
        return Probe(target, answer.epoch, answer.probe_ms, limit.resume_at_ms)

    def _put_off(self, target: Target, limit: Limit, seconds: float) -> None:
        if len(self._not_before) >= MOST_ASKED:
            self._not_before.clear()
        self._not_before[target] = limit.resume_at_ms, clock.now() + seconds

    def _wake(self, target: Target) -> None:
        for news in self._sleeping.get(target, ()):
            if not news.done():
                news.set_result(None)

    def _wakes(self, target: Target, news: asyncio.Future[None]) -> None:
        sleeping = self._sleeping[target]
        sleeping.discard(news)
        if not sleeping:
            del self._sleeping[target]

    async def _opens(self, target: Target, limit: Limit) -> None:
        answer = await self._ask(Probe(target, 0, 0, limit.resume_at_ms), "opens")
        if answer is not None:
            self._paces.limited(target, clock.now() + self._forget_after)

    async def _begins(self, target: Target, initial_rate: float) -> None:
        if not self._is_away():
            await self._ask(Probe(target, 0, 0), "begins", initial_rate=initial_rate)
        # Also where nobody could be told: alone, this process keeps to it.
        self._paces.limited(target, clock.now() + self._forget_after)
        self._paces.tell(target, initial_rate, None)

    async def _hold(self, probe: Probe) -> None:
        until = clock.now() + LONGEST_HELD_SECONDS
        while clock.now() < until:
            await timers.sleep(HOLD_SECONDS)
            answer = await self._ask(probe, "held")
            if answer is not None and not answer.given:
                return

    async def _served(self, probe: Probe) -> None:
        answer = await self._tell(probe, "served")
        if answer is not None and answer.lifted_by:
            self._paces.limited(probe.target, clock.now() + self._forget_after)
            event_id = EntryId.parse(answer.lifted_by)
            self._changed(self._mirror.learn_clear(answer.order_epoch, probe.target, event_id))

    async def _tell(self, probe: Probe, what: ProbeNews, retry_seconds: float = 0.0) -> ProbeAnswer | None:
        return await self._ask(probe, what, retry_seconds=retry_seconds)

    async def _ask(
        self,
        probe: Probe,
        what: ProbeNews,
        *,
        since_ms: int = 0,
        retry_seconds: float = 0.0,
        initial_rate: float = 0.0,
    ) -> ProbeAnswer | None:
        try:
            return await self._store.probe(what, probe, since_ms, self.verify_every, retry_seconds, initial_rate)
        except Exception as error:
            # Whatever it is: a lease ends by itself, and who asks for one goes on waiting.
            level = logging.DEBUG if isinstance(error, CoordinatorError) else logging.ERROR
            logger.log(level, "a probe could not be told of", extra={"target": str(probe.target)}, exc_info=error)
            return None

    def _server_now_ms(self) -> int:
        return self._mirror.clock.estimate_ms(clock.now()) or 0
