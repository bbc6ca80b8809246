"""From a URL to open connections.

A ``Link`` is one connection of redis-py with our own time bounds around everything: the client's defaults hang
(a stopped server: more than 40 s), and its automatic retries would repeat calls that write.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from rate_coordinator.errors import CoordinatorUnavailable
from rate_coordinator.scripts import Script

SCHEMES = ("redis", "rediss", "unix", "memory")

_FAILURES = (RedisError, OSError, TimeoutError, EOFError)


def describe(url: str) -> str:
    """Return a URL as it may be shown: without user, password and options.

    A URL that was not written as it should be is shown only as far as no part of it can be a password: one that was
    not percent-encoded may hold any character, and the host may have been forgotten.
    """
    scheme = match[0] if (match := re.match(r"[^:/@]*://", url)) else ""
    credentials, at, place = url.removeprefix(scheme).rpartition("@")
    place = place.partition("?")[0]
    host = re.split(r"[/#]", place, maxsplit=1)[0]
    if "?" in credentials or not re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", host):
        return f"{scheme}***"
    return f"{scheme}***@{place}" if at else f"{scheme}{place}"


class Link:
    """One open connection to Redis."""

    def __init__(self, connection: AbstractConnection, address: str) -> None:
        self.address = address
        self.run_id = ""
        self.version = ""
        self._connection = connection

    async def call(self, *command: str | bytes | int) -> Any:
        """Send one command and return its raw reply.

        The connection is closed if anything but an error reply comes in between, cancellation included: its next
        reply could belong to this command.

        Raises:
            CoordinatorUnavailable: The connection broke.
            redis.exceptions.ResponseError: The server answered with an error.
        """
        try:
            await self._connection.send_packed_command(_pack(command), check_health=False)
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError:
            raise
        except _FAILURES as error:
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
            await self._connection.send_packed_command(_pack(command), check_health=False)
        except _FAILURES as error:
            raise unavailable(self.address, error) from error

    async def read(self) -> Any:
        """Wait for the next message, without a bound of its own.

        Raises:
            CoordinatorUnavailable: The connection broke.
            redis.exceptions.ResponseError: The server answered with an error.
        """
        try:
            # Without a timeout, infinity included: Python 3.11's wait_for() can lose a cancellation, and the embedded
            # server's connection uses it for any.
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError:
            raise
        except _FAILURES as error:
            raise unavailable(self.address, error) from error

    async def greet(self) -> None:
        """Ask which server this is: its run ID tells it from another, or from itself before a restart."""
        try:
            info = await self.call("INFO", "server")
        except ResponseError:
            return
        fields = dict(line.split(":", 1) for line in bytes(info).decode("utf-8", "replace").splitlines() if ":" in line)
        self.run_id = fields.get("run_id", "")
        self.version = fields.get("redis_version", "")

    async def aclose(self) -> None:
        """Close the connection. Safe to call twice."""
        await self._connection.disconnect(nowait=True)


class Endpoint:
    """Where Redis is, and how to connect to it.

    Args:
        address: How it is shown, without secrets.
        make_connection: Returns a new connection of redis-py that is not open yet.
        connect_timeout: Longest time that opening a link takes, in seconds.
        command_timeout: Longest time that a call may take, in seconds.
        shared: Whether other processes can reach the same place.
    """

    def __init__(
        self,
        address: str,
        make_connection: Callable[[], AbstractConnection],
        *,
        connect_timeout: float = 5.0,
        command_timeout: float = 5.0,
        shared: bool = True,
    ) -> None:
        self.address = address
        self.connect_timeout = connect_timeout
        self.command_timeout = command_timeout
        self.shared = shared
        self._make_connection = make_connection

    @classmethod
    def from_url(cls, url: str, *, connect_timeout: float = 5.0, command_timeout: float = 5.0) -> Self:
        """Read a URL. Nothing is connected.

        Args:
            url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://…`` (TLS), ``unix:///path[?db=0]``, each
                with redis-py's options in the query; ``memory://`` or ``memory://name``.
            connect_timeout: Longest time that opening a link takes, in seconds.
            command_timeout: Longest time that a call may take, in seconds.

        Raises:
            ValueError: The URL cannot be used.
        """
        if not isinstance(url, str):
            raise ValueError(f"the URL must be a string, not {type(url).__name__}")
        address = describe(url)
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f"the URL must start with one of {known}, but it is {address!r}")
        make_connection = _embedded(url) if scheme == "memory" else _remote(url, address, connect_timeout)
        return cls(
            address,
            make_connection,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
            shared=scheme != "memory",
        )

    async def open(self) -> Link:
        """Connect, log in and select the database.

        Raises:
            CoordinatorUnavailable: That failed, or took longer than the connect timeout.
        """
        connection = self._make_connection()
        try:
            async with asyncio.timeout(self.connect_timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
            return Link(connection, self.address)
        except _FAILURES as error:
            await connection.disconnect(nowait=True)
            raise unavailable(self.address, error, f"no connection within {self.connect_timeout:g} s") from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise


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


def unavailable(address: str, error: BaseException, when_silent: str = "no answer in time") -> CoordinatorUnavailable:
    """Return the error that says which Redis could not be used, and why."""
    reason = when_silent if isinstance(error, TimeoutError) and not str(error) else (str(error) or repr(error))
    return CoordinatorUnavailable(f"Redis at {address} is not available: {reason}")


def _remote(url: str, address: str, connect_timeout: float) -> Callable[[], AbstractConnection]:
    try:
        parts = urlsplit(url)
        _ = parts.port
        if parts.scheme != "unix" and not re.fullmatch(r"(/\d*)?", parts.path):
            raise ValueError("the path must be a database number")
        if parts.scheme == "unix" and not parts.path:
            raise ValueError("the path of the socket is missing")
        options: dict[str, Any] = dict(parse_url(url))
        options.update(
            # RESP2 is what every supported server speaks without a HELLO, which an ACL may refuse.
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=connect_timeout,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            driver_info=None,
        )
        pool = ConnectionPool(**options)
        # Options that the connection does not know show only when one is made.
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (TypeError, ValueError) as error:
        # The cause is left out: its message could show a part of the password.
        hint = f": {error}" if str(error).startswith("the path") else ""
        raise ValueError(f"the Redis URL {address!r} cannot be used{hint or ' (port, database or options)'}") from None
    return pool.make_connection


def _embedded(url: str) -> Callable[[], AbstractConnection]:
    from rate_coordinator.embedded import connect

    return connect(url.removeprefix("memory://"))
