"""What is known of the four workers while they work. Pure: messages in, state out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rate_coordinator.demo.messages import Accepted, AnyMessage, BackingOff, Calling, Done, Heard, Ready, Refused
from rate_coordinator.demo.plan import PhaseName

Doing = Literal["starting", "ready", "calling", "backing off", "done"]


@dataclass
class WorkerState:
    """One worker, as far as it has told."""

    name: str
    doing: Doing = "starting"
    accepted: int = 0
    refused: int = 0
    limited_until: float = 0.0
    """When the limit lifts that it knows of, on the monotonic clock."""
    wait_seconds: float = 0.0
    """How long it was to wait when it began to back off."""
    limit_from: str = ""
    """Whose report the limit comes from that it backs off from."""
    first_heard: Heard | None = None
    """How its mirror first came to show a limit."""
    last_told_at: float = 0.0

    def apply(self, message: AnyMessage) -> None:
        """Take in what the worker told."""
        self.last_told_at = message.at
        match message:
            case Ready():
                self.doing = "ready"
            case Calling():
                self.doing = "calling"
            case Accepted():
                self.accepted += 1
            case Refused():
                self.refused += 1
            case Heard():
                self.first_heard = self.first_heard or message
                self.limited_until = message.at + message.seconds_remaining
            case BackingOff():
                self.doing = "backing off"
                self.limit_from = message.reporter
                self.wait_seconds = message.seconds_remaining
                self.limited_until = message.at + message.seconds_remaining
            case Done():
                self.doing = "done"

    def seconds_left(self, now: float) -> float:
        """Return for how long it still backs off; 0.0 if it does not."""
        return max(0.0, self.limited_until - now) if self.doing == "backing off" else 0.0


@dataclass
class Board:
    """All workers of one phase."""

    phase: PhaseName
    workers: dict[str, WorkerState]
    first_refusal: tuple[float, str] | None = None
    """When the first 429 was about to be reported, and by whom."""
    began_at: float | None = None
    """When they were all told to begin."""

    @classmethod
    def of(cls, phase: PhaseName, names: list[str]) -> Board:
        """Return a board of workers that are about to start."""
        return cls(phase, {name: WorkerState(name) for name in names})

    def apply(self, name: str, message: AnyMessage) -> None:
        """Take in what a worker told."""
        self.workers[name].apply(message)
        if isinstance(message, Refused):
            # Messages of different workers arrive in any order: their times count.
            this = (message.at, name)
            self.first_refusal = min(self.first_refusal or this, this)

    def all_are(self, doing: Doing) -> bool:
        """Return whether every worker does this."""
        return all(worker.doing == doing for worker in self.workers.values())

    @property
    def wall_seconds(self) -> float:
        """Seconds from the beginning until the last worker told something."""
        return max(w.last_told_at for w in self.workers.values()) - (self.began_at or 0.0)
