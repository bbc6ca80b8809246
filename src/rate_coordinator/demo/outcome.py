"""What the demo measured: the JSON document at its end, and the same as rows of a table."""

from __future__ import annotations

from typing import Self

from rate_coordinator.demo.board import Board, WorkerState
from rate_coordinator.demo.messages import Count
from rate_coordinator.demo.plan import Frozen, PhaseName, Plan
from rate_coordinator.demo.redis_program import RedisProgram


class ProcessOutcome(Frozen):
    """What one process met."""

    name: str
    pid: int
    calls_accepted: int
    calls_refused: int
    heard_after_ms: float | None
    """From the moment when the first 429 was about to be reported to the moment when this process's mirror showed a
    limit. Both on the monotonic clock, which the processes share. None if it never did."""
    heard_from: str | None
    """Whose report that was; its own name if it had to be refused itself."""

    @classmethod
    def of(cls, worker: WorkerState, pid: int, first_refused_at: float | None) -> Self:
        """Return what a worker has told."""
        heard = worker.first_heard
        after_ms = None
        if heard is not None and first_refused_at is not None:
            after_ms = round((heard.at - first_refused_at) * 1000, 3)
        return cls(
            name=worker.name,
            pid=pid,
            calls_accepted=worker.accepted,
            calls_refused=worker.refused,
            heard_after_ms=after_ms,
            heard_from=heard.reporter if heard else None,
        )


class PhaseOutcome(Frozen):
    """What the four processes met, one way or the other."""

    phase: PhaseName
    calls_made: int
    calls_accepted: int
    """As the upstream counted."""
    calls_refused: int
    """429s, as the upstream counted."""
    wall_seconds: float
    first_refused: str | None
    """Which process met the first 429."""
    processes: tuple[ProcessOutcome, ...]

    @classmethod
    def of(cls, board: Board, count: Count, pids: dict[str, int]) -> Self:
        """Return what is on the board, and what the upstream counted."""
        first_at, first_name = board.first_refusal or (None, None)
        return cls(
            phase=board.phase,
            calls_made=count.accepted + count.refused,
            calls_accepted=count.accepted,
            calls_refused=count.refused,
            wall_seconds=round(board.wall_seconds, 3),
            first_refused=first_name,
            processes=tuple(ProcessOutcome.of(w, pids[w.name], first_at) for w in board.workers.values()),
        )

    @property
    def others(self) -> list[ProcessOutcome]:
        """All but the process that met the first 429."""
        return [process for process in self.processes if process.name != self.first_refused]

    @property
    def last_heard_ms(self) -> float | None:
        """How long it took until the last of the others knew; None if one never did."""
        times = [process.heard_after_ms for process in self.others]
        return max((time for time in times if time is not None), default=None) if None not in times else None


class Outcome(Frozen):
    """Both ways."""

    redis: RedisProgram
    plan: Plan
    alone: PhaseOutcome
    together: PhaseOutcome
    seconds: float
    """How long the whole demo took."""


Row = tuple[str, str, str]
"""What it is, without coordination, with it."""

HEADINGS: Row = ("", "without coordination", "with coordination")


def rows(outcome: Outcome) -> list[Row]:
    """Return the table at the end of the demo."""
    both = (outcome.alone, outcome.together)

    def row(label: str, *cells: str) -> Row:
        return (label, cells[0], cells[1])

    table = [
        row("calls made", *(str(phase.calls_made) for phase in both)),
        row("  accepted", *(str(phase.calls_accepted) for phase in both)),
        row("  refused with 429", *(str(phase.calls_refused) for phase in both)),
        row("the first 429 went to", *(phase.first_refused or "nobody" for phase in both)),
    ]
    for alone, together in zip(outcome.alone.processes, outcome.together.processes, strict=True):
        cells = (_how_heard(alone, outcome.alone), _how_heard(together, outcome.together))
        table.append(row(f"  {alone.name} knew after", *cells))
    table.append(row("time until all was done", *(f"{phase.wall_seconds:.1f} s" for phase in both)))
    return table


def verdict(outcome: Outcome) -> list[str]:
    """Return in a few sentences what the table shows."""
    alone, together = outcome.alone, outcome.together
    said = [
        f"The same work under the same limit: {alone.calls_refused} calls refused without coordination, "
        f"{together.calls_refused} with it."
    ]
    if alone.last_heard_ms is not None and together.last_heard_ms is not None:
        # Two calls that are refused in the same moment are not told of each other in time.
        told = sum(process.heard_from != process.name for process in together.others)
        said.append(
            f"After the first 429, the last process knew of it in {alone.last_heard_ms:.1f} ms without, in "
            f"{together.last_heard_ms:.1f} ms with it: {told} of the other {len(together.others)} were told and did "
            "not have to be refused themselves."
        )
    return said


def _how_heard(process: ProcessOutcome, phase: PhaseOutcome) -> str:
    if process.heard_after_ms is None:
        return "never"
    if process.heard_from != process.name:
        how = f"told by {process.heard_from}"
    else:
        how = "its own report" if process.name == phase.first_refused else "refused itself"
    return f"{process.heard_after_ms:.1f} ms, {how}"
