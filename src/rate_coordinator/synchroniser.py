"""Keeps what a process knows equal to what Redis holds: by notices as they are heard, by snapshots as a net."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial

from rate_coordinator import clock
from rate_coordinator.dispenser import Dispenser
from rate_coordinator.errors import CoordinatorUnavailable, ServerUnsuitable
from rate_coordinator.eventlog import RECENT_SECONDS, EventLog
from rate_coordinator.findings import judge_eviction, passes_by_itself
from rate_coordinator.metering import Meters
from rate_coordinator.mirror import Limit, Mirror
from rate_coordinator.models import FIRST_ID, EntryId, Notice, RateLimitEvent
from rate_coordinator.notices import NoticeHub
from rate_coordinator.prober import Prober
from rate_coordinator.snapshots import Snapshot
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from rate_coordinator.turns import Paces
from rate_coordinator.waiters import Waiters

logger = logging.getLogger(__name__)

EVENTS_PER_PAGE = 1000
MOST_PACES_TOLD = 1000
"""How many paces a snapshot tells at most: those that are remembered for longest."""
SNAPSHOTS_PER_REFRESH = 5
RESTORE_SPREAD_SECONDS = 1.0
"""Over how long the processes of a fleet spread the putting back of limits."""
RECOVERED_REMEMBERED = 10_000
"""How many changes that were learned from a snapshot are remembered, so that a late notice is not handed on again."""


class Synchroniser:
    """Takes in notices and snapshots, and tells waiters and listeners what changed.

    Args:
        store: Where snapshots and events are read.
        mirror: The limits.
        log: The events.
        waiters: Told of every change of a limit.
        hub: Told of every notice, once.
        meters: Told likewise.
        paces: The paces.
        dispenser: Told of every change of a pace, or of a limit that a pace follows.
        prober: Told of every probe that has come to its end.
        most_events: How many events are read at most.
        restore: Puts limits back that another server lacks than the one that they are known from.
    """

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        log: EventLog,
        waiters: Waiters,
        hub: NoticeHub,
        meters: Meters,
        paces: Paces,
        dispenser: Dispenser,
        prober: Prober,
        most_events: int,
        restore: Callable[[list[Limit]], Awaitable[None]],
    ) -> None:
        self.resyncs = 0
        self.notice_delay_seconds: float | None = None
        self._store = store
        self._mirror = mirror
        self._log = log
        self._waiters = waiters
        self._hub = hub
        self._meters = meters
        self._paces = paces
        self._dispenser = dispenser
        self._prober = prober
        self._most_events = most_events
        self._restore = restore
        self._server = ""
        self._checked = False
        self._one_at_a_time = asyncio.Lock()
        self._read_to = FIRST_ID
        self._recovered: OrderedDict[tuple[str, Target], EntryId] = OrderedDict()

    def heard(self, notice: Notice, received_at: float) -> bool:
        """Take in a notice; return whether a snapshot is needed now."""
        self.notice_delay_seconds = delay = self._mirror.clock.age_seconds(notice.now_ms, received_at)
        self._hear_of_pace(notice, received_at)
        if notice.kind == "pace":
            self._publish(notice, delay)
            return False
        # A notice of an order that is not known yet is told when a snapshot has said where it belongs.
        told = notice.epoch != self._mirror.epoch or self._was_recovered(notice)
        changed = self._mirror.apply(notice, received_at)
        self._waiters.changed(changed)
        if not told:
            self._publish(notice, delay)
        if notice.kind == "limit" and notice.event is None:
            self._log.add(EntryId.parse(notice.id), partial(RateLimitEvent.of_notice, notice))
        # How much of the wait is left is not known where the notice was on its way for long, as after a suspension.
        return self._mirror.stale or self._mirror.clock.contradicted_by(notice.now_ms, received_at)

    async def synchronise(self) -> bool:
        """Read a snapshot and the events since the last one; return whether another snapshot is needed at once.

        Raises:
            CoordinatorUnavailable: Redis is away.
            ServerUnsuitable: The server cannot be used.
        """
        self._waiters.wake_due()
        async with self._one_at_a_time:
            await self._check_server()
            snapshot, sent_at, received_at = await self._snapshot()
            known, known_epoch = self._mirror.limits(), self._mirror.epoch
            changed = self._mirror.replace(snapshot, sent_at, received_at)
            self.resyncs += 1
            self._waiters.changed(changed)
            self._paces.replace(
                {target: received_at + (until_ms - snapshot.now_ms) / 1000 for target, until_ms in snapshot.paces},
                complete=len(snapshot.paces) < MOST_PACES_TOLD,
            )
            self._dispenser.changed(changed)
            if known_epoch is not None:
                self._tell_recovered(known, snapshot)
            if snapshot.epoch != known_epoch:
                self._read_to = FIRST_ID
                self._log.clear()
            self._mirror.drop_lifted(clock.now())
            await self._catch_up(snapshot.now_ms)
            return self._mirror.stale

    async def _snapshot(self) -> tuple[Snapshot, float, float]:
        """Read a snapshot of what Redis holds once it holds what it should."""
        snapshot, sent_at, received_at = await self._store.snapshot()
        lost = self._mirror.lost_in(snapshot, received_at)
        if lost:
            if await self._store.reindex(lost):
                logger.warning("the index of limits was gone and has been restored", extra={"targets": len(lost)})
            # Also where there was nothing to do: somebody else may have restored it since the first snapshot.
            snapshot, sent_at, received_at = await self._store.snapshot()
        if self._lacking(snapshot, sent_at, received_at):
            # Everyone who knew the limits before finds the same: most leave it to the first of them.
            await asyncio.sleep(random.random() * RESTORE_SPREAD_SECONDS)
            snapshot, sent_at, received_at = await self._store.snapshot()
            lacking = self._lacking(snapshot, sent_at, received_at)
            if lacking:
                logger.warning(
                    "another server answers, or its clock was set; putting back what it lacks",
                    extra={"limits": len(lacking)},
                )
                await self._restore(lacking)
                snapshot, sent_at, received_at = await self._store.snapshot()
        self._server = snapshot.run_id or self._server
        return snapshot, sent_at, received_at

    def _lacking(self, snapshot: Snapshot, sent_at: float, received_at: float) -> list[Limit]:
        """Return the limits that Redis lost, or will let go too early, by nobody's decision."""
        self._mirror.clock.observe(snapshot.now_ms, sent_at, received_at)
        moved = bool(self._server) and snapshot.run_id not in ("", self._server)
        behind = self._mirror.behind_in(snapshot, sent_at, received_at)
        return [limit for limit in behind if moved or limit.generation != self._mirror.clock.generation]

    async def refresh(self) -> None:
        """Synchronise now.

        Raises:
            CoordinatorUnavailable: Redis is away.
        """
        for _ in range(SNAPSHOTS_PER_REFRESH):
            if not await self.synchronise():
                break

    async def read_events(self, oldest: str, count: int | None, most_pages: int | None = None) -> list[RateLimitEvent]:
        """Read the stream down to an entry ID, newest first, at most so many, or so many pages with garbage in them.

        Raises:
            CoordinatorUnavailable: Redis is away.
        """
        found: list[RateLimitEvent] = []
        position: str | None = "+"
        pages = itertools.count() if most_pages is None else range(most_pages)
        for _ in pages:
            if position is None or (count is not None and len(found) >= count):
                break
            page = EVENTS_PER_PAGE if count is None else min(EVENTS_PER_PAGE, count - len(found))
            events, position = await self._store.events(position, oldest, page)
            found += events
        return found

    async def _check_server(self) -> None:
        if self._checked:
            return
        refused = await self._store.check()
        if refused:
            address = self._store.endpoint.address
            words = "; ".join(f"{command}: {text}" for command, text in refused)
            if all(passes_by_itself(text) for _, text in refused):
                raise CoordinatorUnavailable(f"Redis at {address} refuses what is needed at present: {words}")
            raise ServerUnsuitable(f"Redis at {address} refuses what is needed: {words}")
        eviction = judge_eviction(self._store.server_info)
        if eviction.status == "wrong":
            told = {"policy": self._store.server_info.get("maxmemory_policy"), "advice": eviction.advice}
            logger.warning("the server throws limits away when its memory is full", extra=told)
        self._checked = True

    async def _catch_up(self, now_ms: int) -> None:
        """Read the events that came since the last time, of the last hour, as many as are kept."""
        hour_ago = EntryId(max(0, now_ms - int(RECENT_SECONDS * 1000)), 0)
        oldest = f"({self._read_to}" if self._read_to > hour_ago else str(hour_ago)
        # What cannot be read is not made up for: a stream full of it would be read for ever.
        events = await self.read_events(oldest, self._most_events, self._most_events // EVENTS_PER_PAGE + 1)
        for event in reversed(events):
            if event.kind == "report":
                self._log.add(EntryId.parse(event.id), event)
        if events:
            self._read_to = EntryId.parse(events[0].id)
        self._log.prune(now_ms)

    def _hear_of_pace(self, notice: Notice, received_at: float) -> None:
        if not notice.pace_until_ms and (notice.kind == "clear" or notice.pace_until_ms == 0):
            self._paces.forget(notice.target)
            self._dispenser.changed({notice.target})
        elif notice.pace_until_ms is not None:
            self._paces.limited(notice.target, received_at + (notice.pace_until_ms - notice.now_ms) / 1000)
            if notice.kind == "limit":
                self._dispenser.limited(notice.target)
            elif self._paces.tell(notice.target, notice.pace_rate, notice.pace_ceiling):
                self._dispenser.changed({notice.target})
        if notice.probe is not None:
            self._dispenser.changed({notice.target})
            self._prober.heard(notice.target)

    def _tell_recovered(self, known: dict[Target, Limit], snapshot: Snapshot) -> None:
        """Hand on the changes that only the snapshot told of."""
        now = self._mirror.limits()
        order = {"epoch": snapshot.epoch, "previous_id": str(FIRST_ID), "now_ms": snapshot.now_ms, "recovered": True}
        for target, limit in now.items():
            before = known.get(target)
            if (before is None or before.id != limit.id) and limit.id != FIRST_ID:
                self._recover(target, limit.id, {**_details(limit), **order, "kind": "limit"})
        for target, limit in known.items():
            if target not in now and limit.resume_at_ms > snapshot.now_ms:
                self._recover(target, snapshot.notice_id, {**order, "kind": "clear"})

    def _recover(self, target: Target, change_id: EntryId, notice: dict[str, object]) -> None:
        names = {"backend": target.backend, "model": target.model}
        self._publish(Notice.model_validate({**notice, **names, "id": str(change_id)}), None)
        self._recovered[str(notice["epoch"]), target] = change_id
        if len(self._recovered) > RECOVERED_REMEMBERED:
            self._recovered.popitem(last=False)

    def _publish(self, notice: Notice, delay_seconds: float | None) -> None:
        self._hub.publish(notice)
        self._meters.changed(notice, delay_seconds)

    def _was_recovered(self, notice: Notice) -> bool:
        if not self._recovered:
            return False
        recovered_id = self._recovered.get((notice.epoch, notice.target), FIRST_ID)
        return EntryId.parse(notice.id) <= recovered_id


def _details(limit: Limit) -> dict[str, object]:
    told = limit.details.model_dump() if limit.details else {}
    return {**told, "resume_at_ms": limit.resume_at_ms, "wait_ms": limit.wait_ms or 0}
