"""One open connection to one server.

It is a connection of redis-py with our own time bounds around everything: the client's defaults hang (a stopped server:
more than 40 s), and its automatic retries would repeat calls that write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from rate_coordinator.errors import CoordinatorUnavailable
from rate_coordinator.scripts import Script

FAILURES = (RedisError, OSError, TimeoutError, EOFError)
"""What shows that a connection cannot be made, or not be used any more."""

ELSEWHERE = (AskError, ClusterDownError, ReadOnlyError, TryAgainError)
"""Answers that certainly nothing was done, because this is not, or not now, the server that does it.

MOVED is an ASK to redis-py, MASTERDOWN a CLUSTERDOWN, and LOADING a broken connection.
"""


class Link:
    """One open connection to Redis.

    Args:
        connection: It, open.
        address: How it is shown, without secrets.
    """

    def __init__(self, connection: AbstractConnection, address: str) -> None:
        self.address = address
        self.sharded = False
        """Whether channels belong to slots, as in a cluster from Redis 7 on."""
        self.info: Mapping[str, str] = {}
        """What the server told of itself when it was greeted; empty where it may not be asked."""
        self._connection = connection
        # redis-py forgets it when a read is cancelled, before it is really closed.
        self._writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)

    async def call(self, *command: str | bytes | int) -> Any:
        """Send one command and return its raw reply.

        The connection is closed if anything but an error reply comes in between, cancellation included: its next
        reply could belong to this command.

        Raises:
            CoordinatorUnavailable: The connection broke, or this is not the server that does it (any more).
            redis.exceptions.ResponseError: The server answered with an error.
        """
        try:
            await self._write(command)
            return await self._connection.read_response(disable_decoding=True)
        except ELSEWHERE as error:
            raise unavailable(self.address, error) from error
        except ResponseError:
            raise
        except FAILURES as error:
            raise unavailable(self.address, error) from error

    async def run(self, script: Script, keys: list[str], arguments: Sequence[str | int]) -> Any:
        """Run a script, loading it where the server does not know it.

        Only the answer that it is unknown leads to a second call: then the first certainly did nothing.
        """
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.call("EVAL", script.text, len(keys), *keys, *arguments)

    async def send(self, *command: str | bytes | int) -> None:
        """Send a command whose reply is read as a message, with ``read``.

        Raises:
            CoordinatorUnavailable: The connection broke.
        """
        try:
            await self._write(command)
        except FAILURES as error:
            raise unavailable(self.address, error) from error

    async def read(self) -> Any:
        """Wait for the next message, without a bound of its own.

        Raises:
            CoordinatorUnavailable: The connection broke, or this is not the server to ask (any more).
            redis.exceptions.ResponseError: The server answered with an error.
        """
        try:
            # Without a timeout, infinity included: Python 3.11's wait_for() can lose a cancellation, and the embedded
            # server's connection uses it for any.
            return await self._connection.read_response(disable_decoding=True)
        except ELSEWHERE as error:
            raise unavailable(self.address, error) from error
        except ResponseError:
            raise
        except FAILURES as error:
            raise unavailable(self.address, error) from error

    async def subscribe(self, channel: str) -> None:
        """Subscribe to a channel and wait until the server says that it is done; its messages come from ``read``.

        Raises:
            CoordinatorUnavailable: The connection broke, or this is not the server to ask.
            redis.exceptions.ResponseError: The server refused.
        """
        command = "SSUBSCRIBE" if self.sharded else "SUBSCRIBE"
        await self.send(command, channel)
        while (await self.read())[0] != command.lower().encode():
            pass

    @property
    def publish_with(self) -> str:
        """The command whose messages are heard by those who subscribed."""
        return "SPUBLISH" if self.sharded else "PUBLISH"

    async def _write(self, command: Sequence[str | bytes | int]) -> None:
        # redis-py would connect anew by itself, without our subscription and to nobody's knowledge.
        if not self._connection.is_connected:
            raise RedisConnectionError("the connection is closed")
        await self._connection.send_packed_command(_pack(command), check_health=False)

    async def greet(self) -> None:
        """Ask which server this is, and how it is set up."""
        if self.info:
            return
        with suppress(ResponseError):
            text = bytes(await self.call("INFO")).decode("utf-8", "replace")
            self.info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    @property
    def run_id(self) -> str:
        """What tells a server process from another, or from itself before a restart; empty if unknown."""
        return self.info.get("run_id", "")

    @property
    def version(self) -> str:
        """The version of Redis, or of the Redis that the server is compatible with; empty if unknown."""
        return self.info.get("redis_version", "")

    @property
    def version_info(self) -> tuple[int, ...]:
        """The version as numbers; empty if unknown."""
        return tuple(int(part) for part in self.version.split(".")[:2] if part.isdecimal())

    async def aclose(self) -> None:
        """Close the connection. Safe to call twice."""
        await _close(self._connection, self._writer)


async def open_link(connection: AbstractConnection, address: str, seconds: float) -> Link:
    """Connect, log in and select the database.

    Args:
        connection: Of redis-py, not open yet.
        address: How it is shown, without secrets.
        seconds: Longest time that this takes.

    Raises:
        CoordinatorUnavailable: That failed, or took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            await connection.connect()  # type: ignore[no-untyped-call]
        return Link(connection, address)
    except FAILURES as error:
        await _close(connection, getattr(connection, "_writer", None))
        raise unavailable(address, error, f"no connection within {seconds:.3g} s") from error
    except BaseException:
        await _close(connection, getattr(connection, "_writer", None))
        raise


async def _close(connection: AbstractConnection, writer: asyncio.StreamWriter | None) -> None:
    await connection.disconnect(nowait=True)
    if writer is not None and isinstance(connection, SSLConnection):
        # TLS says goodbye and waits for an answer, which nobody waits for here: the socket would stay open.
        writer.transport.abort()


def _pack(command: Sequence[str | bytes | int]) -> bytes:
    """Return a command as it goes over the wire: an array of bulk strings.

    redis-py's own packing checks each part for more than we send, which costs as much as a script's whole run.
    Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    parts = [b"*%d\r\n" % len(command)]
    for part in command:
        data = part if isinstance(part, bytes) else str(part).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


@asynccontextmanager
async def answered_within(seconds: float, address: str) -> AsyncIterator[None]:
    """Bound everything that is awaited inside, however many calls it takes.

    Args:
        seconds: Longest time that it takes.
        address: Of the server that is waited for, without secrets.

    Raises:
        CoordinatorUnavailable: It took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise unavailable(address, error, f"no answer within {seconds:g} s") from error


def unavailable(address: str, error: BaseException, when_silent: str = "no answer in time") -> CoordinatorUnavailable:
    """Return the error that says which Redis could not be used, and why."""
    if isinstance(error, TimeoutError) and not str(error):
        reason = when_silent
    elif isinstance(error, AskError):
        reason = f"slot {error.slot_id} is served by another node"
    else:
        reason = str(error) or repr(error)
    return CoordinatorUnavailable(f"Redis at {address} is not available: {reason}")
