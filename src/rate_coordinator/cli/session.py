"""Runs what a command does in an event loop, and lets signals and a vanished reader end it in order."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Any

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.cli.options import Chosen

TERMINATED = 143


def coordinator(chosen: Chosen, **settings: Any) -> RateLimitCoordinator:
    """Return a coordinator for a command that writes, or that reads events from memory. Nothing is connected yet."""
    return RateLimitCoordinator.from_url(chosen.url, chosen.namespace, **settings)


def reader(chosen: Chosen) -> RateLimitCoordinator:
    """Return a coordinator for a command that only reads; it starts faster, because it keeps no events in memory.

    It must not write: a report or a clear would cut the stream of events to as few.
    """
    return coordinator(chosen, max_events=1)


def unstarted(coordinator: RateLimitCoordinator) -> AbstractAsyncContextManager[RateLimitCoordinator]:
    """Return a context that closes a coordinator but leaves its start to the first use.

    Arguments that cannot be used are refused then before anything is connected, whether or not Redis is there.
    """
    return aclosing(coordinator)


def run(job: Coroutine[Any, Any, int], *, endless: bool = False) -> int:
    """Run a command to its end.

    Args:
        job: What it does; its result is the exit code.
        endless: It prints until somebody stops it, which is also to be noticed while there is nothing to print.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the command has tidied up.
        BrokenPipeError: Nobody reads its output any more.
    """
    return asyncio.run(_Run(endless).supervise(job))


class _Run:
    def __init__(self, endless: bool) -> None:
        self._endless = endless
        self._ended_by: int | BaseException | None = None

    async def supervise(self, job: Coroutine[Any, Any, int]) -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end(reason: int | BaseException) -> None:
            if self._ended_by is None and task is not None:
                self._ended_by = reason
                task.cancel()

        output = _pipe() if self._endless else None
        if output is not None:
            # The writing end of a pipe becomes "readable" only when its reader is gone.
            loop.add_reader(output, end, BrokenPipeError())
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGTERM, end, TERMINATED)
        try:
            return await job
        except asyncio.CancelledError:
            if isinstance(self._ended_by, int):
                return self._ended_by
            if self._ended_by is not None:
                raise self._ended_by from None
            raise
        finally:
            if output is not None:
                loop.remove_reader(output)


def _pipe() -> int | None:
    """Return standard output if it is a pipe that can be watched."""
    if sys.platform != "linux":
        return None
    try:
        output = sys.stdout.fileno()
        return output if stat.S_ISFIFO(os.fstat(output).st_mode) else None
    except (OSError, ValueError, AttributeError):
        return None
