"""Timers for what is waited for by this process's clock: limits, turns and leases.

They and ``clock.now`` are looked up each time, so that another clock can be put beneath all of them at once (see
``rate_coordinator.testing``). What bounds talking to a server takes asyncio's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Keep it from happening."""
        ...


def _call_later(seconds: float, callback: Callable[..., object], *arguments: object) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, callback, *arguments)


call_later: Callable[..., Timer] = _call_later
"""Call a function in this event loop after so many seconds: ``call_later(seconds, callback, *arguments)``."""

timeout: Callable[[float | None], AbstractAsyncContextManager[Any]] = asyncio.timeout
"""Bound what is awaited inside to so many seconds, as ``asyncio.timeout`` does."""

sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep
"""Wait for so many seconds."""
