"""A TCP proxy between a coordinator and its Redis that does to the network what a test tells it to do.

Both directions of each connection pass through a ``Link`` of their own; what goes wrong is said once for the whole
proxy (``Proxy.faults``) and may be narrowed to some of its connections (``Faults.concerns``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

Way = Literal["requests", "replies"]
CHUNK = 65536


class Connection:
    """One connection through the proxy.

    Args:
        client: Towards the coordinator.
        server: Towards Redis.
    """

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.listens = False
        """Whether it is a subscription."""
        self.doomed = False
        self.dead = False
        """It was black-holed and its peers no longer know of each other: whatever is sent is lost."""
        self._ends = (client, server)

    def abort(self) -> None:
        """Reset it."""
        for end in self._ends:
            end.transport.abort()


def everyone(connection: Connection) -> bool:
    """Concern every connection."""
    return True


def listeners(connection: Connection) -> bool:
    """Concern subscriptions only."""
    return connection.listens


def commands(connection: Connection) -> bool:
    """Concern all but subscriptions."""
    return not connection.listens


@dataclass
class Faults:
    """What is wrong with the network now."""

    concerns: Callable[[Connection], bool] = everyone
    latency: float = 0.0
    """Seconds that everything takes, in either direction."""
    jitter: float = 0.0
    """A random time of up to this comes on top."""
    drip: float = 0.0
    """Replies come byte by byte, with so many seconds between two."""
    holes: frozenset[Way] = frozenset()
    """What is sent in these directions does not arrive; no side is told."""
    truncate: int | None = None
    """The next reply ends after so many bytes, and the connection with it."""
    reset: bool = True
    """Whether that end is a reset, or as if the server had closed the connection in good order."""


class Proxy:
    """Forwards connections of the loopback interface to another port of it.

    Args:
        port: Where the server listens.
        host: On which of the addresses of the loopback interface the proxy listens.
        listen_port: On which port; any free one if left out.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", listen_port: int = 0) -> None:
        self.port = listen_port
        self.lose_reply: Callable[[bytes], bool] = lambda request: False
        """Asked about each chunk that a client sends: is the connection to be broken instead of answering it?"""
        self.refuse = False
        """Whether new connections are reset at once."""
        self.lost = 0
        self.accepted = 0
        self.faults = Faults()
        self._host = host
        self._target = port
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"redis://{self._host}:{self.port}"

    def break_all(self, concerned: Callable[[Connection], bool] = everyone) -> None:
        """Reset every connection, or only some."""
        for connection in list(self._connections):
            if concerned(connection):
                connection.abort()

    def go_wrong(self, faults: Faults) -> None:
        """Let the network behave like this from now on."""
        self.faults = faults
        self._wake()

    def heal(self, *, forget: bool = False) -> None:
        """Let the network work again.

        Args:
            forget: Whether connections that fell into a black hole stay dead for ever, as behind a router that
                restarted; otherwise what was sent meanwhile arrives now, as TCP sends it again.
        """
        if forget and self.faults.holes:
            for connection in self._connections:
                connection.dead = connection.dead or self.faults.concerns(connection)
        self.go_wrong(Faults())

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Reset every connection and take no more."""
        assert self._server is not None
        self._server.close()
        self.break_all()
        for task in self._tasks:
            task.cancel()
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
        self.accepted += 1
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        connection = Connection(writer, upstream_writer)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(connection, "requests", reader, upstream_writer))
                group.create_task(self._forward(connection, "replies", upstream_reader, writer))
        except* (OSError, _Gone, asyncio.CancelledError):
            # Only ``close`` cancels it, and Python 3.11 would print that as an error nobody handled.
            pass
        finally:
            connection.abort()
            self._connections.discard(connection)
            self._tasks.discard(task)

    async def _forward(
        self, connection: Connection, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(CHUNK):
            if way == "requests":
                connection.listens = connection.listens or b"SUBSCRIBE" in data
                if self.lose_reply(data):
                    self.lost += 1
                    connection.doomed = True
            elif connection.doomed:
                # The server has done what it was asked; the client will not learn of it.
                raise _Gone
            await self._delay(connection, way)
            if connection.dead:
                continue
            faults = self.faults
            concerned = way == "replies" and faults.concerns(connection)
            if concerned and faults.truncate is not None:
                await self._truncate(connection, data, writer, faults)
            elif concerned and faults.drip:
                await self._drip(data, writer)
            else:
                writer.write(data)
                await writer.drain()
        # The news that this side has closed has the same way to go.
        await self._delay(connection, way)
        if connection.dead:
            await asyncio.Event().wait()
        raise _Gone

    async def _delay(self, connection: Connection, way: Way) -> None:
        if self.faults.concerns(connection) and (self.faults.latency or self.faults.jitter):
            await asyncio.sleep(self.faults.latency + random.uniform(0, self.faults.jitter))
        while not connection.dead and way in self.faults.holes and self.faults.concerns(connection):
            await self._changed.wait()

    async def _truncate(
        self, connection: Connection, data: bytes, writer: asyncio.StreamWriter, faults: Faults
    ) -> None:
        assert faults.truncate is not None
        self.lost += 1
        writer.write(data[: faults.truncate])
        await writer.drain()
        if not faults.reset:
            writer.close()
            await writer.wait_closed()
        raise _Gone

    async def _drip(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for position in range(len(data)):
            if not self.faults.drip:
                writer.write(data[position:])
                break
            writer.write(data[position : position + 1])
            await asyncio.sleep(self.faults.drip)
        await writer.drain()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Gone(Exception):
    """One side has closed."""
