"""A Redis to test the mirror against: what the scripts do, in a few lines, with time in the test's hands.

Time is a number of milliseconds that only the test moves. The server's clock is that plus an offset, which may be
stepped; a process's clock is that in seconds, from some start of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

from rate_coordinator.models import FIRST_ID, EntryId, Hold, Notice, ReportDetails
from rate_coordinator.snapshots import Snapshot, SnapshotLimit
from rate_coordinator.targets import Target

SERVER_STARTED_MS = 1_700_000_000_000
PROCESS_STARTED = 5_000.0

TARGETS = (Target("a"), Target("a", "m"), Target("b"))
targets = st.sampled_from(TARGETS)
waits_ms = st.one_of(st.just(0), st.integers(1, 100), st.integers(1, 60_000))
holds_ms = st.integers(1, 60_000)
delays_ms = st.one_of(st.just(0), st.integers(0, 300))


def process_clock(time_ms: int) -> float:
    return PROCESS_STARTED + time_ms / 1000


class Stored(NamedTuple):
    """A limit as Redis holds it."""

    id: EntryId
    resume_at_ms: int
    wait_ms: int
    lifts_at: float
    """When it lifts, on the process's clock, if the server's is not stepped."""
    hold: Hold | None = None
    """The hold by hand that there was when it was told."""

    def told(self, target: Target) -> SnapshotLimit:
        return SnapshotLimit(target, self.resume_at_ms, self.id, self.wait_ms, ReportDetails(hold=self.hold))


class OwnReply(NamedTuple):
    """What one report is answered."""

    epoch: str
    limit: SnapshotLimit | None
    now_ms: int
    executed_at_ms: int


@dataclass
class ModelRedis:
    """One namespace."""

    time_ms: int = 0
    offset_ms: int = SERVER_STARTED_MS
    epoch_number: int = 1
    last_id: EntryId = FIRST_ID
    notice_id: EntryId = FIRST_ID
    limits: dict[Target, Stored] = field(default_factory=dict)
    holds: dict[Target, Hold] = field(default_factory=dict)
    reported: dict[Target, int] = field(default_factory=dict)
    """Until when reports alone limit a target, of those that are held."""
    published: list[Notice] = field(default_factory=list)
    """Every notice, in order."""
    recorded: dict[tuple[str, EntryId], Stored] = field(default_factory=dict)
    """Every limit that there was."""

    @property
    def epoch(self) -> str:
        return f"epoch {self.epoch_number}"

    @staticmethod
    def number_of(epoch: str) -> int:
        """Return when an epoch came: a mirror cannot tell, but the test can."""
        return int(epoch.removeprefix("epoch "))

    @property
    def now_ms(self) -> int:
        """The server's clock."""
        return self.time_ms + self.offset_ms

    @property
    def now(self) -> float:
        """The process's clock."""
        return process_clock(self.time_ms)

    def active(self) -> dict[Target, Stored]:
        return {target: stored for target, stored in self.limits.items() if stored.resume_at_ms > self.now_ms}

    def held(self, target: Target) -> Hold | None:
        hold = self.holds.get(target)
        return hold if hold and hold.until_ms > self.now_ms else None

    def report(self, target: Target, wait_ms: int) -> OwnReply:
        event_id = self._next_id()
        stored = self.active().get(target)
        if stored and stored.resume_at_ms > self.now_ms + stored.wait_ms:
            # The clock was put back.
            resume_at_ms = self.now_ms + stored.wait_ms
            stored = stored._replace(resume_at_ms=resume_at_ms, lifts_at=self._lifts_at(resume_at_ms))
            self._store(target, stored)
        resume_at_ms = self.now_ms + wait_ms
        if wait_ms and (stored is None or resume_at_ms > stored.resume_at_ms):
            stored = self._limit(target, event_id, resume_at_ms)
        if self.held(target) and wait_ms:
            self.reported[target] = max(resume_at_ms, self.reported.get(target, 0))
        limit = stored.told(target) if stored else None
        if limit and limit.id != event_id:
            limit = limit._replace(wait_ms=None, details=None)
        return OwnReply(self.epoch, limit, self.now_ms, self.time_ms)

    def again(self, reply: OwnReply) -> OwnReply:
        """Answer the same call once more: what was answered before, at another time."""
        return reply._replace(now_ms=self.now_ms, executed_at_ms=self.time_ms)

    def clear(self, *cleared: Target) -> list[tuple[Target, EntryId]]:
        active = self.active()
        done = []
        for target in cleared:
            hold = self.held(target)
            if target in active and hold is None:
                done.append((target, self._lift(target)))
            elif hold is not None:
                self.reported.pop(target, None)
                if active[target].resume_at_ms > hold.until_ms:
                    self._limit(target, self._next_id(), hold.until_ms)
        return done

    def hold(self, target: Target, wait_ms: int) -> OwnReply:
        """Hold a target by hand, instead of any hold before."""
        if not self.held(target):
            self.reported[target] = self.limits[target].resume_at_ms if target in self.active() else 0
        self.holds[target] = Hold(until_ms=self.now_ms + wait_ms, wait_ms=wait_ms)
        resume_at_ms = max(self.now_ms + wait_ms, self.reported.get(target, 0))
        stored = self._limit(target, self._next_id(), resume_at_ms)
        return OwnReply(self.epoch, stored.told(target), self.now_ms, self.time_ms)

    def release(self, target: Target) -> OwnReply | EntryId | None:
        """End a hold; return the limit that is left, the event that lifted it, or None where there was none."""
        if not self.held(target):
            return None
        del self.holds[target]
        reported_ms = self.reported.pop(target, 0)
        if reported_ms <= self.now_ms:
            return self._lift(target)
        stored = self._limit(target, self._next_id(), reported_ms)
        return OwnReply(self.epoch, stored.told(target), self.now_ms, self.time_ms)

    def flush(self) -> None:
        """Lose everything, the stream's IDs included."""
        self.limits.clear()
        self.holds.clear()
        self.last_id = FIRST_ID
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Become another server that has the same data: a restart, a promoted replica."""
        self.epoch_number += 1
        self.notice_id = FIRST_ID

    def snapshot(self) -> Snapshot:
        limits = tuple(stored.told(target) for target, stored in self.active().items())
        return Snapshot(self.epoch, self.notice_id, self.now_ms, limits)

    def _limit(self, target: Target, event_id: EntryId, resume_at_ms: int) -> Stored:
        wait_ms = resume_at_ms - self.now_ms
        stored = Stored(event_id, resume_at_ms, wait_ms, self._lifts_at(resume_at_ms), self.held(target))
        self._store(target, stored)
        self._publish("limit", event_id, target, resume_at_ms, wait_ms, stored.hold)
        return stored

    def _lift(self, target: Target) -> EntryId:
        event_id = self._next_id()
        del self.limits[target]
        self._publish("clear", event_id, target, 0, 0)
        return event_id

    def _lifts_at(self, resume_at_ms: int) -> float:
        return process_clock(resume_at_ms - self.offset_ms)

    def _store(self, target: Target, stored: Stored) -> None:
        self.limits[target] = stored
        self.recorded[self.epoch, stored.id] = stored

    def _next_id(self) -> EntryId:
        newest = EntryId(self.now_ms, 0)
        self.last_id = newest if newest > self.last_id else EntryId(self.last_id.ms, self.last_id.seq + 1)
        return self.last_id

    def _publish(
        self, kind: str, event_id: EntryId, target: Target, resume_at_ms: int, wait_ms: int, hold: Hold | None = None
    ) -> None:
        self.published.append(
            Notice.model_validate(
                {
                    "kind": kind,
                    "epoch": self.epoch,
                    "id": str(event_id),
                    "previous_id": str(self.notice_id),
                    "backend": target.backend,
                    "model": target.model,
                    "now_ms": self.now_ms,
                    "resume_at_ms": resume_at_ms,
                    "wait_ms": wait_ms,
                    "hold": hold,
                }
            )
        )
        self.notice_id = event_id
