"""Turns what callers pass into what the engine takes, or says what is wrong with it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeGuard, get_args

from rate_coordinator import clock
from rate_coordinator.models import EntryId, Reason
from rate_coordinator.reports import Report
from rate_coordinator.targets import Target, is_unicode
from rate_coordinator.waits import is_finite, read_wait

LONGEST_JOB_ID = 1024
"""Characters of a job ID: a notice has to stay small."""

_REASONS = frozenset(get_args(Reason))

Item = str | tuple[str, str | None]
"""A backend, or a backend and one of its models."""


def read_report(
    target: Target,
    wait_seconds: object,
    cap_seconds: float,
    job_id: object,
    sheet_num: object,
    reason: object,
    sent_at: object,
    pace_epoch: int | None = None,
) -> Report:
    """Check everything that a report carries; see ``RateLimitCoordinator.report_rate_limit``.

    Raises:
        ValueError: Something cannot be used.
    """
    wait = read_wait(wait_seconds, cap_seconds)
    if not (job_id is None or (isinstance(job_id, str) and len(job_id) <= LONGEST_JOB_ID and is_unicode(job_id))):
        raise ValueError(f"job_id must be a string of at most {LONGEST_JOB_ID} characters, not {job_id!r:.80}")
    if not (sheet_num is None or (isinstance(sheet_num, int) and -(2**63) <= sheet_num < 2**63)) or sheet_num is True:
        raise ValueError(f"sheet_num must be a 64-bit integer, not {sheet_num!r:.80}")
    if not _is_reason(reason):
        raise ValueError(f"reason must be one of {', '.join(get_args(Reason))}, not {reason!r:.80}")
    return Report(target, wait, job_id, sheet_num, reason, clock.now(), _age_ms(sent_at), pace_epoch)


def read_since(since: object, server_now_ms: int) -> str:
    """Return the oldest entry ID that is wanted; see ``RateLimitCoordinator.events``.

    Raises:
        ValueError: ``since`` cannot be used.
    """
    if since is None:
        return "-"
    if isinstance(since, str):
        return f"({EntryId.parse(since)}"
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise ValueError(f"since must tell its time zone, but {since!r} does not")
        return str(max(0, int(since.timestamp() * 1000)))
    seconds = since.total_seconds() if isinstance(since, timedelta) else since
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise ValueError(f"since must be a time, an entry ID or a number of seconds back, not {since!r:.80}")
    return str(max(0, server_now_ms - min(server_now_ms, int(seconds * 1000))))


def read_count(count: object) -> int | None:
    """Return how many are wanted at most; None for all.

    Raises:
        ValueError: ``count`` is neither None nor a whole number of at least 0.
    """
    if count is None or (isinstance(count, int) and not isinstance(count, bool) and count >= 0):
        return count
    raise ValueError(f"count must be a whole number of at least 0, not {count!r:.80}")


def read_items(backends: object) -> list[Target]:
    """Return the targets of a list of backends, or of pairs of backend and model.

    Raises:
        ValueError: There is none, or one cannot be used.
    """
    if isinstance(backends, str):
        raise ValueError(f"backends must be a list of names, not the string {backends!r:.80}")
    if not isinstance(backends, Iterable):
        raise ValueError(f"backends must be a list of names, not {backends!r:.80}")
    targets = []
    for item in backends:
        if isinstance(item, str):
            targets.append(Target.of(item))
        elif isinstance(item, tuple) and len(item) == 2:
            targets.append(Target.of(*item))
        else:
            raise ValueError(f"each backend must be a name or a pair of backend and model, not {item!r:.80}")
    if not targets:
        raise ValueError("at least one backend is needed to wait for")
    return targets


def _is_reason(reason: object) -> TypeGuard[Reason]:
    return isinstance(reason, str) and reason in _REASONS


def _age_ms(sent_at: object) -> int | None:
    if sent_at is None:
        return None
    if not is_finite(sent_at):
        raise ValueError(f"sent_at must be a time as told by time.monotonic(), not {sent_at!r:.80}")
    age = time.monotonic() - sent_at
    if age < 0:
        raise ValueError(f"sent_at must be a time as told by time.monotonic(), but {sent_at!r} is still to come")
    return int(age * 1000)
