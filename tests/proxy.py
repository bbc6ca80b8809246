"""A TCP proxy between a coordinator and its Redis that loses what a test tells it to lose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self


class Proxy:
    """Forwards connections of the loopback interface to another port of it.

    Args:
        port: Where the server listens.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.lose_reply: Callable[[bytes], bool] = lambda request: False
        """Asked about each chunk that a client sends: is the connection to be broken instead of answering it?"""
        self.refuse = False
        """Whether new connections are reset at once."""
        self.lost = 0
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def break_all(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.break_all()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        pair = {writer, upstream_writer}
        self._writers |= pair
        doomed = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward_requests(reader, upstream_writer, doomed))
                group.create_task(self._forward_replies(upstream_reader, writer, doomed))
        except* (OSError, _Gone):
            pass
        finally:
            for one in pair:
                one.transport.abort()
            self._writers -= pair
            self._tasks.discard(task)

    async def _forward_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if self.lose_reply(data):
                self.lost += 1
                doomed.set()
            writer.write(data)
            await writer.drain()
        raise _Gone

    async def _forward_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if doomed.is_set():
                # The server has done what it was asked; the client will not learn of it.
                raise _Gone
            writer.write(data)
            await writer.drain()
        raise _Gone


class _Gone(Exception):
    """One side has closed."""
