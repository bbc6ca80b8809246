"""The stream of changes to one page, as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from rate_coordinator.web.board import Board

BEAT_SECONDS = 5.0
"""A page that hears nothing for a multiple of this takes the stream for lost."""
SEND_SECONDS = 20.0
"""Who takes nothing for so long is gone."""
BEAT = b"event: beat\ndata: {}\n\n"
RETRY = b"retry: 1000\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx would keep it back until it has enough.
    (b"x-accel-buffering", b"no"),
]


class Stream:
    """An ASGI response without an end: all there is to see, and then each change.

    Args:
        board: What is told.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        self._board.enter()
        tasks = {asyncio.create_task(self._tell(send)), asyncio.create_task(_left(receive))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._board.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, send: Send) -> None:
        feed = self._board.feed
        number, everything = self._board.begin()
        with suppress(TimeoutError, OSError):
            await _send(send, RETRY + everything)
            while not feed.closed:
                await feed.wait(number, BEAT_SECONDS)
                messages, newest = feed.after(number), feed.number
                if messages is None:
                    newest, everything = self._board.begin()
                    messages = [everything]
                number = newest
                await _send(send, b"".join(messages) or BEAT)
            await send({"type": "http.response.body"})


async def _send(send: Send, body: bytes) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
