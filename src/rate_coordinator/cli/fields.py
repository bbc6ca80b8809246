"""What ``--json`` prints about limits and events: stable names, times in ISO 8601 with zone, durations in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime

from rate_coordinator import ActiveLimit, Notice, PaceStatus, RateLimitEvent, ReportResult
from rate_coordinator.cli import texts

Fields = dict[str, object]


def of_target(backend: str | None, model: str | None) -> Fields:
    """Return what is meant; everything is None for all targets."""
    return {
        "target": None if backend is None else texts.target(backend, model),
        "backend": backend,
        "model": model,
    }


def of_limit(limit: ActiveLimit) -> Fields:
    """Return an active limit."""
    return {
        **of_target(limit.backend, limit.model),
        "seconds_remaining": limit.seconds_remaining,
        "resume_at": moment(limit.resume_at),
        "wait_seconds": limit.wait_seconds,
        "reason": limit.reason,
        "reporter": limit.reporter,
        "job_id": limit.job_id,
        "sheet_num": limit.sheet_num,
        "held_until": moment(limit.held_until),
        "held_by": limit.held_by or None,
        "note": limit.note,
    }


def of_pace(pace: PaceStatus) -> Fields:
    """Return a pace that is remembered; what is still to be learned is None."""
    return {
        **of_target(pace.backend, pace.model),
        "rate": pace.rate or None,
        "ceiling": pace.ceiling or None,
        "admitted_per_second": pace.fleet_per_second,
        "forgets_seconds": pace.forgets_seconds,
        "processes": pace.processes,
    }


def of_event(event: RateLimitEvent) -> Fields:
    """Return an event of the stream."""
    return {
        "id": event.id,
        "kind": event.kind,
        # A clear of everything that found nothing names no backend.
        **of_target(event.backend_type or None, event.model),
        "detected_at": moment(event.detected_at),
        "asked_wait_seconds": number(event.asked_wait_seconds),
        "wait_seconds": event.suggested_wait_seconds,
        "clamped": event.clamped,
        "extended": event.extended,
        "resume_at": moment(event.resume_at),
        "reason": event.reason,
        "reporter": event.reporter,
        "job_id": event.job_id,
        "sheet_num": event.sheet_num,
        "late_seconds": event.late_ms / 1000,
        "call_age_seconds": None if event.call_age_ms is None else event.call_age_ms / 1000,
        "pace_rate": event.pace_rate,
        "pace_ceiling": event.pace_ceiling,
        "probe": event.probe,
        "note": event.note,
    }


def of_result(asked_wait_seconds: float, result: ReportResult) -> Fields:
    """Return what became of a report."""
    return {
        "asked_wait_seconds": asked_wait_seconds,
        "wait_seconds": result.wait_seconds,
        "seconds_remaining": result.seconds_remaining,
        "resume_at": moment(result.resume_at),
        "extended": result.extended,
        "clamped": result.clamped,
        "event_id": result.event_id,
    }


def of_hold(backend: str, model: str | None, note: str, result: ReportResult) -> Fields:
    """Return what became of a hold."""
    return {
        **of_target(backend, model),
        "wait_seconds": result.wait_seconds,
        "note": note,
        "seconds_remaining": result.seconds_remaining,
        "resume_at": moment(result.resume_at),
        "extended": result.extended,
        "event_id": result.event_id,
    }


def of_release(backend: str, model: str | None, released: bool, remaining_seconds: float) -> Fields:
    """Return what became of a release, and for how long the target stays limited."""
    told = {"released": released, "limited": remaining_seconds > 0, "seconds_remaining": remaining_seconds}
    return {**of_target(backend, model), **told}


def of_clear(backend: str | None, model: str | None, cleared: int, held: Iterable[ActiveLimit]) -> Fields:
    """Return how many limits were lifted, and what stays held by hand."""
    names = [texts.target(limit.backend, limit.model) for limit in held]
    return {**of_target(backend, model), "cleared": cleared, "held": names}


def still_held(limits: Iterable[ActiveLimit], backend: str | None, model: str | None) -> list[ActiveLimit]:
    """Return those that are held by hand, of a backend or of one model; all without a backend."""
    return [
        limit
        for limit in limits
        if limit.held_until and backend in (None, limit.backend) and model in (None, limit.model)
    ]


def of_notice(notice: Notice) -> Fields:
    """Return a notice as it stands on the wire, and its times in the form that all commands use."""
    wire: Fields = json.loads(notice.model_dump_json())
    limits = notice.kind == "limit"
    return {
        "kind": notice.kind,
        **of_target(notice.backend, notice.model),
        "detected_at": moment(datetime.fromtimestamp(notice.now_ms / 1000, UTC)),
        "resume_at": moment(datetime.fromtimestamp(notice.resume_at_ms / 1000, UTC)) if limits else None,
        "wait_seconds": notice.wait_seconds,
        **wire,
    }


def moment(time: datetime | None) -> str | None:
    """Return a time in ISO 8601 with its zone."""
    return None if time is None else time.isoformat(timespec="milliseconds")


def number(value: float) -> float | str:
    """Return a number, as a text where JSON has none for what a worker may have asked for."""
    return value if value - value == 0 else str(value)
