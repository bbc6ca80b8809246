"""What the mirror promises, one promise a test; ``test_mirror_machine`` mixes everything with everything."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rate_coordinator.mirror import EARLY_NOTICES, TRACKED_NAMES, Mirror
from rate_coordinator.models import FIRST_ID, EntryId, Notice
from rate_coordinator.snapshots import Snapshot, SnapshotLimit
from rate_coordinator.targets import Target
from rate_coordinator.waits import LONGEST_CAP_SECONDS
from tests.unit.model import SERVER_STARTED_MS, TARGETS, ModelRedis, OwnReply, process_clock, targets, waits_ms

OPENAI = Target("openai")
OPUS = Target("openai", "opus")

Change = tuple[Target, int | None]
"""A report of so many milliseconds, or (None) a clear."""

changes = st.lists(st.tuples(targets, st.one_of(waits_ms, st.none())), max_size=12)


class Process:
    """A mirror and when it hears what."""

    def __init__(self, redis: ModelRedis) -> None:
        self.redis = redis
        self.mirror = Mirror()

    def synchronise(self, before_ms: int = 1, after_ms: int = 0) -> None:
        sent_at = self.redis.now
        self.redis.time_ms += before_ms
        snapshot = self.redis.snapshot()
        self.redis.time_ms += after_ms
        self.mirror.replace(snapshot, sent_at, self.redis.now)

    def hear(self, *notices: Notice) -> None:
        for notice in notices:
            self.mirror.apply(notice, self.redis.now)

    def learn(self, reply: OwnReply, *, again: bool = False) -> None:
        assert reply.limit is not None
        self.mirror.learn(reply.epoch, reply.limit, reply.now_ms, self.redis.now, again=again)

    def resume_times(self) -> dict[Target, int]:
        """Return what the mirror holds of limits whose time has not come."""
        known = self.mirror.limits().items()
        return {target: limit.resume_at_ms for target, limit in known if limit.resume_at_ms > self.redis.now_ms}


def resume_times(redis: ModelRedis) -> dict[Target, int]:
    return {target: stored.resume_at_ms for target, stored in redis.active().items()}


def happen(redis: ModelRedis, what: Sequence[Change], gap_ms: int) -> list[Notice]:
    """Let changes happen one after the other and return the notices of them."""
    first = len(redis.published)
    for target, wait_ms in what:
        if wait_ms is None:
            redis.clear(target)
        else:
            redis.report(target, wait_ms)
        redis.time_ms += gap_ms
    return redis.published[first:]


@pytest.fixture
def redis() -> ModelRedis:
    return ModelRedis()


@pytest.fixture
def process(redis: ModelRedis) -> Process:
    process = Process(redis)
    process.synchronise()
    return process


# Convergence.


@given(waits=st.lists(st.integers(0, 60_000), min_size=1, max_size=8), data=st.data())
def test_whatever_the_order_of_reports_all_processes_end_at_the_longest_to_the_millisecond(
    waits: list[int], data: st.DataObject
) -> None:
    """P01."""
    ends = set()
    longest = max(waits)
    for _ in range(2):
        redis = ModelRedis()
        processes = [Process(redis) for _ in range(3)]
        for process in processes:
            process.synchronise(before_ms=0)
        for wait_ms in data.draw(st.permutations(waits)):
            redis.report(OPENAI, wait_ms)
        for process in processes:
            process.hear(*data.draw(st.permutations(redis.published)))
            ends.add(tuple(process.resume_times().values()))

    assert ends == {(SERVER_STARTED_MS + longest,) if longest else ()}


@given(what=changes, gap_ms=st.integers(0, 2_000), data=st.data())
def test_all_notices_in_any_order_and_doubled_make_the_mirror_equal_to_redis(
    what: list[Change], gap_ms: int, data: st.DataObject
) -> None:
    redis = ModelRedis()
    process = Process(redis)
    process.synchronise()
    notices = happen(redis, what, gap_ms)
    doubled = data.draw(st.lists(st.sampled_from(notices), max_size=4)) if notices else []

    process.hear(*data.draw(st.permutations([*notices, *doubled])))

    assert process.resume_times() == resume_times(redis)


@given(before=changes, what=changes, gap_ms=st.integers(0, 2_000), data=st.data())
def test_a_snapshot_and_any_of_the_notices_in_any_order_make_the_mirror_equal_to_redis(
    before: list[Change], what: list[Change], gap_ms: int, data: st.DataObject
) -> None:
    redis = ModelRedis()
    process = Process(redis)
    process.synchronise()
    notices = happen(redis, before, gap_ms)
    asked_at = redis.now
    redis.time_ms += 1
    snapshot = redis.snapshot()
    later = happen(redis, what, gap_ms)
    early = data.draw(st.lists(st.sampled_from(notices), unique_by=id)) if notices else []
    rest: list[Notice | Snapshot] = data.draw(st.permutations([*notices, *later, snapshot]))

    process.hear(*early)
    for message in rest:
        if isinstance(message, Snapshot):
            process.mirror.replace(message, asked_at, redis.now)
        else:
            process.hear(message)

    assert process.resume_times() == resume_times(redis)


@given(what=changes, gap_ms=st.integers(0, 2_000), data=st.data())
def test_a_gap_is_noticed_as_soon_as_something_later_is_heard_and_healed_by_a_snapshot(
    what: list[Change], gap_ms: int, data: st.DataObject
) -> None:
    redis = ModelRedis()
    process = Process(redis)
    process.synchronise()
    notices = happen(redis, what, gap_ms)
    heard = data.draw(st.lists(st.sampled_from(notices), unique_by=id)) if notices else []
    newest = max((notices.index(notice) for notice in heard), default=-1)
    missed = len(heard) < newest + 1

    process.hear(*heard)

    assert process.mirror.stale or not missed
    assert (process.mirror.gaps > 0) == process.mirror.stale
    redis.time_ms += 1
    process.synchronise()
    assert not process.mirror.stale
    assert process.resume_times() == resume_times(redis)


def test_in_order_and_complete_nothing_is_ever_missed(redis: ModelRedis, process: Process) -> None:
    for wait_ms in range(1_000, 20_000, 1_000):
        redis.report(OPENAI, wait_ms)
        process.hear(redis.published[-1])

    assert not process.mirror.stale
    assert process.mirror.gaps == 0


def test_a_gap_that_was_found_after_a_snapshot_was_asked_for_needs_another(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 1_000)
    asked_at = redis.now
    snapshot = redis.snapshot()
    redis.time_ms += 1
    redis.report(OPENAI, 2_000)
    redis.report(OPENAI, 3_000)
    process.hear(redis.published[-1])

    process.mirror.replace(snapshot, asked_at, redis.now)

    assert process.mirror.stale
    redis.time_ms += 1
    process.synchronise()
    assert not process.mirror.stale


def test_a_gap_that_was_found_in_the_instant_in_which_a_snapshot_was_asked_for_needs_another(
    redis: ModelRedis, process: Process
) -> None:
    snapshot = redis.snapshot()
    redis.report(OPENAI, 1_000)
    redis.report(OPUS, 1_000)
    process.hear(redis.published[-1])

    process.mirror.replace(snapshot, redis.now, redis.now)

    assert process.mirror.stale


def test_before_the_first_snapshot_a_mirror_is_stale_and_keeps_what_it_hears(redis: ModelRedis) -> None:
    process = Process(redis)
    assert process.mirror.stale
    snapshot = redis.snapshot()
    redis.report(OPENAI, 1_000)
    process.hear(*redis.published)
    assert process.resume_times() == {}

    process.mirror.replace(snapshot, redis.now, redis.now)

    assert process.resume_times() == resume_times(redis)


def test_more_early_notices_than_are_kept_leave_the_mirror_stale(redis: ModelRedis) -> None:
    process = Process(redis)
    snapshot = redis.snapshot()
    for wait_ms in range(1, EARLY_NOTICES + 3):
        redis.report(OPENAI, wait_ms)
    process.hear(*redis.published)

    process.mirror.replace(snapshot, process_clock(-1), redis.now)

    assert process.mirror.stale


# The order within an epoch.


def test_an_older_limit_never_overwrites_a_newer_one(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 1_000)
    redis.report(OPENAI, 2_000)
    older, newer = redis.published

    process.hear(newer, older)

    assert process.resume_times() == resume_times(redis)


def test_an_older_limit_never_undoes_a_newer_clear(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 1_000)
    redis.clear(OPENAI)
    limit, clear = redis.published

    process.hear(clear, limit)

    assert process.resume_times() == {}


def test_an_older_clear_never_lifts_a_newer_limit(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 1_000)
    redis.clear(OPENAI)
    redis.report(OPENAI, 2_000)
    first, clear, second = redis.published

    process.hear(second, clear, first)

    assert process.resume_times() == resume_times(redis)


def test_a_late_snapshot_never_undoes_a_newer_notice(redis: ModelRedis, process: Process) -> None:
    redis.report(OPUS, 1_000)
    process.hear(redis.published[-1])
    snapshot = redis.snapshot()
    redis.report(OPENAI, 1_000)
    redis.clear(OPUS)
    process.hear(*redis.published[-2:])

    process.mirror.replace(snapshot, redis.now, redis.now)

    assert process.resume_times() == resume_times(redis) != {}


def test_a_snapshot_of_before_the_one_that_is_known_is_passed_over(redis: ModelRedis, process: Process) -> None:
    redis.report(OPUS, 1_000)
    asked_at, older = redis.now, redis.snapshot()
    redis.report(OPENAI, 1_000)
    redis.clear(OPUS)
    process.synchronise()

    assert process.mirror.replace(older, asked_at - 1, redis.now) == set()
    assert process.resume_times() == resume_times(redis)


@given(stored_ms=st.integers(1, 60_000), again=st.integers(0, 100))
def test_what_is_told_again_changes_nothing(stored_ms: int, again: int) -> None:
    redis = ModelRedis()
    process = Process(redis)
    process.synchronise()
    redis.report(OPENAI, stored_ms)
    process.hear(*redis.published)
    before = process.mirror.limits()[OPENAI]
    redis.time_ms += min(again, stored_ms - 1)

    process.hear(*redis.published)
    process.synchronise(before_ms=0)

    after = process.mirror.limits()[OPENAI]
    assert after.details is not None
    assert before.details is not None
    assert after.details.shared() == before.details.shared()
    assert (after.id, after.resume_at_ms) == (before.id, before.resume_at_ms)
    assert after.deadline == pytest.approx(before.deadline, abs=1e-6)


# Deadlines: the told time is a floor.


@given(
    wait_ms=st.integers(1, 10**9),
    way=st.sampled_from(["notice", "snapshot", "reply"]),
    delay_ms=st.integers(0, 5_000),
)
def test_a_deadline_is_never_before_the_resume_time_and_late_by_no_more_than_the_message_was(
    wait_ms: int, way: str, delay_ms: int
) -> None:
    """P09 P15: whole milliseconds, never rounded down."""
    redis = ModelRedis()
    process = Process(redis)
    process.synchronise()
    reply = redis.report(OPENAI, wait_ms)
    lifts_at = redis.active()[OPENAI].lifts_at

    if way == "snapshot":
        process.synchronise(before_ms=0, after_ms=delay_ms)
    else:
        redis.time_ms += delay_ms
        if way == "notice":
            process.hear(*redis.published)
        else:
            process.learn(reply)

    assert -1e-6 <= process.mirror.deadline(OPENAI) - lifts_at <= delay_ms / 1000 + 1e-6


def test_hearing_it_sooner_by_another_way_makes_the_deadline_more_exact(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 10_000)
    redis.time_ms += 500
    process.hear(*redis.published)
    assert process.mirror.deadline(OPENAI) - redis.now == pytest.approx(10.0)

    process.synchronise(before_ms=0, after_ms=100)

    assert process.mirror.deadline(OPENAI) - redis.now == pytest.approx(9.5)


def test_a_foreign_limit_of_the_far_future_is_not_believed(process: Process) -> None:
    """P06."""
    told = SnapshotLimit(OPENAI, 253_402_300_799_000, FIRST_ID, None, None)

    process.mirror.replace(Snapshot("epoch 1", FIRST_ID, process.redis.now_ms, (told,)), 0.0, process.redis.now)

    assert process.mirror.deadline(OPENAI) - process.redis.now == LONGEST_CAP_SECONDS


def test_a_backends_limit_holds_all_its_models_and_a_models_only_itself(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 1_000)
    redis.report(OPUS, 5_000)
    process.hear(*redis.published)
    mirror = process.mirror

    assert mirror.lifts_at(Target("openai", "other")) == mirror.deadline(OPENAI) > 0.0
    assert mirror.lifts_at(OPUS) == mirror.deadline(OPUS) > mirror.deadline(OPENAI)
    assert mirror.lifts_at(OPENAI) == mirror.deadline(OPENAI)
    assert mirror.lifts_at(Target("other")) == 0.0


def test_a_clear_of_a_backend_names_its_models_too(redis: ModelRedis, process: Process) -> None:
    for target in TARGETS:
        redis.report(target, 1_000)
    process.hear(*redis.published)
    mirror, now = process.mirror, redis.now

    assert set(mirror.targets_of(None, None, now)) == set(TARGETS)
    assert set(mirror.targets_of("a", None, now)) == {Target("a"), Target("a", "m")}
    assert set(mirror.targets_of("a", "m", now)) == {Target("a", "m")}
    assert mirror.targets_of(None, None, now + 10) == []


# This process's own calls.


def test_the_own_reply_shows_at_once_and_its_notice_changes_nothing(redis: ModelRedis, process: Process) -> None:
    process.learn(redis.report(OPENAI, 1_000))
    assert process.resume_times() == resume_times(redis)
    before = process.mirror.limits()

    process.hear(*redis.published)

    assert process.resume_times() == resume_times(redis)
    assert process.mirror.deadline(OPENAI) == before[OPENAI].deadline
    assert not process.mirror.stale


def test_the_own_reply_after_a_snapshot_that_contains_it_changes_nothing(redis: ModelRedis, process: Process) -> None:
    reply = redis.report(OPENAI, 1_000)
    process.synchronise()

    process.learn(reply)

    assert process.resume_times() == resume_times(redis)


def test_an_own_reply_never_undoes_a_clear_that_was_heard(redis: ModelRedis, process: Process) -> None:
    reply = redis.report(OPENAI, 1_000)
    redis.clear(OPENAI)
    process.hear(*redis.published)

    process.learn(reply)

    assert process.resume_times() == {}


@pytest.mark.parametrize("again", [False, True])
def test_an_own_reply_never_undoes_a_clear_that_a_snapshot_told_of(
    redis: ModelRedis, process: Process, again: bool
) -> None:
    """A reply that was lost comes again later: it tells of the past, at the time of today."""
    reply = redis.report(OPENAI, 10_000)
    redis.clear(OPENAI)
    process.synchronise()
    if again:
        redis.time_ms += 1_000
        reply = redis.again(reply)

    process.learn(reply, again=again)

    assert process.resume_times() == {}


def test_a_reply_that_tells_of_a_limit_whose_cause_is_lost_is_believed(redis: ModelRedis, process: Process) -> None:
    redis.time_ms += 1
    limit = SnapshotLimit(OPENAI, redis.now_ms + 1_000, FIRST_ID, None, None)

    process.mirror.learn(redis.epoch, limit, redis.now_ms, redis.now)

    assert process.mirror.deadline(OPENAI) - redis.now == pytest.approx(1.0)


def test_an_old_reply_does_not_shorten_a_limit_whose_cause_is_lost(redis: ModelRedis, process: Process) -> None:
    first = redis.report(OPENAI, 10_000)
    longer = redis.report(OPENAI, 20_000)
    assert longer.limit
    redis.time_ms += 5
    lost = longer.limit._replace(id=FIRST_ID, wait_ms=None)
    snapshot = redis.snapshot()._replace(limits=(lost,))
    process.mirror.replace(snapshot, redis.now, redis.now)
    assert process.mirror.deadline(OPENAI) - redis.now == pytest.approx(19.995)
    redis.time_ms += 100

    process.learn(redis.again(first), again=True)
    assert process.mirror.deadline(OPENAI) - redis.now == pytest.approx(19.895)

    process.learn(redis.again(longer), again=True)
    limit = process.mirror.limit(OPENAI)
    assert limit
    assert (limit.id, limit.resume_at_ms) == (longer.limit.id, longer.limit.resume_at_ms), "of the same one it is told"


def test_the_reply_to_a_clear_lifts_the_limit_at_once_whichever_is_heard_first(redis: ModelRedis) -> None:
    for notice_first in (False, True):
        process = Process(redis)
        process.synchronise()
        redis.report(OPENAI, 1_000)
        process.hear(redis.published[-1])
        ((_, cleared_id),) = redis.clear(OPENAI)
        if notice_first:
            process.hear(redis.published[-1])

        process.mirror.learn_clear(redis.epoch, OPENAI, cleared_id)

        assert process.mirror.limits() == {}
        process.hear(redis.published[-2])
        assert process.mirror.limits() == {}
        assert not process.mirror.stale


def test_an_own_clear_never_lifts_a_newer_limit(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 1_000)
    ((_, cleared_id),) = redis.clear(OPENAI)
    redis.report(OPENAI, 2_000)
    process.hear(*redis.published)

    process.mirror.learn_clear(redis.epoch, OPENAI, cleared_id)

    assert process.resume_times() == resume_times(redis)


def test_what_is_presumed_limits_until_its_last_report_is_settled(process: Process) -> None:
    mirror, now = process.mirror, process.redis.now
    mirror.track(OPENAI)

    assert mirror.presume(OPENAI, now + 5) == {OPENAI}
    mirror.presume(OPENAI, now + 2)
    assert mirror.until == {"openai": now + 5}
    assert [target for target, _, _ in mirror.active(now)] == [OPENAI]
    assert mirror.targets_of(None, None, now) == [], "Redis has nothing to clear"

    assert mirror.settle(OPENAI) == set()
    assert mirror.deadline(OPENAI) == now + 5
    assert mirror.settle(OPENAI) == {OPENAI}
    assert mirror.until == {"openai": 0.0}
    assert mirror.active(now) == []


def test_what_is_presumed_never_shortens_what_redis_told(redis: ModelRedis, process: Process) -> None:
    process.learn(redis.report(OPENAI, 10_000))
    told = process.mirror.deadline(OPENAI)

    process.mirror.presume(OPENAI, redis.now + 1)
    assert process.mirror.deadline(OPENAI) == told
    process.mirror.settle(OPENAI)
    assert process.mirror.deadline(OPENAI) == told


def test_a_snapshot_does_not_settle_what_is_presumed(redis: ModelRedis, process: Process) -> None:
    process.mirror.presume(OPENAI, redis.now + 5)

    process.synchronise()

    assert process.mirror.deadline(OPENAI) > redis.now


# Another epoch.


def test_another_epoch_forgets_the_old_order(redis: ModelRedis, process: Process) -> None:
    """IDs go back after a flush: the old order must not stop the new one."""
    redis.time_ms += 10_000
    redis.report(OPENAI, 60_000)
    redis.report(OPUS, 60_000)
    process.hear(*redis.published)
    redis.flush()
    redis.offset_ms -= 5_000
    redis.report(OPENAI, 1_000)
    assert EntryId.parse(redis.published[-1].id) < EntryId.parse(redis.published[0].id)

    process.hear(redis.published[-1])
    assert process.mirror.stale
    process.synchronise()
    while process.mirror.stale:
        process.synchronise()

    assert process.resume_times() == resume_times(redis)
    redis.clear(OPENAI)
    process.hear(redis.published[-1])
    assert process.resume_times() == {}
    assert not process.mirror.stale


def test_another_epoch_has_its_own_gaps_and_clears(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 60_000)
    redis.clear(OPENAI)
    process.hear(*redis.published)
    redis.flush()
    redis.offset_ms -= 5_000
    redis.report(OPENAI, 1_000)
    process.synchronise()

    redis.report(OPENAI, 2_000)
    process.hear(redis.published[-1])
    assert process.resume_times() == resume_times(redis)
    assert not process.mirror.stale

    redis.report(OPUS, 1_000)
    redis.report(OPENAI, 3_000)
    process.hear(redis.published[-1])
    assert process.mirror.stale, "the one before was not heard"


def test_a_notice_of_an_epoch_that_began_after_a_snapshot_is_not_forgotten_with_it(
    redis: ModelRedis, process: Process
) -> None:
    asked_at = redis.now
    snapshot = redis.snapshot()
    redis.time_ms += 1
    redis.flush()
    redis.report(OPENAI, 1_000)
    process.hear(*redis.published)

    process.mirror.replace(snapshot, asked_at, redis.now)

    assert process.mirror.stale
    redis.time_ms += 1
    process.synchronise()
    assert process.resume_times() == resume_times(redis) != {}
    assert not process.mirror.stale


def test_a_clear_of_another_epoch_is_left_to_the_snapshot(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 60_000)
    process.hear(*redis.published)

    assert process.mirror.learn_clear("another epoch", OPENAI, EntryId(2**50, 0)) == set()
    assert process.resume_times() == resume_times(redis) != {}


def test_a_server_that_forgot_its_newest_writes_is_followed_even_without_a_new_epoch(
    redis: ModelRedis, process: Process
) -> None:
    """Its last second of the log was not on disk, and its run ID may not be asked for."""
    redis.report(OPUS, 60_000)
    last_id, notice_id, limits = redis.last_id, redis.notice_id, redis.limits.copy()
    redis.time_ms += 1
    redis.report(OPENAI, 60_000)
    redis.report(OPUS, 70_000)
    process.synchronise()
    redis.last_id, redis.notice_id, redis.limits = last_id, notice_id, limits

    redis.time_ms += 1
    process.synchronise()

    assert process.resume_times() == resume_times(redis) != {}
    redis.report(OPENAI, 1_000)
    process.hear(redis.published[-1])
    assert process.resume_times() == resume_times(redis)
    assert not process.mirror.stale


def test_a_late_notice_of_an_epoch_that_is_over_changes_nothing(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 60_000)
    redis.flush()
    process.synchronise()

    process.hear(*redis.published)
    redis.time_ms += 1
    assert process.resume_times() == {}
    process.synchronise()

    assert process.resume_times() == {}
    assert not process.mirror.stale


def test_a_reply_of_an_unknown_epoch_limits_until_the_snapshot_that_contains_it(
    redis: ModelRedis, process: Process
) -> None:
    redis.begin_epoch()
    process.learn(redis.report(OPENAI, 10_000))
    assert process.mirror.deadline(OPENAI) - redis.now == pytest.approx(10.0)
    assert process.mirror.stale

    process.synchronise()

    assert process.resume_times() == resume_times(redis)
    assert not process.mirror.stale
    process.hear(*redis.published)
    redis.clear(OPENAI)
    process.hear(redis.published[-1])
    assert process.mirror.deadline(OPENAI) == 0.0, "nothing is held any more"


def test_a_reply_of_an_unknown_epoch_outlives_a_snapshot_of_that_epoch_from_before_it(
    redis: ModelRedis, process: Process
) -> None:
    redis.begin_epoch()
    asked_at = redis.now
    snapshot = redis.snapshot()
    redis.time_ms += 1
    process.learn(redis.report(OPENAI, 10_000))

    process.mirror.replace(snapshot, asked_at, redis.now)

    assert process.mirror.deadline(OPENAI) - redis.now == pytest.approx(10.0)


def test_what_was_replied_in_an_epoch_that_nothing_else_told_of_is_known_to_be_lacking_in_the_next(
    redis: ModelRedis, process: Process
) -> None:
    process.learn(redis.report(OPUS, 5_000))
    process.synchronise()
    redis.begin_epoch()
    reply = redis.report(OPENAI, 10_000)
    process.learn(reply)
    process.learn(redis.report(OPUS, 60_000))
    redis.flush()
    redis.time_ms += 1

    lacking = process.mirror.behind_in(redis.snapshot(), redis.now, redis.now)

    assert {(limit.target, limit.resume_at_ms) for limit in lacking} == {
        (OPENAI, reply.now_ms + 10_000),
        (OPUS, reply.now_ms + 60_000),
    }
    assert process.mirror.behind_in(redis.snapshot(), redis.now - 1, redis.now)[0].target == OPUS
    process.synchronise()
    assert process.mirror.deadline(OPENAI) == 0.0, "whoever did not put it back follows Redis"


@pytest.mark.parametrize(
    ("answered_by", "snapshot_of", "lacking"),
    [("new", "old", True), ("old", "old", False), ("", "old", False), ("new", "", False)],
)
def test_what_another_server_replied_is_lacking_wherever_the_snapshot_comes_from(
    redis: ModelRedis, process: Process, answered_by: str, snapshot_of: str, lacking: bool
) -> None:
    reply = redis.report(OPENAI, 10_000)
    assert reply.limit
    process.mirror.learn("another epoch", reply.limit, reply.now_ms, redis.now, run_id=answered_by)
    redis.flush()

    snapshot = redis.snapshot()._replace(run_id=snapshot_of)
    (limit,) = process.mirror.behind_in(snapshot, redis.now, redis.now)

    assert (limit.generation != process.mirror.clock.generation) is lacking


def test_a_reply_to_a_clear_lifts_what_was_replied_in_the_same_unknown_epoch(
    redis: ModelRedis, process: Process
) -> None:
    redis.begin_epoch()
    process.learn(redis.report(OPENAI, 10_000))
    ((_, cleared_id),) = redis.clear(OPENAI)

    assert process.mirror.learn_clear("another epoch", OPENAI, cleared_id) == set()
    assert process.mirror.learn_clear(redis.epoch, OPUS, cleared_id) == set()
    assert process.mirror.deadline(OPENAI) > redis.now
    assert process.mirror.learn_clear(redis.epoch, OPENAI, cleared_id) == {OPENAI}

    assert process.mirror.deadline(OPENAI) == 0.0
    redis.flush()
    assert process.mirror.behind_in(redis.snapshot(), redis.now, redis.now) == []


# A server's clock that is stepped.


steps_ms = st.one_of(st.integers(5_000, 50_000), st.integers(5_000, 10_000_000), st.integers(-10_000_000, -5_000))


@given(
    wait_ms=st.integers(60_000, 600_000),
    step_ms=steps_ms,
    what=st.lists(st.sampled_from(["snapshot", "doubled", "own short report", "drop", "wait"]), max_size=6),
    delay_ms=st.integers(0, 200),
)
@example(wait_ms=600_000, step_ms=5_000, what=["own short report"], delay_ms=0)
def test_a_stepped_server_clock_neither_shortens_nor_prolongs_a_limit_that_is_known(
    wait_ms: int, step_ms: int, what: list[str], delay_ms: int
) -> None:
    """P13."""
    redis = ModelRedis()
    process = Process(redis)
    process.synchronise()
    redis.report(OPENAI, wait_ms)
    process.hear(*redis.published)
    before = process.mirror.deadline(OPENAI)
    assert before == pytest.approx(redis.active()[OPENAI].lifts_at, abs=1e-6)
    redis.offset_ms += step_ms

    for event in [*what, "snapshot"]:
        redis.time_ms += delay_ms
        if event == "snapshot":
            process.synchronise(delay_ms, delay_ms)
        elif event == "doubled":
            process.hear(*redis.published)
        elif event == "own short report" and step_ms > 0:  # Put back, the limit is set anew by a report.
            reply = redis.report(OPENAI, 0)
            if reply.limit:
                process.learn(reply)
        elif event == "drop":
            process.mirror.drop_lifted(redis.now)
        elif event == "wait":
            redis.time_ms += wait_ms // 10
        assert process.mirror.deadline(OPENAI) == pytest.approx(before, abs=1e-6)


@given(wait_ms=st.integers(1_000, 60_000), step_ms=st.integers(60_000, 10_000_000))
def test_a_clock_that_was_put_back_does_not_bring_back_a_limit_whose_time_is_over(wait_ms: int, step_ms: int) -> None:
    """P13: Redis keeps it for as long as its clock needs to catch up."""
    redis = ModelRedis()
    process = Process(redis)
    process.synchronise()
    redis.report(OPENAI, wait_ms)
    process.hear(*redis.published)
    redis.offset_ms -= step_ms
    redis.time_ms += wait_ms

    for _ in range(3):
        process.synchronise()
        process.mirror.drop_lifted(redis.now)
        redis.time_ms += 10
        assert redis.active()
        assert process.mirror.lifts_at(OPENAI) <= redis.now
        assert process.mirror.active(redis.now) == []


@given(wait_ms=st.integers(1_000, 60_000), step_ms=st.integers(60_000, 10_000_000))
def test_who_comes_after_the_clock_was_put_back_holds_a_limit_no_longer_than_its_own_wait(
    wait_ms: int, step_ms: int
) -> None:
    """P13."""
    redis = ModelRedis()
    redis.report(OPENAI, wait_ms)
    redis.offset_ms -= step_ms
    process = Process(redis)

    process.synchronise(before_ms=0)

    assert process.mirror.deadline(OPENAI) - redis.now == pytest.approx(wait_ms / 1000)


def test_a_flushed_database_lifts_all_limits_unless_the_clock_was_put_forward(
    redis: ModelRedis, process: Process
) -> None:
    redis.report(OPENAI, 60_000)
    process.hear(*redis.published)
    redis.flush()

    process.synchronise()

    assert process.mirror.limits() == {}


# Memory.


def test_what_has_lifted_is_dropped_and_reads_clear(redis: ModelRedis, process: Process) -> None:
    process.mirror.track(OPENAI)
    redis.report(OPENAI, 1_000)
    process.hear(*redis.published)
    redis.time_ms += 2_000

    process.synchronise()
    process.mirror.drop_lifted(redis.now)

    assert process.mirror.limits() == {}
    assert process.mirror.until == {"openai": 0.0}


def test_names_that_were_asked_for_but_are_clear_are_remembered_only_up_to_a_bound(process: Process) -> None:
    process.mirror.presume(OPENAI, 1e9)
    process.mirror.track(OPENAI)
    for number in range(2 * TRACKED_NAMES + 10):
        process.mirror.track(Target("backend", f"model {number}"))
        process.mirror.track(Target(f"backend {number}"))

    assert len(process.mirror.until) <= TRACKED_NAMES + 1
    assert len(process.mirror.model_until) <= TRACKED_NAMES + 1
    assert process.mirror.until["openai"] == 1e9


def test_a_notice_without_entry_ids_changes_nothing(redis: ModelRedis, process: Process) -> None:
    redis.report(OPENAI, 1_000)
    broken = redis.published[0].model_copy(update={"previous_id": "nonsense"})

    with pytest.raises(ValueError, match="entry ID"):
        process.hear(broken)

    assert process.mirror.limits() == {}
    assert not process.mirror.stale
