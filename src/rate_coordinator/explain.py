"""What the mirror knows, told to people: which limits there are, and where they come from. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rate_coordinator import clock
from rate_coordinator.mirror import Limit, Mirror
from rate_coordinator.models import FIRST_ID, ActiveLimit, EntryId, Explanation, RateLimitEvent
from rate_coordinator.targets import Target


def describe_limits(mirror: Mirror, server_now_ms: int, at: float) -> tuple[ActiveLimit, ...]:
    """Return every limit that is active at a moment, the longest first.

    Args:
        mirror: What is known.
        server_now_ms: The server's clock at that moment, in milliseconds.
        at: The moment on this process's clock.
    """
    limits = [_describe(target, deadline, known, server_now_ms, at) for target, deadline, known in mirror.active(at)]
    return tuple(sorted(limits, key=lambda limit: (-limit.seconds_remaining, str(limit.target))))


def explain(mirror: Mirror, target: Target, events: Sequence[RateLimitEvent], at: float) -> Explanation:
    """Return where a target's limit comes from.

    Args:
        mirror: What is known.
        target: A backend, or a model, which its backend's limit holds as well.
        events: Of the stream, newest first.
        at: The moment on this process's clock.
    """
    scope = [target] if target.model is None else [target, Target(target.backend)]
    limits = [limit for limit in map(mirror.limit, scope) if limit is not None and limit.deadline > at]
    limit = max(limits, key=lambda limit: limit.deadline, default=None)
    cause = _cause(limit, events) if limit else None
    held = max(limits, key=lambda limit: limit.held_until, default=None)
    hold = held.hold if held and held.held_until > at else None
    others = [event for event in events if event.target in scope and (cause is None or event.id != cause.id)]
    since = [event for event in others if cause and EntryId.parse(event.id) > EntryId.parse(cause.id)]
    remaining = max(0.0, mirror.lifts_at(target) - at)
    return Explanation(
        backend=target.backend,
        model=target.model,
        limited=remaining > 0,
        seconds_remaining=remaining,
        resume_at=clock.server_time(limit.resume_at_ms) if limit else None,
        cause=cause,
        before=tuple(others[len(since) :]),
        since=tuple(since),
        held_until=clock.server_time(hold.until_ms) if hold else None,
        note=hold.note if hold else "",
    )


def _describe(target: Target, deadline: float, known: Limit | None, server_now_ms: int, at: float) -> ActiveLimit:
    delivered = known is not None and known.deadline >= deadline
    resume_at_ms = known.resume_at_ms if known and delivered else server_now_ms + int((deadline - at) * 1000)
    details = known.details if known else None
    hold = known.hold if known and known.held_until > at else None
    return ActiveLimit(
        backend=target.backend,
        model=target.model,
        seconds_remaining=deadline - at,
        resume_at=clock.server_time(resume_at_ms),
        wait_seconds=(known.wait_ms or 0) / 1000 if known and delivered else 0.0,
        reason=details.reason if details else "rate_limit",
        job_id=details.job_id if details else None,
        sheet_num=details.sheet_num if details else None,
        reporter=details.reporter if details else "",
        delivered=delivered,
        held_until=clock.server_time(hold.until_ms) if hold else None,
        note=hold.note if hold else "",
        held_by=hold.reporter if hold else "",
    )


def _cause(limit: Limit, events: Sequence[RateLimitEvent]) -> RateLimitEvent | None:
    """Return the event that set a limit, from the stream or, where that was cut, from what is kept beside the limit."""
    resume_at = clock.server_time(limit.resume_at_ms)
    found = next((event for event in events if event.id == str(limit.id)), None)
    if found is not None and found.kind in ("release", "clear") and limit.details is not None:
        # Such an event leaves what another one had set.
        found = next((event for event in events if event.id == limit.details.restores), None)
    if found is not None:
        return found
    for event in events:
        # Where Redis lost which event it was, the resume time tells.
        if limit.id == FIRST_ID and event.extended and event.target == limit.target and event.resume_at == resume_at:
            return event
    if limit.id == FIRST_ID or limit.details is None:
        return None
    by_hand = limit.hold is not None and limit.hold.until_ms == limit.resume_at_ms
    return RateLimitEvent(
        backend_type=limit.target.backend,
        model=limit.target.model,
        kind="hold" if by_hand else "report",
        note=limit.hold.note if limit.hold and by_hand else "",
        detected_at=clock.server_time(limit.id.ms),
        suggested_wait_seconds=(limit.wait_ms or 0) / 1000,
        id=str(limit.id),
        extended=True,
        resume_at=resume_at,
        **limit.details.shared(),
    )
