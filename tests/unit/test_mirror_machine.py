"""The mirror against a model of Redis and of everything that can happen between the two."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rate_coordinator.mirror import Mirror
from rate_coordinator.models import FIRST_ID, EntryId, Notice
from rate_coordinator.snapshots import Snapshot
from rate_coordinator.targets import Target
from tests.unit.model import TARGETS, ModelRedis, OwnReply, delays_ms, holds_ms, process_clock, targets, waits_ms

ROUNDING = 1e-6
numbers = st.integers(0, 20)


class MirrorMachine(RuleBasedStateMachine):
    """Notices are lost, doubled, late and out of order; replies and snapshots race with them."""

    def __init__(self) -> None:
        super().__init__()
        self.redis = ModelRedis()
        self.mirror = Mirror()
        self.collected = 0
        self.on_their_way: list[Notice] = []
        self.heard: set[tuple[str, str]] = set()
        self.called: tuple[Target, OwnReply, bool] | None = None
        self.asked_at_ms: int | None = None
        self.answer: tuple[Snapshot, int] | None = None
        self.longest_delay = 0.0
        self.covered = FIRST_ID
        self.newest_epoch_heard = self.synchronised_epoch = 0
        self.newest_known: dict[Target, EntryId] = {}
        self.known_epoch: str | None = None
        for target in TARGETS:
            self.mirror.track(target)

    # What happens in Redis.

    @rule(milliseconds=st.one_of(st.integers(1, 5), st.integers(1, 70_000)))
    def time_passes(self, milliseconds: int) -> None:
        self.redis.time_ms += milliseconds

    @rule(of=targets, wait_ms=waits_ms)
    def somebody_reports(self, of: Target, wait_ms: int) -> None:
        self.redis.report(of, wait_ms)
        self._collect()

    @rule(cleared=st.sets(targets))
    def somebody_clears(self, cleared: set[Target]) -> None:
        self.redis.clear(*sorted(cleared, key=str))
        self._collect()

    @rule(of=targets, wait_ms=holds_ms)
    def somebody_holds(self, of: Target, wait_ms: int) -> None:
        self.redis.hold(of, wait_ms)
        self._collect()

    @rule(of=targets)
    def somebody_releases(self, of: Target) -> None:
        self.redis.release(of)
        self._collect()

    @rule()
    def the_database_is_flushed(self) -> None:
        self.redis.flush()

    @rule()
    def another_server_takes_over(self) -> None:
        self.redis.begin_epoch()

    # What this process does.

    @precondition(lambda self: self.called is None)
    @rule(of=targets, wait_ms=waits_ms)
    def this_process_reports(self, of: Target, wait_ms: int) -> None:
        self.mirror.presume(of, self.redis.now + wait_ms / 1000)
        self.called = (of, self.redis.report(of, wait_ms), False)
        self._collect()

    @precondition(lambda self: self.called is not None)
    @rule()
    def the_reply_is_lost_and_the_same_call_made_again(self) -> None:
        assert self.called is not None
        target, reply, _ = self.called
        self.called = (target, self.redis.again(reply), True)

    @precondition(lambda self: self.called is not None)
    @rule()
    def the_reply_arrives(self) -> None:
        assert self.called is not None
        (target, reply, again), self.called = self.called, None
        if reply.limit is not None:
            self._late(reply.executed_at_ms)
            self.mirror.learn(reply.epoch, reply.limit, reply.now_ms, self.redis.now, again=again)
        self.mirror.settle(target)
        stored = self.redis.active().get(target)
        if reply.limit and stored and (reply.epoch, reply.limit.id) == (self.redis.epoch, stored.id):
            # Read-your-writes: nothing has happened to it since.
            assert self.mirror.deadline(target) >= stored.lifts_at - ROUNDING

    @rule(of=targets)
    def this_process_clears(self, of: Target) -> None:
        for cleared, event_id in self.redis.clear(of):
            self.mirror.learn_clear(self.redis.epoch, cleared, event_id)
            if self.redis.epoch == self.mirror.epoch:
                assert self.mirror.limit(cleared) is None
        self._collect()

    @rule(of=targets, wait_ms=holds_ms)
    def this_process_holds(self, of: Target, wait_ms: int) -> None:
        self._learn_of_hand(self.redis.hold(of, wait_ms))
        self._collect()

    @rule(of=targets)
    def this_process_releases(self, of: Target) -> None:
        done = self.redis.release(of)
        if isinstance(done, EntryId):
            self.mirror.learn_clear(self.redis.epoch, of, done)
        elif done is not None:
            self._learn_of_hand(done)
        self._collect()

    @rule()
    def lifted_limits_are_dropped(self) -> None:
        self.mirror.drop_lifted(self.redis.now)

    # What the network does.

    @precondition(lambda self: self.on_their_way)
    @rule(which=numbers, doubled=st.booleans())
    def a_notice_arrives(self, which: int, doubled: bool) -> None:
        notice = self.on_their_way[which % len(self.on_their_way)]
        if not doubled:
            self.on_their_way.remove(notice)
        self._hear(notice)

    @precondition(lambda self: self.on_their_way)
    @rule()
    def the_next_notices_arrive_in_order(self) -> None:
        for _ in range(min(3, len(self.on_their_way))):
            self._hear(self.on_their_way.pop(0))

    @precondition(lambda self: self.on_their_way)
    @rule(which=numbers)
    def a_notice_is_lost(self, which: int) -> None:
        self.on_their_way.pop(which % len(self.on_their_way))

    @precondition(lambda self: self.asked_at_ms is None)
    @rule()
    def a_snapshot_is_asked_for(self) -> None:
        self.asked_at_ms = self.redis.time_ms

    @precondition(lambda self: self.asked_at_ms is not None and self.answer is None)
    @rule()
    def the_snapshot_is_taken(self) -> None:
        self.answer = self.redis.snapshot(), self.redis.time_ms

    @precondition(lambda self: self.answer is not None)
    @rule()
    def the_snapshot_arrives(self) -> None:
        assert self.answer is not None
        assert self.asked_at_ms is not None
        (snapshot, taken_at_ms), self.answer = self.answer, None
        self._late(taken_at_ms)
        self.mirror.replace(snapshot, process_clock(self.asked_at_ms), self.redis.now)
        self.asked_at_ms = None
        self._in_epoch(snapshot.epoch)
        self.covered = snapshot.notice_id
        self.synchronised_epoch = max(self.synchronised_epoch, self.redis.number_of(snapshot.epoch))
        for target in set(TARGETS) - {limit.target for limit in snapshot.limits}:
            self._knows(target, snapshot.notice_id)

    # What has to hold.

    @rule(before=delays_ms, after=delays_ms)
    def once_synchronised_it_equals_redis_whatever_still_comes(self, before: int, after: int) -> None:
        if self.called is not None:
            self.the_reply_arrives()
        if self.answer is not None:
            self.the_snapshot_arrives()
        self.asked_at_ms = None
        for _ in range(3):
            self.redis.time_ms += 1
            self.a_snapshot_is_asked_for()
            self.redis.time_ms += before
            self.the_snapshot_is_taken()
            self.redis.time_ms += after
            self.the_snapshot_arrives()
            if not self.mirror.stale:
                break
        assert not self.mirror.stale
        self.equals_redis()
        for notice in reversed(self.on_their_way):
            self._hear(notice)
        self.equals_redis()

    def equals_redis(self) -> None:
        active = self.redis.active()
        known = self.mirror.limits()
        assert {t: limit.resume_at_ms for t, limit in known.items() if t in active} == {
            t: stored.resume_at_ms for t, stored in active.items()
        }
        assert {t: known[t].id for t in active} == {t: stored.id for t, stored in active.items()}
        assert {t: known[t].hold for t in active} == {t: stored.hold for t, stored in active.items()}
        for target in TARGETS:
            if target in active:
                late = self.mirror.deadline(target) - active[target].lifts_at
                assert -ROUNDING <= late <= self.longest_delay + ROUNDING
            elif target in known:
                # What is kept beyond its time has lifted by itself; what was cleared is gone.
                stored = self.redis.limits[target]
                assert stored.id == known[target].id
                late = known[target].deadline - stored.lifts_at
                assert late <= self.longest_delay + ROUNDING or known[target].deadline <= self.redis.now

    @invariant()
    def no_limit_is_shown_shorter_than_redis_set_it(self) -> None:
        for limit in self.mirror.limits().values():
            epochs = {epoch for epoch, event_id in self.redis.recorded if event_id == limit.id}
            lifts = [self.redis.recorded[epoch, limit.id].lifts_at for epoch in epochs]
            assert any(limit.deadline >= lifts_at - ROUNDING for lifts_at in lifts)

    @invariant()
    def reads_answer_what_the_mirror_holds(self) -> None:
        for target in TARGETS:
            if target.model is None:
                assert self.mirror.until[target.backend] == self.mirror.deadline(target)
            else:
                assert self.mirror.model_until[target.backend, target.model] == self.mirror.deadline(target)

    @invariant()
    def within_an_epoch_nothing_older_replaces_what_is_newer(self) -> None:
        for target, limit in self.mirror.limits().items():
            assert limit.id >= self.newest_known.get(target, FIRST_ID)
            self._knows(target, limit.id)

    @invariant()
    def it_knows_when_it_has_missed_something(self) -> None:
        if self.newest_epoch_heard > self.synchronised_epoch:
            assert self.mirror.stale
        if self.mirror.stale:
            return
        heard = [EntryId.parse(i) for epoch, i in self.heard if epoch == self.mirror.epoch]
        newest = max(heard, default=FIRST_ID)
        for notice in self.redis.published:
            notice_id = EntryId.parse(notice.id)
            if notice.epoch == self.mirror.epoch and self.covered < notice_id < newest:
                assert (notice.epoch, notice.id) in self.heard

    @invariant()
    def what_is_held_is_limited_until_its_end(self) -> None:
        for limit in self.mirror.limits().values():
            assert limit.held_until <= limit.deadline + ROUNDING
        for target, stored in self.redis.active().items():
            hold = self.redis.held(target)
            assert stored.resume_at_ms >= (hold.until_ms if hold else 0)

    def _learn_of_hand(self, reply: OwnReply) -> None:
        assert reply.limit is not None
        self.mirror.learn(reply.epoch, reply.limit, reply.now_ms, self.redis.now)
        if reply.epoch == self.mirror.epoch:
            known = self.mirror.limit(reply.limit.target)
            assert known is not None
            assert (known.id, known.resume_at_ms) == (reply.limit.id, reply.limit.resume_at_ms)

    def _in_epoch(self, epoch: str) -> None:
        if epoch != self.known_epoch:
            self.known_epoch, self.newest_known = epoch, {}

    def _knows(self, target: Target, event_id: EntryId) -> None:
        self.newest_known[target] = max(event_id, self.newest_known.get(target, FIRST_ID))

    def _collect(self) -> None:
        self.on_their_way += self.redis.published[self.collected :]
        self.collected = len(self.redis.published)

    def _hear(self, notice: Notice) -> None:
        self._late(notice.now_ms - self.redis.offset_ms)
        self.heard.add((notice.epoch, notice.id))
        self.newest_epoch_heard = max(self.newest_epoch_heard, self.redis.number_of(notice.epoch))
        self.mirror.apply(notice, self.redis.now)
        if notice.kind == "clear" and notice.epoch == self.known_epoch:
            self._knows(notice.target, EntryId.parse(notice.id))

    def _late(self, sent_at_ms: int) -> None:
        self.longest_delay = max(self.longest_delay, (self.redis.time_ms - sent_at_ms) / 1000)


TestMirror = MirrorMachine.TestCase
TestMirror.settings = settings(max_examples=4 * settings().max_examples, stateful_step_count=50)
