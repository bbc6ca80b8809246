"""What every child process does: its work, until it is done or the demo is gone, however that went.

The demo holds the other end of a child's standard input. The operating system closes it even when the demo is killed
without a chance to clean up; so the end of that input is the sign to leave, and no child is ever left behind.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from rate_coordinator.demo.plan import LONGEST_SECONDS

Work = Callable[[asyncio.Event], Awaitable[None]]
"""What a child does. The event is set when the demo says that it may begin."""


def run_child(work: Work) -> None:
    """Run a child process's work; return when it is done, the demo is gone, or SIGTERM came.

    Raises:
        TimeoutError: It went on for longer than any demo does.
    """
    asyncio.run(_run(work))


async def _run(work: Work) -> None:
    go = asyncio.Event()
    working = asyncio.ensure_future(work(go))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    listening = asyncio.create_task(_listen(go, working))
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            with suppress(asyncio.CancelledError):
                await working
    finally:
        listening.cancel()


async def _listen(go: asyncio.Event, working: asyncio.Future[None]) -> None:
    """Set ``go`` at the first line of standard input, and cancel the work at its end."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        go.set()
    working.cancel()
