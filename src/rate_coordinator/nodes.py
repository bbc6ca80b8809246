"""Servers by their address, and those that are asked where the others are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from rate_coordinator.errors import CoordinatorUnavailable
from rate_coordinator.link import Link, answered_within, open_link, unavailable


class Node(NamedTuple):
    """A server's address."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Dial = Callable[[Node], AbstractConnection]
"""Returns a new connection of redis-py to a node, not open yet."""


class Unlocatable(CoordinatorUnavailable):
    """Nobody can say where to connect, and trying again at once would not change that."""


class Locator(Protocol):
    """Knows how to find the one node that a namespace's keys are on."""

    async def locate(self, *, anew: bool) -> Node:
        """Ask where the node is, now.

        Args:
            anew: Whether what was said last time did not help.

        Raises:
            Unlocatable: Nobody answers, or they refuse to.
            CoordinatorUnavailable: There is none at the moment.
        """
        ...

    async def check(self, link: Link) -> None:
        """Make sure that a link leads to the node that was meant, and find out what kind of node it is.

        Raises:
            CoordinatorUnavailable: It does not.
            redis.exceptions.ResponseError: The server may not be asked.
        """
        ...

    async def aclose(self) -> None:
        """Close what was kept open for asking."""
        ...


class Guide:
    """A server that is asked where others are, over a connection that is kept from one question to the next.

    Args:
        node: Its address.
        dial: How to connect to it.
        seconds: Longest time that an answer may take, the connection included.
    """

    def __init__(self, node: Node, dial: Dial, seconds: float) -> None:
        self.node = node
        self._dial = dial
        self._seconds = seconds
        self._link: Link | None = None
        self._lock = asyncio.Lock()

    async def ask(self, *question: str) -> Any:
        """Send a command and return the raw reply.

        Raises:
            CoordinatorUnavailable: No answer, or an error.
        """
        async with answered_within(self._seconds, str(self.node)), self._lock:
            kept = self._link is not None
            try:
                return await self._ask(question)
            except CoordinatorUnavailable:
                if not kept:
                    raise
            # It may have been closed long ago without anyone noticing.
            return await self._ask(question)

    async def _ask(self, question: tuple[str, ...]) -> Any:
        try:
            if self._link is None:
                self._link = await open_link(self._dial(self.node), str(self.node), self._seconds)
            return await self._link.call(*question)
        except ResponseError as error:
            raise unavailable(str(self.node), error) from error
        except BaseException:
            # What comes next on it could be the answer to this.
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()
