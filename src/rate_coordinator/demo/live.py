"""The demo on a terminal: a table that follows the four processes (needs rich)."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rate_coordinator.demo.board import Board, WorkerState
from rate_coordinator.demo.messages import AnyMessage
from rate_coordinator.demo.outcome import HEADINGS, Outcome, rows, verdict
from rate_coordinator.demo.plan import Plan
from rate_coordinator.demo.redis_program import RedisProgram
from rate_coordinator.demo.views import EXPLAINED, introduction

FRAMES_PER_SECOND = 12
BAR_WIDTH = 12

STYLES = {"starting": "dim", "ready": "dim", "calling": "bold green", "backing off": "yellow", "done": "cyan"}


class LiveView:
    """Shows each process working and backing off while it happens."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def introduce(self, plan: Plan, redis: RedisProgram) -> None:
        """Say what is about to be seen."""
        self._console.print(introduction(plan, redis))

    def phase(self, board: Board) -> Live:
        """Show a phase for as long as the context lasts; its last frame stays."""
        title, explanation = EXPLAINED[board.phase]
        self._console.print()
        self._console.print(title, style="bold")
        self._console.print(explanation)
        return Live(
            get_renderable=lambda: frame(board, time.monotonic()),
            console=self._console,
            refresh_per_second=FRAMES_PER_SECOND,
        )

    def changed(self, board: Board, name: str, message: AnyMessage) -> None:
        """Leave it to the next frame."""

    def conclude(self, outcome: Outcome) -> None:
        """Print the table, and in a few sentences what it shows."""
        table = Table(*HEADINGS, title="What was measured", title_justify="left", title_style="bold")
        for row in rows(outcome):
            table.add_row(*row)
        self._console.print()
        self._console.print(table)
        for sentence in verdict(outcome):
            self._console.print(sentence, style="bold")


def frame(board: Board, now: float) -> RenderableType:
    """Return one frame: a line for each process, and how many calls there were."""
    workers = board.workers.values()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading, width in (("process", 8), ("", 11), ("", 5), ("", BAR_WIDTH), ("because", 16)):
        table.add_column(heading, min_width=width)
    for heading in ("accepted", "refused"):
        table.add_column(heading, justify="right")
    for worker in workers:
        table.add_row(*line(worker, now))
    accepted, refused = sum(w.accepted for w in workers), sum(w.refused for w in workers)
    seconds = board.wall_seconds if board.all_are("done") else now - (board.began_at or now)
    total = f"{seconds:.1f} s   {accepted + refused} calls: {accepted} accepted, {refused} refused with 429"
    return Group(table, Text(total))


def line(worker: WorkerState, now: float) -> list[RenderableType]:
    """Return the cells of one process."""
    left = worker.seconds_left(now)
    doing = Text(worker.doing, style=STYLES[worker.doing])
    waiting: list[RenderableType] = ["", "", ""]
    if worker.doing == "backing off":
        because = "refused itself" if worker.limit_from == worker.name else f"told by {worker.limit_from}"
        bar = ProgressBar(worker.wait_seconds, worker.wait_seconds - left, width=BAR_WIDTH)
        waiting = [Text(f"{left:3.1f} s", style="yellow"), bar, because]
    refused = Text(str(worker.refused), style="bold red" if worker.refused else "dim")
    return [worker.name, doing, *waiting, Text(str(worker.accepted), style="green"), refused]
