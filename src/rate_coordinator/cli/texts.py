"""How targets, times and durations are written. Pure."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from rate_coordinator import ActiveLimit, PaceStatus, RateLimitEvent

BAR_CELLS = 10


def target(backend: str, model: str | None) -> str:
    """Return a target as it is called in ``active_limits``."""
    return backend if model is None else f"{backend}/{model}"


def printable(text: str) -> str:
    """Return a text on one line and without control characters, which could do anything to a terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def seconds(duration: float) -> str:
    """Return a duration in seconds, rounded up to a tenth: a told wait is never too short."""
    return f"{math.ceil(round(duration * 10, 6)) / 10:.1f} s"


def exact(duration: float) -> str:
    """Return a duration as short as it can be written, for waits that people chose."""
    return f"{duration:.10g} s"


def clock_time(moment: datetime, now: datetime | None = None) -> str:
    """Return a moment in local time, to the second, rounded up; with the date unless it is today's.

    Args:
        moment: Timezone-aware.
        now: Timezone-aware; the present time if left out.
    """
    local = (moment + timedelta(microseconds=999_999)).astimezone()
    today = (now or datetime.now().astimezone()).astimezone().date()
    return local.strftime("%H:%M:%S" if local.date() == today else "%Y-%m-%d %H:%M:%S")


def log_time(moment: datetime) -> str:
    """Return a moment in local time for a line of a log."""
    return moment.astimezone().isoformat(sep=" ", timespec="milliseconds")


def bar(remaining_seconds: float, whole_seconds: float, *, full: str = "█", empty: str = "░") -> str:
    """Return a bar of what is left of a wait."""
    whole = max(whole_seconds, remaining_seconds)
    cells = math.ceil(BAR_CELLS * remaining_seconds / whole) if whole > 0 else 0
    return full * cells + empty * (BAR_CELLS - cells)


def who(source: ActiveLimit | RateLimitEvent) -> str:
    """Return who reported: the reporter, and the job and sheet it worked on."""
    parts = [printable(source.reporter) or "unknown"]
    if source.job_id is not None:
        parts.append(f"job {printable(source.job_id)}")
    if source.sheet_num is not None:
        parts.append(f"sheet {source.sheet_num}")
    return ", ".join(parts)


def why(limit: ActiveLimit) -> str:
    """Return why a target is limited: the reason, and where it is held by hand, the note and, if sooner, until when."""
    reason = printable(limit.reason)
    if limit.held_until is None:
        return reason
    note = f": {printable(limit.note)}" if limit.note else ""
    if limit.held_until == limit.resume_at:
        return f"hold{note}"
    return f"{reason}; hold until {clock_time(limit.held_until)}{note}"


def asked(event: RateLimitEvent) -> str:
    """Return what a report asked for, and what of it counts."""
    if event.clamped is None:
        return exact(event.asked_wait_seconds)
    why = printable(event.clamped).replace("_", " ")
    return f"{exact(event.asked_wait_seconds)}, of which {exact(event.suggested_wait_seconds)} count ({why})"


def pace_line(pace: PaceStatus) -> str:
    """Return a pace as a line."""
    name = printable(target(pace.backend, pace.model))
    learned = f"{pace.rate:.3g} calls per second" if pace.rate else "still to be learned"
    ceiling = f", last refused at {pace.ceiling:.3g}" if pace.ceiling else ""
    admitted = f"; {pace.fleet_per_second:.3g} admitted" if pace.fleet_per_second else ""
    return f"{name}: {learned}{ceiling}{admitted}; forgotten in {seconds(pace.forgets_seconds)}"


def event_line(event: RateLimitEvent) -> str:
    """Return an event as a line of a log."""
    name = printable(target(event.backend_type, event.model)) if event.backend_type else "everything"
    head = f"{log_time(event.detected_at)}  {event.kind:<7}  {name}"
    if event.probe is not None:
        return f"{head}  a call was let through and served: lifted  by {who(event)}"
    if event.kind == "pace":
        learned = f"{event.pace_rate:.3g} calls per second" if event.pace_rate else "forgotten"
        return f"{head}  {learned}"
    if event.kind in ("clear", "release"):
        return f"{head}  by {who(event)}"
    if event.kind == "hold":
        note = f"  {printable(event.note)}" if event.note else ""
        return f"{head}  {exact(event.suggested_wait_seconds)}{note}  by {who(event)}"
    effect = f"until {clock_time(event.resume_at)}" if event.extended and event.resume_at else "changed nothing"
    return f"{head}  {asked(event)}  {effect}  {printable(event.reason)}  by {who(event)}"
