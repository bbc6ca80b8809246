"""Keeps a cancellation from being lost."""

from __future__ import annotations

import asyncio


def check_cancelled() -> None:
    """End a loop that retries whatever fails, if its task was cancelled meanwhile.

    A cancellation that meets a failure can be lost: a task group whose parts fail while it is cancelled raises their
    errors and nothing else.

    Raises:
        asyncio.CancelledError: It was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
