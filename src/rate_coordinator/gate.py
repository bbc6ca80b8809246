"""The way in: a call waits here for the back-off and for its turn, or finds out for all whether a target is open."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from rate_coordinator import clock
from rate_coordinator.dispenser import Dispenser
from rate_coordinator.errors import LimitWaitTimeout
from rate_coordinator.hints import Hints, Slots
from rate_coordinator.metering import Meters
from rate_coordinator.mirror import Limit, Mirror
from rate_coordinator.models import Reason, ReportResult
from rate_coordinator.prober import RETRY_SECONDS, Prober
from rate_coordinator.probes import Probe
from rate_coordinator.replies import TEACHES_NOTHING
from rate_coordinator.spreader import Spreader
from rate_coordinator.targets import Target
from rate_coordinator.turns import Paces, Turn
from rate_coordinator.waiters import Waiters


class Entry(NamedTuple):
    """Leave to make one call."""

    epoch: int
    """What it is admitted under; 0 while nothing is known."""
    probes: tuple[Probe, ...] = ()
    """Whether it finds out for the fleet if a target is open: the model, the backend or both."""
    slots: tuple[Slots, ...] = ()
    """What it takes up while it is under way."""


FREE = Entry(0)


class Report(Protocol):
    """Reports a limit of a target; ``sent_at`` and ``epoch``: when the refused call was admitted, and under what."""

    async def __call__(
        self,
        target: Target,
        wait_seconds: float,
        job_id: str | None,
        sheet_num: int | None,
        reason: Reason,
        sent_at: float,
        epoch: int,
    ) -> ReportResult:
        """Send it and tell what became of it."""
        ...


class Gate:
    """Admits calls.

    Args:
        mirror: Says what is limited.
        paces: Says where a pace has to be kept.
        waiters: Hold calls until their target is clear.
        dispenser: Has the turns.
        prober: Has the probes.
        spreader: Is told what is left of limits.
        ready: Makes sure that the coordinator is started.
        report: Sends a report.
        meters: Told how long each call waited.
    """

    def __init__(
        self,
        mirror: Mirror,
        paces: Paces,
        waiters: Waiters,
        dispenser: Dispenser,
        prober: Prober,
        spreader: Spreader,
        ready: Callable[[], Awaitable[None]],
        report: Report,
        meters: Meters,
    ) -> None:
        self.avoided = 0
        """Calls that were not made, or not yet, because a limit was known."""
        self.hints = Hints()
        self.ready = ready
        self.report = report
        self.spreader = spreader
        self.meters = meters
        self._mirror = mirror
        self._paces = paces
        self._waiters = waiters
        self._dispenser = dispenser
        self._prober = prober
        self._order = itertools.count()

    async def enter(self, target: Target, priority: float, gives_up_at: float | None) -> Entry:
        """Wait until a call may go.

        Raises:
            LimitWaitTimeout: It may not go in time; raised at once when that is known.
        """
        if not self._paces.forgotten_at and not self.hints.given and self._mirror.lifts_at(target) <= clock.now():
            # Nobody has been refused: what is left of it all is a look-up.
            return FREE
        order = next(self._order)
        scope = [target] if target.model is None else [target, Target(target.backend)]
        avoided = False
        while True:
            probes: list[Probe] = []
            turns: dict[Target, Turn] = {}
            slots: list[Slots] = []
            try:
                if self._mirror.lifts_at(target) > clock.now():
                    self.avoided += not avoided
                    avoided = True
                    probes = await self._hold(target, scope, gives_up_at)
                for one in scope:
                    if one in self.hints.given:
                        await self._heed(one, priority, order, gives_up_at, slots)
                tried = {probe.target for probe in probes}
                for one in scope:
                    if one not in tried and self._paces.remembered(one, clock.now()):
                        turns[one] = turn = await self._dispenser.turn(one, priority, order, gives_up_at)
                        if turn.probe_ms:
                            self._prober.hold(Probe(one, *turn))
            except BaseException:
                self._give_back(turns, probes, slots)
                raise
            # A limit may have come between the turn and this moment; it is waited for in the old place of the queue.
            if all(one in tried or self._mirror.deadline(one) <= clock.now() for one in scope):
                return self._entry(target, turns, probes, slots)
            self._give_back(turns, probes, slots)

    async def leave(self, target: Target, entry: Entry, *, served: bool) -> None:
        """A call has ended: it was served, or nothing is known of it."""
        if not served:
            for probe in entry.probes:
                self._prober.give_back(probe, retry_seconds=RETRY_SECONDS)
            return
        self._dispenser.served(target)
        if target.model is not None:
            self._dispenser.served(Target(target.backend))
        for probe in entry.probes:
            await self._prober.served(probe)

    def refused(self, entry: Entry) -> None:
        """A call was refused, which has been reported."""
        for probe in entry.probes:
            self._prober.refused(probe)

    async def _heed(
        self, target: Target, priority: float, order: int, gives_up_at: float | None, slots: list[Slots]
    ) -> None:
        """Wait until no more calls are under way than a hint allows, and begin at the pace that it tells."""
        taking = self.hints.slots(target)
        if taking is not None:
            try:
                await taking.take(priority, order, None if gives_up_at is None else max(0.0, gives_up_at - clock.now()))
            except TimeoutError:
                raise LimitWaitTimeout(f"{target}: too many calls are under way, for all of the timeout") from None
            slots.append(taking)
        rate = self.hints.given.get(target)
        if rate is not None and not self._paces.remembered(target, clock.now()):
            await self._prober.begins(target, rate)

    async def _hold(self, target: Target, scope: list[Target], gives_up_at: float | None) -> list[Probe]:
        """Wait until a target is clear; return the probes of a call that goes before."""
        known: dict[Target, Limit] = {}
        waiting: asyncio.Task[object] = asyncio.ensure_future(self._waiters.wait([target], gives_up_at))
        try:
            while not waiting.done():
                now = clock.now()
                blocking = [one for one in scope if self._mirror.deadline(one) > now]
                known |= {one: limit for one in blocking if (limit := self._mirror.limit(one)) is not None}
                tries = {one: self._prober.tries_at(one) for one in blocking}
                if blocking and max(tries.values()) <= now:
                    if probes := await self._prober.verify(blocking):
                        return probes
                    continue
                next_at = max((min(self._mirror.deadline(one), at) for one, at in tries.items()), default=math.inf)
                # A limit that is set meanwhile is tried no sooner than so long after.
                most = min(next_at - now, self._prober.verify_every or math.inf)
                await self._prober.pause(blocking, most, waiting)
            waiting.result()
        finally:
            if not waiting.cancel() and not waiting.cancelled():
                waiting.exception()
        for one, limit in known.items():
            cleared_id = self._mirror.cleared_by(one)
            if limit.deadline <= clock.now():
                if not self._taught(one, limit):
                    await self._prober.opens(one, limit)
            elif limit.held_until > clock.now() and cleared_id is not None:
                # Who releases what was held by hand does not know either whether the upstream is ready for all.
                await self._prober.opens(one, limit._replace(resume_at_ms=cleared_id.ms))
            # One that was cleared before its time is open to everyone.
        return []

    def _taught(self, target: Target, limit: Limit) -> bool:
        """Tell whether a limit's refusal is known to the target's pace, which then opens by itself."""
        told = limit.details
        teaches = told is not None and told.reason == "rate_limit" and not told.late_ms and told.restores is None
        return teaches and self._paces.remembered(target, clock.now())

    def _entry(self, target: Target, turns: dict[Target, Turn], probes: list[Probe], slots: list[Slots]) -> Entry:
        known = self._paces.get(target)
        epoch = turns[target].epoch if target in turns else known.epoch if known else 0
        if probes:
            # What a call is told that goes during the limit is no refusal of the pace.
            epoch = TEACHES_NOTHING
        given = [Probe(one, *turn) for one, turn in turns.items() if turn.probe_ms]
        return Entry(epoch, (*probes, *given), tuple(slots))

    def _give_back(self, turns: dict[Target, Turn], probes: list[Probe], slots: list[Slots]) -> None:
        for target, turn in turns.items():
            self._prober.let_go(Probe(target, *turn))
            self._dispenser.give_back(target, turn)
        for probe in probes:
            self._prober.give_back(probe, retry_seconds=0.0)
        for slot in slots:
            slot.free()
