"""Messages for many readers, none of whom can hold up another or cost more memory than the others."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from itertools import islice


class Feed:
    """Messages in their order, of which the newest are kept. Each reader goes on from the last one that it has.

    Args:
        size: How many are kept. A reader that is further behind has to begin anew.
    """

    def __init__(self, size: int) -> None:
        self.number = 0
        """How many messages there have been: the number of the newest."""
        self.closed = False
        self._messages: deque[bytes] = deque(maxlen=size)
        self._news = asyncio.Event()

    def publish(self, message: bytes) -> None:
        """Add a message."""
        self._messages.append(message)
        self.number += 1
        self._wake()

    def close(self) -> None:
        """There will be no more."""
        self.closed = True
        self._wake()

    def after(self, number: int) -> list[bytes] | None:
        """Return the messages after the one of this number; None when some of them are no longer kept."""
        missing = self.number - number
        if missing > len(self._messages):
            return None
        return list(islice(self._messages, len(self._messages) - missing, None))

    async def wait(self, number: int, seconds: float) -> None:
        """Wait until there is a message after the one of this number, or no more to come, at most so long."""
        news = self._news
        if self.number > number or self.closed:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await news.wait()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
