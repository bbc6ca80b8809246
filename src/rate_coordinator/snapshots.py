"""What Redis holds, as a snapshot or the reply to a report tells it."""

from __future__ import annotations

from typing import NamedTuple

from rate_coordinator.models import EntryId, ReportDetails
from rate_coordinator.targets import Target
from rate_coordinator.waits import LONGEST_CAP_SECONDS


class SnapshotLimit(NamedTuple):
    """One limit."""

    target: Target
    resume_at_ms: int
    """On the server's clock."""
    id: EntryId
    """The event that set the resume time; ``FIRST_ID`` where that is not known."""
    wait_ms: int | None
    """The wait that the event stored; None where that is not known."""
    details: ReportDetails | None

    def remaining_seconds(self, now_ms: int) -> float:
        """Return how long it still lasts from a moment of the server's clock on; 0.0 if it does not."""
        # More than its own wait ahead is impossible, unless the server's clock was put back.
        longest_ms = LONGEST_CAP_SECONDS * 1000 if self.wait_ms is None else self.wait_ms
        return max(0.0, min(self.resume_at_ms - now_ms, longest_ms, LONGEST_CAP_SECONDS * 1000) / 1000)

    def held_seconds(self, now_ms: int) -> float:
        """Return how long it is still held by hand from a moment of the server's clock on; 0.0 if it is not."""
        hold = self.details.hold if self.details else None
        return max(0.0, min(hold.until_ms - now_ms, hold.wait_ms) / 1000) if hold else 0.0


class Snapshot(NamedTuple):
    """All active limits, read in one call."""

    epoch: str
    notice_id: EntryId
    """The last notice that is contained."""
    now_ms: int
    limits: tuple[SnapshotLimit, ...]
    paces: tuple[tuple[Target, int], ...] = ()
    """Every pace that is remembered, and when it is forgotten, in ms of the server's clock."""
    run_id: str = ""
    """Of the server process that answered; empty where it may not be asked."""
