"""What people are told of the limits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rate_coordinator.clock import server_time
from rate_coordinator.explain import describe_limits, explain
from rate_coordinator.mirror import Mirror
from rate_coordinator.models import FIRST_ID, EntryId, RateLimitEvent, ReportDetails
from rate_coordinator.snapshots import Snapshot, SnapshotLimit
from rate_coordinator.targets import Target

NOW_MS = 1_700_000_000_000
AT = 50.0
OPENAI, GPT, CLAUDE = Target("openai"), Target("openai", "gpt"), Target("claude")
DETAILS = ReportDetails(
    job_id="job", sheet_num=7, reason="quota", asked_wait_seconds=90_000.0, clamped="above_cap", reporter="host:1"
)


def told(
    target: Target, seconds: int, cause_id: EntryId = FIRST_ID, details: ReportDetails | None = None
) -> SnapshotLimit:
    return SnapshotLimit(target, NOW_MS + seconds * 1000, cause_id, None if details is None else 30_000, details)


def mirror_of(*limits: SnapshotLimit) -> Mirror:
    mirror = Mirror()
    mirror.replace(Snapshot("epoch", EntryId(NOW_MS, 9), NOW_MS, limits), AT, AT)
    return mirror


def event(target: Target, number: int, **more: object) -> RateLimitEvent:
    return RateLimitEvent.model_validate(
        {
            "backend_type": target.backend,
            "model": target.model,
            "detected_at": server_time(NOW_MS + number),
            "suggested_wait_seconds": 30.0,
            "id": f"{NOW_MS + number}-0",
            **more,
        }
    )


def test_limits_that_lift_in_the_same_instant_are_described_by_name() -> None:
    mirror = mirror_of(told(GPT, 10), told(OPENAI, 10), told(CLAUDE, 10))

    assert [limit.target for limit in describe_limits(mirror, NOW_MS, AT)] == [CLAUDE, OPENAI, GPT]


def test_limits_are_described_the_longest_first() -> None:
    mirror = mirror_of(told(OPENAI, 10), told(GPT, 30, EntryId(NOW_MS, 1), DETAILS), told(CLAUDE, 20))

    gpt, claude, openai = describe_limits(mirror, NOW_MS, AT)

    assert [limit.target for limit in (gpt, claude, openai)] == [GPT, CLAUDE, OPENAI]
    assert gpt.seconds_remaining == pytest.approx(30.0)
    assert gpt.resume_at == server_time(NOW_MS + 30_000)
    assert (gpt.job_id, gpt.sheet_num, gpt.reason, gpt.reporter, gpt.wait_seconds) == (
        "job",
        7,
        "quota",
        "host:1",
        30.0,
    )
    assert gpt.delivered
    assert (claude.reporter, claude.wait_seconds) == ("", 0.0), "what is not known is left empty"


def test_what_has_lifted_is_not_described() -> None:
    """P11: what remains is told, not what was configured."""
    mirror = mirror_of(told(OPENAI, 10), told(CLAUDE, 20))

    (claude,) = describe_limits(mirror, NOW_MS + 15_000, AT + 15)

    assert claude.target == CLAUDE
    assert claude.seconds_remaining == pytest.approx(5.0)
    assert describe_limits(mirror, NOW_MS + 20_000, AT + 20) == ()


def test_a_limit_that_only_this_process_knows_of_is_not_delivered() -> None:
    mirror = mirror_of(told(OPENAI, 10))
    mirror.presume(OPENAI, AT + 60)
    mirror.presume(CLAUDE, AT + 5)

    openai, claude = describe_limits(mirror, NOW_MS, AT)

    assert (openai.delivered, claude.delivered) == (False, False)
    assert openai.seconds_remaining == pytest.approx(60.0)
    assert abs(openai.resume_at - server_time(NOW_MS + 60_000)) < timedelta(milliseconds=2)


def test_a_limit_is_explained_by_the_event_that_set_it_and_those_before() -> None:
    """P54: no limit without a visible cause."""
    cause = event(OPENAI, 5)
    events = [event(OPENAI, 6), cause, event(CLAUDE, 4), event(OPENAI, 3, kind="clear"), event(GPT, 2)]
    mirror = mirror_of(told(OPENAI, 30, EntryId(NOW_MS + 5, 0), DETAILS))

    explanation = explain(mirror, OPENAI, events, AT)

    assert explanation.limited
    assert explanation.seconds_remaining == pytest.approx(30.0)
    assert explanation.resume_at == server_time(NOW_MS + 30_000)
    assert explanation.cause == cause
    assert explanation.since == (events[0],)
    assert explanation.before == (events[3],)


def test_a_cause_that_the_stream_no_longer_holds_is_told_from_what_is_kept_beside_the_limit() -> None:
    """P54."""
    explanation = explain(mirror_of(told(OPENAI, 30, EntryId(NOW_MS + 5, 0), DETAILS)), OPENAI, [], AT)

    cause = explanation.cause
    assert cause is not None
    assert cause.id == f"{NOW_MS + 5}-0"
    assert cause.detected_at == server_time(NOW_MS + 5)
    assert (cause.job_id, cause.sheet_num, cause.reason, cause.reporter) == ("job", 7, "quota", "host:1")
    assert (cause.asked_wait_seconds, cause.clamped, cause.suggested_wait_seconds) == (90_000.0, "above_cap", 30.0)


def test_a_cause_whose_id_is_lost_is_found_by_its_resume_time() -> None:
    """P54."""
    resume_at = server_time(NOW_MS + 30_000)
    cause = event(OPENAI, 3, extended=True, resume_at=resume_at)
    events = [event(OPENAI, 5, resume_at=resume_at), event(GPT, 4, extended=True, resume_at=resume_at), cause]

    assert explain(mirror_of(told(OPENAI, 30)), OPENAI, events, AT).cause == cause
    assert explain(mirror_of(told(OPENAI, 31)), OPENAI, events, AT).cause is None


@pytest.mark.parametrize(("backend_seconds", "model_seconds"), [(30, 10), (10, 30)])
def test_a_model_is_explained_by_the_longer_of_its_own_limit_and_its_backends(
    backend_seconds: int, model_seconds: int
) -> None:
    of_backend, of_model = event(OPENAI, 1), event(GPT, 2)
    mirror = mirror_of(
        told(OPENAI, backend_seconds, EntryId(NOW_MS + 1, 0)), told(GPT, model_seconds, EntryId(NOW_MS + 2, 0))
    )

    explanation = explain(mirror, GPT, [of_model, of_backend], AT)

    assert explanation.cause == (of_backend if backend_seconds > model_seconds else of_model)
    assert explanation.seconds_remaining == pytest.approx(30.0)
    assert len(explanation.before) + len(explanation.since) == 1


def test_what_is_clear_has_a_past_but_no_cause() -> None:
    events = [event(OPENAI, 5)]
    mirror = mirror_of(told(OPENAI, 30, EntryId(NOW_MS + 5, 0), DETAILS))

    explanation = explain(mirror, OPENAI, events, AT + 30)

    assert (explanation.limited, explanation.seconds_remaining, explanation.resume_at) == (False, 0.0, None)
    assert explanation.cause is None
    assert explanation.before == tuple(events)
