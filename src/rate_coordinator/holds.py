"""What somebody orders by hand: to hold a target, or to release it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from rate_coordinator import clock
from rate_coordinator.mirror import Limit
from rate_coordinator.models import Hold, ReportResult
from rate_coordinator.replies import HoldReply, Reply, WireHold, write_members
from rate_coordinator.targets import Target, is_unicode
from rate_coordinator.waits import LONGEST_CAP_SECONDS, to_ms

LONGEST_NOTE = 256
"""Characters of a note: a notice has to stay small."""


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """One order on its way."""

    target: Target
    wait_ms: int
    """For how long to hold it; 0 releases it."""
    note: str
    made_at: float
    """On this process's clock."""
    age_ms: int = 0
    """How long before that the hold was made that it puts back; 0 where it puts none back."""
    restores: str | None = None
    """ID of the event whose hold it puts back."""

    @property
    def deadline(self) -> float:
        """When a hold ends that is taken at once, on this process's clock."""
        return self.made_at + self.wait_ms / 1000

    @classmethod
    def restoring(cls, limit: Limit, hold: Hold, at: float) -> Self:
        """Return the order that puts a hold back which Redis has lost.

        Args:
            limit: As it is known.
            hold: What it tells of its hold.
            at: The present moment, on this process's clock; before the hold ends.
        """
        remaining_ms = to_ms(limit.held_until - at)
        age_ms = max(1, hold.wait_ms - remaining_ms)
        return cls(limit.target, remaining_ms, hold.note, at, age_ms, str(limit.id))

    def to_wire(self, reporter: str, at: float) -> WireHold:
        """Return it as the script takes it.

        Args:
            reporter: The name under which it is recorded.
            at: The present moment, on this process's clock. What puts a hold back is shortened by the time that has
                passed; what is ordered now counts from when the server takes it.
        """
        details: dict[str, object] = {"reporter": reporter}
        late_ms = 0
        if self.wait_ms:
            details |= {"asked_wait_seconds": self.wait_ms / 1000, "note": self.note}
        if self.restores is not None:
            details["restores"] = self.restores
            late_ms = min(int((at - self.made_at) * 1000), self.wait_ms - 1)
        age_ms = self.age_ms + late_ms
        return WireHold(self.target, self.wait_ms - late_ms, age_ms, write_members(details))


def read_hold(target: Target, seconds: object, note: object) -> HoldOrder:
    """Check what somebody orders; see ``RateLimitCoordinator.hold``.

    Raises:
        ValueError: Something cannot be used.
    """
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds <= LONGEST_CAP_SECONDS:
        most = f"{LONGEST_CAP_SECONDS:g}"
        raise ValueError(f"a hold must last for a number of seconds above 0 and at most {most}, not {seconds!r:.80}")
    if not (isinstance(note, str) and len(note) <= LONGEST_NOTE and is_unicode(note)):
        raise ValueError(f"reason must be a string of at most {LONGEST_NOTE} characters, not {note!r:.80}")
    return HoldOrder(target, to_ms(seconds), note, clock.now())


def held_result(order: HoldOrder, answer: HoldReply, reply: Reply) -> ReportResult:
    """Return what is told to whoever ordered a hold."""
    resume_at_ms = answer.limit.resume_at_ms if answer.limit else reply.now_ms
    return ReportResult(
        resume_at=clock.server_time(resume_at_ms),
        seconds_remaining=(resume_at_ms - reply.now_ms) / 1000,
        extended=answer.extended,
        clamped=False,
        delivered=True,
        event_id=str(answer.event_id),
        wait_seconds=order.wait_ms / 1000,
    )


def release_of(target: Target) -> HoldOrder:
    """Return the order that releases a target."""
    return HoldOrder(target, 0, "", clock.now())
