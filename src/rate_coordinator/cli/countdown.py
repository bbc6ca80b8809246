"""The line on a terminal that counts down while ``wait`` and ``run`` wait."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TextIO

from rate_coordinator import ActiveLimit, Health, RateLimitCoordinator
from rate_coordinator.cli import texts
from rate_coordinator.cli.output import ERASE_LINE, is_terminal

USUAL_COLUMNS = 80


class Countdown:
    """One line that is written anew again and again, and removed at the end.

    Args:
        stream: The terminal.
        backend: What is waited for.
        model: Narrows it.
    """

    pause_seconds = 0.25
    """How long to wait before it is to be shown again."""

    def __init__(self, stream: TextIO, backend: str, model: str | None) -> None:
        # Only those who wait on a terminal wait for rich to be loaded.
        from rich.cells import set_cell_size

        self._fit = set_cell_size
        self._stream = stream
        self._scope = {(backend, None), (backend, model)}
        self._target = texts.printable(texts.target(backend, model))
        self._shown = ""

    def __enter__(self) -> Countdown:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line."""
        if self._shown:
            self._write(ERASE_LINE)

    def show(self, limits: Sequence[ActiveLimit], health: Health) -> None:
        """Show the limit that lasts longest of those that hold the target."""
        limit = next((limit for limit in limits if (limit.backend, limit.model) in self._scope), None)
        if limit is None:
            return
        left = max(1, math.ceil(limit.seconds_remaining))
        text = f"{self._target}: {left} s left, until {texts.clock_time(limit.resume_at)}"
        text += f" ({texts.why(limit)}, {texts.who(limit)})"
        if health.state == "degraded":
            text = f"[Redis is away] {text}"
        # A terminal without a size says 0.
        columns = (_columns(self._stream) or USUAL_COLUMNS) - 1
        if len(text) > columns // 2:
            text = self._fit(text, columns).rstrip()
        if text != self._shown:
            self._shown = text
            self._write(ERASE_LINE + text)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@asynccontextmanager
async def counting_down(coordinator: RateLimitCoordinator, backend: str, model: str | None) -> AsyncIterator[None]:
    """Show how long it still takes, where standard error is a terminal."""
    if not is_terminal(sys.stderr):
        yield
        return
    counting = asyncio.create_task(_count_down(coordinator, backend, model))
    try:
        yield
    finally:
        counting.cancel()
        await asyncio.wait([counting])


async def _count_down(coordinator: RateLimitCoordinator, backend: str, model: str | None) -> None:
    with Countdown(sys.stderr, backend, model) as countdown:
        while True:
            countdown.show(coordinator.limits, coordinator.health)
            await asyncio.sleep(countdown.pause_seconds)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0
