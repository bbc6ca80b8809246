"""One report on its way: what it carries, its form on the wire, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Self

from rate_coordinator import clock
from rate_coordinator.mirror import Limit
from rate_coordinator.models import FIRST_ID, RateLimitEvent, Reason, ReportDetails, ReportResult
from rate_coordinator.replies import TEACHES_NOTHING, Reply, ReportReply, WireReport
from rate_coordinator.targets import Target
from rate_coordinator.waits import Wait, to_ms

compact_json = json.JSONEncoder(separators=(",", ":")).encode
"""Writes a dictionary without spaces. ``json.dumps`` would make a new encoder for every call."""


UNKNOWN_AGE_MS = 60_000
"""How old a limit of which only the resume time is known is believed to be: a clear of the last minute wins."""


@dataclass(slots=True, eq=False)
class Report:
    """One report on its way."""

    target: Target
    wait: Wait
    job_id: str | None
    sheet_num: int | None
    reason: Reason | str
    reported_at: float
    """On this process's clock."""
    call_age_ms: int | None = None
    """How long before the report the refused call had been sent."""
    pace_epoch: int | None = None
    """What the refused call was admitted under; None where it was not admitted."""
    restores: str | None = None
    """ID of the event whose limit it puts back."""
    age_ms: int = 0
    """How long before ``reported_at`` that limit had been reported."""
    settled: asyncio.Future[ReportResult] | None = None

    @classmethod
    def restoring(cls, limit: Limit, at: float) -> Self:
        """Make a report that puts a limit back which Redis has lost.

        Args:
            limit: As it is known.
            at: The present moment, on this process's clock.
        """
        remaining_ms = to_ms(limit.deadline - at)
        wait_ms = limit.wait_ms
        if wait_ms is None and limit.id != FIRST_ID:
            # Known from a reply to somebody else's shorter report, which names the event that set it, and so when.
            wait_ms = limit.resume_at_ms - limit.id.ms
        age_ms = UNKNOWN_AGE_MS if wait_ms is None else max(1, wait_ms - remaining_ms)
        told = limit.details or ReportDetails(asked_wait_seconds=remaining_ms / 1000)
        return cls(
            limit.target,
            Wait(told.asked_wait_seconds, remaining_ms, told.clamped),
            told.job_id,
            told.sheet_num,
            told.reason,
            at,
            told.call_age_ms,
            restores=str(limit.id),
            age_ms=age_ms,
        )

    @property
    def deadline(self) -> float:
        """When its wait is over, on this process's clock."""
        return self.reported_at + self.wait.wait_ms / 1000

    def to_wire(self, reporter: str, *, late: bool) -> WireReport:
        """Return it as the script takes it.

        Args:
            reporter: The name under which it is recorded.
            late: Whether the wait is shortened by the time that has passed since.
        """
        # Whole milliseconds, rounded down: what is taken off must not be more than what has passed.
        late_ms = int((clock.now() - self.reported_at) * 1000) if late else 0
        details = {
            "backend": self.target.backend,
            "model": self.target.model,
            "job_id": self.job_id,
            "sheet_num": self.sheet_num,
            "reason": self.reason,
            "asked_wait_seconds": _json_number(self.wait.asked_seconds),
            "clamped": self.wait.clamped,
            "late_ms": late_ms,
            "call_age_ms": self.call_age_ms,
            "reporter": reporter,
        }
        if self.restores is not None:
            details["restores"] = self.restores
        members = compact_json(details)[1:-1]
        wait_ms = max(0, self.wait.wait_ms - late_ms)
        # An upstream that is overloaded, a quota that is used up, or what was refused long ago tells of no rate.
        teaches = self.reason == "rate_limit" and self.restores is None and late_ms == 0 and self.wait.wait_ms > 0
        epoch = self.pace_epoch if teaches else TEACHES_NOTHING
        return WireReport(self.target, wait_ms, late_ms, self.age_ms + late_ms, members, self.call_age_ms, epoch)

    def to_event(self, reporter: str, sent: WireReport, answer: ReportReply) -> RateLimitEvent:
        """Return the event that Redis recorded."""
        return RateLimitEvent(
            backend_type=self.target.backend,
            model=self.target.model,
            detected_at=clock.server_time(answer.event_id.ms),
            suggested_wait_seconds=0.0 if answer.cleared else sent.wait_ms / 1000,
            id=str(answer.event_id),
            extended=answer.extended,
            resume_at=clock.server_time(answer.event_resume_at_ms) if answer.event_resume_at_ms else None,
            **self.details(reporter, sent).shared() | ({"clamped": "cleared"} if answer.cleared else {}),
        )

    def details(self, reporter: str, sent: WireReport) -> ReportDetails:
        """Return what is told of it in events and notices."""
        return ReportDetails(
            job_id=self.job_id,
            sheet_num=self.sheet_num,
            reason=self.reason,
            asked_wait_seconds=self.wait.asked_seconds,
            clamped=self.wait.clamped,
            late_ms=sent.late_ms,
            call_age_ms=self.call_age_ms,
            reporter=reporter,
            restores=self.restores,
        )

    def delivered(self, answer: ReportReply, reply: Reply) -> ReportResult:
        """Return what the reporter is told when Redis has recorded it."""
        return ReportResult(
            resume_at=clock.server_time(answer.resume_at_ms) if answer.resume_at_ms else None,
            seconds_remaining=max(0.0, (answer.resume_at_ms - reply.now_ms) / 1000),
            extended=answer.extended,
            clamped=answer.cleared or self.wait.clamped is not None,
            delivered=True,
            event_id=str(answer.event_id),
            wait_seconds=0.0 if answer.cleared else self.wait.wait_ms / 1000,
        )

    def undelivered(self, seconds_remaining: float) -> ReportResult:
        """Return what the reporter is told when Redis is away."""
        return ReportResult(
            resume_at=None,
            seconds_remaining=seconds_remaining,
            extended=False,
            clamped=self.wait.clamped is not None,
            delivered=False,
            wait_seconds=self.wait.wait_ms / 1000,
        )


def _json_number(value: float) -> float | str:
    """Return a float as JSON can hold it: what is not finite becomes the string that pydantic reads back."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
