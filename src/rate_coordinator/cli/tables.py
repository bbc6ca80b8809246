"""The table of limits (rich)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rate_coordinator import ActiveLimit
from rate_coordinator.cli import texts
from rate_coordinator.cli.output import can_encode, is_terminal

WIDE_ENOUGH = 10_000
"""Columns of what is no terminal: nothing is cut off in a file or a pipe."""

_FULL, _EMPTY = "█", "░"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to whoever runs the command; rich itself would exit with 1."""
        raise BrokenPipeError


def console() -> Console:
    """Return where tables are printed: standard output."""
    return _Console(width=None if is_terminal(sys.stdout) else WIDE_ENOUGH, highlight=False)


def limits_table(limits: Sequence[ActiveLimit]) -> Table:
    """Return the active limits, one a row, in the given order."""
    full, empty = (_FULL, _EMPTY) if can_encode(_FULL + _EMPTY, sys.stdout) else ("#", "-")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("target", overflow="fold")
    table.add_column("left", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("resumes", no_wrap=True)
    table.add_column("reported by", overflow="fold")
    table.add_column("reason")
    for limit in limits:
        name = texts.printable(texts.target(limit.backend, limit.model))
        # Text, because in a plain string rich would take "[…]" in a name for markup.
        table.add_row(
            Text(name, style="bold"),
            Text(texts.seconds(limit.seconds_remaining)),
            Text(texts.bar(limit.seconds_remaining, limit.wait_seconds, full=full, empty=empty), style="yellow"),
            Text(texts.clock_time(limit.resume_at)),
            Text(texts.who(limit) + ("" if limit.delivered else " (not delivered yet)")),
            Text(texts.why(limit)),
        )
    return table
