"""How the demo is shown: as plain lines, or not at all until the end. ``live.py`` has the view for terminals."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rate_coordinator.demo.board import Board
from rate_coordinator.demo.messages import AnyMessage, BackingOff, Done, Refused
from rate_coordinator.demo.outcome import HEADINGS, Outcome, rows, verdict
from rate_coordinator.demo.plan import PhaseName, Plan
from rate_coordinator.demo.redis_program import RedisProgram

EXPLAINED: dict[PhaseName, tuple[str, str]] = {
    "alone": (
        "1. Without coordination",
        "Each process keeps to itself what it learns, so each has to be refused once before it backs off.",
    ),
    "together": (
        "2. With coordination",
        "The same program and the same work; now they share what they learn through Redis. One is refused and reports "
        "it, the others hear of it and back off without a call.",
    ),
}


def introduction(plan: Plan, redis: RedisProgram) -> str:
    """Return what is about to be seen."""
    return (
        f"{plan.workers} processes call one upstream over HTTP. It accepts {plan.calls_per_window} calls in "
        f"{plan.window_seconds:g} s and answers the rest with 429 and Retry-After. Each process needs "
        f"{plan.jobs_per_worker} accepted calls.\n"
        f"{redis} runs for this demo only; Ctrl-C ends everything."
    )


class View(Protocol):
    """Shows what happens."""

    def introduce(self, plan: Plan, redis: RedisProgram) -> None:
        """Say what is about to be seen."""
        ...

    def phase(self, board: Board) -> AbstractContextManager[object]:
        """Show a phase for as long as the context lasts."""
        ...

    def changed(self, board: Board, name: str, message: AnyMessage) -> None:
        """Show what a worker has just told."""
        ...

    def conclude(self, outcome: Outcome) -> None:
        """Show what was measured."""
        ...


class PlainView:
    """Lines of text, for a pipe or a log."""

    def introduce(self, plan: Plan, redis: RedisProgram) -> None:
        """Say what is about to be seen."""
        self._say(introduction(plan, redis))

    def phase(self, board: Board) -> AbstractContextManager[object]:
        """Head a phase."""
        title, explanation = EXPLAINED[board.phase]
        self._say(f"\n{title}\n{explanation}")
        return nullcontext()

    def changed(self, board: Board, name: str, message: AnyMessage) -> None:
        """Show refusals and waits, not each of the many calls."""
        match message:
            case Refused():
                said = f"is refused: 429, Retry-After {message.retry_after_seconds} s. It reports that"
            case BackingOff() if message.reporter == name:
                said = f"backs off for {message.seconds_remaining:.1f} s, because it was refused"
            case BackingOff():
                said = f"backs off for {message.seconds_remaining:.1f} s, because {message.reporter} was refused"
            case Done():
                worker = board.workers[name]
                said = f"is done: {worker.accepted} calls accepted, {worker.refused} refused"
            case _:
                return
        self._say(f"  {message.at - (board.began_at or message.at):6.3f} s  {name} {said}")

    def conclude(self, outcome: Outcome) -> None:
        """Print the table."""
        table = [HEADINGS, *rows(outcome)]
        widths = [max(len(line[column]) for line in table) for column in range(3)]
        self._say("\nWhat was measured")
        for line in table:
            self._say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        self._say("\n" + "\n".join(verdict(outcome)))

    def _say(self, text: str) -> None:
        print(text, flush=True)


class JsonView:
    """Nothing but one JSON document at the end."""

    def introduce(self, plan: Plan, redis: RedisProgram) -> None:
        """Say nothing."""

    def phase(self, board: Board) -> AbstractContextManager[object]:
        """Say nothing."""
        return nullcontext()

    def changed(self, board: Board, name: str, message: AnyMessage) -> None:
        """Say nothing."""

    def conclude(self, outcome: Outcome) -> None:
        """Print the document."""
        print(outcome.model_dump_json(indent=2), flush=True)
