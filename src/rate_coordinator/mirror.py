"""A process's own copy of all active limits.

Pure: no I/O, no asyncio, time handed in (seconds on this process's clock, see ``clock``).

What a mirror hears may be late, doubled, out of order or missing. It converges all the same:

* Within an epoch every change has an ID, and an older ID never overwrites a newer one for the same target.
* Every notice names the notice before it. One that was not seen has been missed; the mirror is then *stale* until a
  snapshot that covers it arrives.
* A snapshot stands for everything up to its own place in the order, and for nothing after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from rate_coordinator.clock import ServerClock
from rate_coordinator.models import FIRST_ID, EntryId, Hold, Notice, ReportDetails
from rate_coordinator.snapshots import Snapshot, SnapshotLimit
from rate_coordinator.targets import Target

EARLY_NOTICES = 1000
"""How many notices of an unknown epoch are kept until a snapshot tells where they belong."""

_Name = TypeVar("_Name", str, tuple[str, str])

BEHIND_SECONDS = 0.5
"""A difference of clocks or of times on the way up to this is no difference."""

NO_GENERATION = -1
"""In the place of a clock's generation: that of another server."""

TRACKED_NAMES = 10_000
"""How many names that were asked for but are clear are remembered."""


class Limit(NamedTuple):
    """One active limit as the mirror holds it."""

    target: Target
    id: EntryId
    """The event that set the resume time; ``FIRST_ID`` where that is not known."""
    resume_at_ms: int
    """On the server's clock."""
    deadline: float
    """On this process's clock."""
    generation: int
    """Of the server's clock when the deadline was worked out."""
    wait_ms: int | None = None
    """The wait that the event stored; None where that is not known."""
    details: ReportDetails | None = None

    @property
    def hold(self) -> Hold | None:
        """What is known of its hold by hand, which may be over."""
        return self.details.hold if self.details else None

    @property
    def held_until(self) -> float:
        """When its hold by hand ends, on this process's clock, no later than the deadline; 0.0 where there is none."""
        return self.deadline - max(0, self.resume_at_ms - self.hold.until_ms) / 1000 if self.hold else 0.0


class _Presumed(NamedTuple):
    reports: int
    deadline: float


class _Unplaced(NamedTuple):
    """A reply of an epoch that the mirror does not know yet."""

    epoch: str
    limit: SnapshotLimit
    now_ms: int
    received_at: float
    again: bool
    run_id: str


class Mirror:
    """All limits that this process knows of.

    ``until`` and ``model_until`` are the read path: for every name that was asked for before, the deadline on this
    process's clock, 0.0 when clear. They are plain dictionaries on purpose; a read costs one look-up.
    """

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.model_until: dict[tuple[str, str], float] = {}
        self.clock = ServerClock()
        self.epoch: str | None = None
        self.gaps = 0
        self._limits: dict[Target, Limit] = {}
        self._cleared: dict[Target, EntryId] = {}
        self._presumed: dict[Target, _Presumed] = {}
        self._covered = FIRST_ID
        self._covered_ms = 0
        self._newest = FIRST_ID
        self._newest_at = -math.inf
        self._asked_at = -math.inf
        self._missed_at: float | None = None
        self._early: list[tuple[Notice, float]] = []
        self._unplaced: list[_Unplaced] = []

    @property
    def stale(self) -> bool:
        """Whether something is known to have been missed, so that a snapshot is needed."""
        return self.epoch is None or self._missed_at is not None or bool(self._early) or bool(self._unplaced)

    def deadline(self, target: Target) -> float:
        """Return when exactly this target's own limit lifts; 0.0 when none is known."""
        limit = self._limits.get(target)
        presumed = self._presumed.get(target)
        return max(limit.deadline if limit else 0.0, presumed.deadline if presumed else 0.0)

    def lifts_at(self, target: Target) -> float:
        """Return when the target may be called again: a backend's limit holds all its models; 0.0 when clear."""
        own = self.deadline(target)
        return own if target.model is None else max(own, self.deadline(Target(target.backend)))

    def track(self, target: Target) -> None:
        """Answer reads of this target from ``until`` and ``model_until`` from now on."""
        _shrink(self.until)
        self.until[target.backend] = self.deadline(Target(target.backend))
        if target.model is not None:
            _shrink(self.model_until)
            self.model_until[target.backend, target.model] = self.deadline(target)

    def active(self, at: float) -> list[tuple[Target, float, Limit | None]]:
        """Return target, deadline and limit of all that is limited at a moment; no limit where only presumed."""
        # Copied whole: another thread may be reading.
        targets = self._limits.copy().keys() | self._presumed.copy().keys()
        deadlines = ((target, self.deadline(target)) for target in targets)
        return [(target, deadline, self._limits.get(target)) for target, deadline in deadlines if deadline > at]

    def targets_of(self, backend: str | None, model: str | None, at: float) -> list[Target]:
        """Return the limited targets that a clear of a backend, of a model or (None) of everything would lift."""
        return [
            target
            for target, _, limit in self.active(at)
            if limit is not None
            and (backend is None or target.backend == backend)
            and (model is None or target.model == model)
        ]

    def apply(self, notice: Notice, received_at: float) -> set[Target]:
        """Take in a notice.

        Args:
            notice: As heard, in whatever order.
            received_at: When it was heard.

        Returns:
            The targets whose limit changed.

        Raises:
            ValueError: The notice's IDs are no entry IDs; nothing was changed.
        """
        notice_id, previous_id = EntryId.parse(notice.id), EntryId.parse(notice.previous_id)
        if notice.epoch != self.epoch:
            if len(self._early) < EARLY_NOTICES:
                self._early.append((notice, received_at))
            else:
                self._missed_at = received_at
            return set()
        if notice_id <= self._covered:
            return set()
        if previous_id > self._newest:
            self._missed_at = received_at
            self.gaps += 1
        if notice_id > self._newest:
            self._newest, self._newest_at = notice_id, received_at
        if notice.kind == "clear":
            return self._clear(notice.target, notice_id)
        limit = SnapshotLimit(notice.target, notice.resume_at_ms, notice_id, notice.wait_ms, notice)
        return self._learn(limit, notice.now_ms, received_at)

    def learn(
        self,
        epoch: str,
        limit: SnapshotLimit,
        now_ms: int,
        received_at: float,
        *,
        again: bool = False,
        run_id: str = "",
    ) -> set[Target]:
        """Take in the reply to one of this process's own reports.

        Its notice is heard beside it. Of an epoch that is not the mirror's, it says nothing that could be
        compared; then it is presumed until the snapshot that contains it.

        Args:
            epoch: Of the limit's ID.
            limit: What the target's limit is.
            now_ms: The server's clock when it answered.
            received_at: When the reply was received.
            again: Whether the call had been sent before: then it may be answered with what was true the first time.
            run_id: Of the server process that answered; empty if unknown.

        Returns:
            The targets whose limit changed.
        """
        self.clock.hear(now_ms, received_at)
        if epoch != self.epoch:
            self._unplaced.append(_Unplaced(epoch, limit, now_ms, received_at, again, run_id))
            return self.presume(limit.target, received_at + limit.remaining_seconds(now_ms))
        known = self._limits.get(limit.target)
        outdated = limit.id <= self._covered and (again or now_ms <= self._covered_ms)
        if outdated and (known is None or (known.id == FIRST_ID and known.resume_at_ms != limit.resume_at_ms)):
            # The snapshot is the younger of the two. It holds the limit no more, or another one whose cause is lost.
            return set()
        return self._learn(limit, now_ms, received_at)

    def learn_clear(self, epoch: str, target: Target, cleared_id: EntryId) -> set[Target]:
        """Take in the reply to one of this process's own clears."""
        if epoch == self.epoch:
            return self._clear(target, cleared_id)
        unplaced, self._unplaced = self._unplaced, []
        changed: set[Target] = set()
        for reply in unplaced:
            if (reply.epoch, reply.limit.target) == (epoch, target) and reply.limit.id <= cleared_id:
                changed |= self.settle(target)
            else:
                self._unplaced.append(reply)
        return changed

    def presume(self, target: Target, deadline: float) -> set[Target]:
        """Limit a target in this process alone, until ``settle``: its report is still on its way."""
        presumed = self._presumed.get(target, _Presumed(0, 0.0))
        self._presumed[target] = _Presumed(presumed.reports + 1, max(presumed.deadline, deadline))
        return self._changed(target)

    def settle(self, target: Target) -> set[Target]:
        """Undo one ``presume``: the report arrived, or was given up."""
        presumed = self._presumed[target]
        if presumed.reports > 1:
            self._presumed[target] = presumed._replace(reports=presumed.reports - 1)
            return set()
        del self._presumed[target]
        return self._changed(target)

    def replace(self, snapshot: Snapshot, sent_at: float, received_at: float) -> set[Target]:
        """Take in a snapshot.

        Args:
            snapshot: What Redis holds.
            sent_at: When it was asked for.
            received_at: When it arrived.

        Returns:
            The targets whose limit changed.
        """
        self.clock.observe(snapshot.now_ms, sent_at, received_at)
        same_order = snapshot.epoch == self.epoch
        if same_order and snapshot.notice_id < self._covered:
            if sent_at <= self._asked_at:
                return set()
            # A server that forgot its newest writes when it restarted, and whose run ID may not be asked for.
            same_order = False
        elif same_order and snapshot.notice_id < self._newest and self._newest_at < sent_at:
            # Heard before the snapshot was asked for, and unknown to Redis: forged, or forgotten likewise.
            same_order = False
        self._asked_at = sent_at
        changed: set[Target] = set()
        told = {limit.target for limit in snapshot.limits}
        for target, limit in list(self._limits.items()):
            newer = same_order and limit.id > snapshot.notice_id
            # Redis let it go because its time had come, but only by a clock that was stepped since the limit
            # was learned: a clock put forward must not lift a limit, so the own deadline stands.
            lapsed = limit.resume_at_ms <= snapshot.now_ms and limit.generation != self.clock.generation
            if target not in told and not newer and not lapsed:
                del self._limits[target]
                changed |= self._changed(target)
        if same_order:
            self._cleared = {t: cleared for t, cleared in self._cleared.items() if cleared > snapshot.notice_id}
        else:
            self._cleared = {}
            self._newest = FIRST_ID
        for told_limit in snapshot.limits:
            known = self._limits.get(told_limit.target)
            if same_order and (
                (known is not None and known.id > snapshot.notice_id) or told_limit.target in self._cleared
            ):
                continue
            changed |= self._set(told_limit, snapshot.now_ms, received_at)
        self.epoch = snapshot.epoch
        self._covered, self._covered_ms = snapshot.notice_id, snapshot.now_ms
        self._newest = max(self._newest, snapshot.notice_id)
        if self._missed_at is not None and self._missed_at < sent_at:
            # What was missed had been published, so that a snapshot asked for later contains it.
            self._missed_at = None
        return changed | self._apply_early(sent_at) | self._place(sent_at)

    def lost_in(self, snapshot: Snapshot, received_at: float) -> list[Target]:
        """Return the limits that a snapshot should hold and does not: cleared without a notice, or lost in Redis.

        What is over by this process's clock is not asked for, even if the server's was put back since.
        """
        told = {limit.target for limit in snapshot.limits}
        return [
            target
            for target, limit in self._limits.items()
            if target not in told
            and limit.resume_at_ms > snapshot.now_ms
            and limit.deadline > received_at
            and (snapshot.epoch != self.epoch or limit.id <= snapshot.notice_id)
        ]

    def behind_in(self, snapshot: Snapshot, sent_at: float, received_at: float) -> list[Limit]:
        """Return the limits that are known to last longer, or to be held longer by hand, than a snapshot says."""
        told = {limit.target: received_at + limit.remaining_seconds(snapshot.now_ms) for limit in snapshot.limits}
        held = {
            limit.target: received_at + limit.held_seconds(snapshot.now_ms)
            for limit in snapshot.limits
            if limit.details is not None and limit.details.hold is not None
        }
        known = self._limits.copy()
        for limit in self._unplaced_limits(snapshot, sent_at):
            if limit.target not in known or known[limit.target].deadline < limit.deadline:
                known[limit.target] = limit
        return [
            limit
            for target, limit in known.items()
            if limit.deadline > max(told.get(target, 0.0) + BEHIND_SECONDS, received_at)
            or limit.held_until > max(held.get(target, 0.0) + BEHIND_SECONDS, received_at)
        ]

    def drop_lifted(self, at: float) -> None:
        """Forget limits whose deadline has passed. Not needed for right answers, only for memory.

        Those whose time has not come by the server's clock as well are kept: it was put back, and the next snapshot
        that tells of them would limit anew.
        """
        lifted = [target for target, limit in self._limits.items() if limit.deadline <= at]
        for target in [target for target in lifted if self._limits[target].resume_at_ms <= self._covered_ms]:
            del self._limits[target]
            self._changed(target)

    def limits(self) -> dict[Target, Limit]:
        """Return all limits as Redis told them, lifted ones too until they are dropped."""
        return self._limits.copy()

    def cleared_by(self, target: Target) -> EntryId | None:
        """Return the event that lifted a target's limit last, as far as that is younger than the last snapshot."""
        return self._cleared.get(target)

    def limit(self, target: Target) -> Limit | None:
        """Return exactly this target's own limit as Redis told it, lifted or not."""
        return self._limits.get(target)

    def forget_readers(self) -> None:
        """Send every read to the slow path, where the coordinator says what is wrong."""
        self.until.clear()
        self.model_until.clear()

    def _apply_early(self, snapshot_sent_at: float) -> set[Target]:
        early, self._early = self._early, []
        changed: set[Target] = set()
        for notice, received_at in early:
            if notice.epoch == self.epoch:
                changed |= self.apply(notice, received_at)
            elif received_at >= snapshot_sent_at:
                # Perhaps of an epoch that began after the snapshot; an older one is of the past.
                self._early.append((notice, received_at))
        return changed

    def _place(self, snapshot_sent_at: float) -> set[Target]:
        unplaced, self._unplaced = self._unplaced, []
        changed: set[Target] = set()
        for reply in unplaced:
            if reply.epoch == self.epoch:
                changed |= self.learn(*reply[:4], again=reply.again) | self.settle(reply.limit.target)
            elif reply.received_at <= snapshot_sent_at:
                changed |= self.settle(reply.limit.target)
            else:
                self._unplaced.append(reply)
        return changed

    def _unplaced_limits(self, snapshot: Snapshot, sent_at: float) -> Iterator[Limit]:
        """Return what was replied in an epoch that is over before the mirror got to know it.

        That of another server process was told by a clock of its own, which is that of no generation.
        """
        for reply in self._unplaced:
            if reply.epoch != snapshot.epoch and reply.received_at <= sent_at:
                told = reply.limit
                deadline = reply.received_at + told.remaining_seconds(reply.now_ms)
                elsewhere = reply.run_id and snapshot.run_id and reply.run_id != snapshot.run_id
                generation = NO_GENERATION if elsewhere else self.clock.generation
                yield Limit(told.target, told.id, told.resume_at_ms, deadline, generation, told.wait_ms, told.details)

    def _learn(self, limit: SnapshotLimit, now_ms: int, received_at: float) -> set[Target]:
        known, cleared_id = self._limits.get(limit.target), self._cleared.get(limit.target)
        if (known is not None and limit.id < known.id) or (cleared_id is not None and limit.id <= cleared_id):
            return set()
        self._cleared.pop(limit.target, None)
        return self._set(limit, now_ms, received_at)

    def _clear(self, target: Target, cleared_id: EntryId) -> set[Target]:
        known = self._limits.get(target)
        if cleared_id <= max(known.id if known else FIRST_ID, self._cleared.get(target, FIRST_ID), self._covered):
            return set()
        self._cleared[target] = cleared_id
        self._limits.pop(target, None)
        return self._changed(target) if known else set()

    def _set(self, told: SnapshotLimit, now_ms: int, received_at: float) -> set[Target]:
        deadline = received_at + told.remaining_seconds(now_ms)
        known = self._limits.get(told.target)
        if known is not None and told.id == FIRST_ID and told.resume_at_ms == known.resume_at_ms:
            # Redis lost the cause, but the limit is the same one.
            told = told._replace(id=known.id, wait_ms=known.wait_ms, details=known.details)
        told_again = known is not None and known.id == told.id and known.resume_at_ms == told.resume_at_ms
        # Told again: either time on the way only made it look later, or the server's clock was stepped since.
        if told_again and known and (known.generation != self.clock.generation or known.deadline <= deadline):
            if told.details is not None:
                # Redis tells exactly what a reply to a call that was sent twice leaves open.
                self._limits[told.target] = known._replace(wait_ms=told.wait_ms, details=told.details)
            return set()
        details = told.details or (known.details if known and known.id == told.id else None)
        self._limits[told.target] = Limit(
            told.target, told.id, told.resume_at_ms, deadline, self.clock.generation, told.wait_ms, details
        )
        return self._changed(told.target)

    def _changed(self, target: Target) -> set[Target]:
        if target.model is None:
            if target.backend in self.until:
                self.until[target.backend] = self.deadline(target)
        elif (target.backend, target.model) in self.model_until:
            self.model_until[target.backend, target.model] = self.deadline(target)
        return {target}


def _shrink(known: dict[_Name, float]) -> None:
    if len(known) > TRACKED_NAMES:
        for name in [name for name, until in known.items() if not until]:
            del known[name]
