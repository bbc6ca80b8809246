"""The reports of the last hour."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator.clock import server_time
from rate_coordinator.eventlog import RECENT_SECONDS, EventLog
from rate_coordinator.models import EntryId, Notice, RateLimitEvent

HOUR_MS = int(RECENT_SECONDS * 1000)
ids = st.builds(EntryId, st.integers(HOUR_MS, HOUR_MS + 50), st.integers(0, 3))


def report(entry_id: EntryId, **more: str) -> RateLimitEvent:
    return RateLimitEvent.model_validate(
        {
            "backend_type": "openai",
            "detected_at": server_time(entry_id.ms),
            "suggested_wait_seconds": 1.0,
            "id": str(entry_id),
            **more,
        }
    )


def put(log: EventLog, event: RateLimitEvent) -> None:
    log.add(EntryId.parse(event.id), event)


def recent_ids(log: EventLog, now_ms: int | None = None) -> list[EntryId]:
    return [EntryId.parse(event.id) for event in log.recent(now_ms)]


@given(st.lists(ids, max_size=60), st.integers(1, 20))
def test_reports_in_any_order_and_doubled_are_told_once_newest_first_and_bounded(
    added: list[EntryId], size: int
) -> None:
    log = EventLog(size)

    for entry_id in added:
        put(log, report(entry_id))

    told = recent_ids(log)
    assert told == sorted(set(told), reverse=True)
    assert len(told) <= size
    if len(set(added)) <= size:
        assert told == sorted(set(added), reverse=True)


@given(st.integers(1, 50), st.integers(0, 500))
def test_the_newest_are_kept(size: int, number: int) -> None:
    log = EventLog(size)

    for ms in range(number):
        put(log, report(EntryId(ms, 0)))

    assert [entry_id.ms for entry_id in recent_ids(log)] == list(range(number))[::-1][:size]


@given(st.lists(ids, unique=True, max_size=30), st.integers(0, 60))
def test_only_the_last_hour_is_told_and_kept(added: list[EntryId], past_ms: int) -> None:
    log = EventLog(100)
    for entry_id in added:
        put(log, report(entry_id))
    now_ms = 2 * HOUR_MS + past_ms
    expected = sorted((entry_id for entry_id in added if entry_id.ms >= HOUR_MS + past_ms), reverse=True)

    assert recent_ids(log, now_ms) == expected
    log.prune(now_ms)
    assert recent_ids(log) == expected


def test_what_is_made_later_is_made_once_and_only_when_somebody_looks() -> None:
    made: list[EntryId] = []

    def make(entry_id: EntryId) -> RateLimitEvent:
        made.append(entry_id)
        return report(entry_id)

    log = EventLog(10)
    for ms in (5, 5, 7):
        log.add(EntryId(ms, 0), partial(make, EntryId(ms, 0)))
    put(log, report(EntryId(5, 0), reporter="second"))
    assert made == []

    assert recent_ids(log) == [EntryId(7, 0), EntryId(5, 0)]
    assert log.recent(None) == log.recent(None)
    assert sorted(made) == [EntryId(5, 0), EntryId(7, 0)]


def test_a_notice_of_a_limit_tells_of_its_report() -> None:
    heard = Notice(
        kind="limit",
        epoch="epoch",
        id="5-0",
        previous_id="4-0",
        backend="openai",
        model="gpt",
        now_ms=5,
        resume_at_ms=2_005,
        wait_ms=2_000,
        job_id="job",
        reporter="host:1",
    )
    event = RateLimitEvent.of_notice(heard)
    assert (event.backend_type, event.model, event.id, event.kind) == ("openai", "gpt", "5-0", "report")
    assert (event.suggested_wait_seconds, event.job_id, event.reporter) == (2.0, "job", "host:1")
    assert (event.detected_at, event.resume_at) == (server_time(5), server_time(2_005))


def test_the_first_telling_of_an_event_stays() -> None:
    log = EventLog(10)
    put(log, report(EntryId(1, 0), reporter="first"))
    put(log, report(EntryId(1, 0), reporter="second"))
    assert [event.reporter for event in log.recent(None)] == ["first"]


def test_what_is_told_is_the_callers_own_list() -> None:
    log = EventLog(10)
    put(log, report(EntryId(1, 0)))
    log.recent(None).clear()
    assert len(log.recent(None)) == 1


def test_everything_can_be_forgotten() -> None:
    log = EventLog(10)
    put(log, report(EntryId(5, 0)))
    log.clear()
    assert log.recent(None) == []
    put(log, report(EntryId(1, 0)))
    assert recent_ids(log) == [EntryId(1, 0)]


@pytest.mark.parametrize("text", ["", "5", "-", "5-", "-5", "a-b", "1-2-3", "1.5-0", " 1-0", "1-0\n", "9" * 40 + "-0"])
def test_what_is_no_entry_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="entry ID"):
        EntryId.parse(text)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_an_entry_id_comes_back_as_it_was(ms: int, seq: int) -> None:
    assert EntryId.parse(str(EntryId(ms, seq))) == EntryId(ms, seq)
