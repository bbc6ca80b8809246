"""Ways to the one server that a namespace's keys are on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from rate_coordinator import clock
from rate_coordinator.backoff import Backoff
from rate_coordinator.errors import CoordinatorUnavailable
from rate_coordinator.link import Link, open_link, unavailable
from rate_coordinator.nodes import Dial, Locator, Node, Unlocatable

SEARCHING_SHARE = 0.8
"""Which part of the time to connect is spent on finding the node. The rest is for telling what is wrong."""
ONE_NODE_SHARE = 0.4
"""Which part of it may be spent on one node: it may be dead, and no longer the right one by then."""


class Route(Protocol):
    """A way to the server."""

    moves: bool
    """Whether the server may be another one tomorrow."""

    async def open(self, seconds: float) -> Link:
        """See ``Endpoint.open``."""
        ...

    def is_current(self, link: Link) -> bool:
        """See ``Endpoint.is_current``."""
        ...

    async def confirm(self, link: Link) -> None:
        """See ``Endpoint.confirm``."""
        ...

    async def aclose(self) -> None:
        """See ``Endpoint.aclose``."""
        ...


class Direct:
    """The server has an address of its own.

    Args:
        address: How it is shown, without secrets.
        make_connection: Returns a new connection of redis-py that is not open yet.
    """

    moves = False

    def __init__(self, address: str, make_connection: Callable[[], AbstractConnection]) -> None:
        self._address = address
        self._make_connection = make_connection

    async def open(self, seconds: float) -> Link:
        """Connect, always to the same address."""
        return await open_link(self._make_connection(), self._address, seconds)

    def is_current(self, link: Link) -> bool:
        """Return that it is: there is no other."""
        return True

    async def confirm(self, link: Link) -> None:
        """Nobody else can be in charge."""

    async def aclose(self) -> None:
        """Nothing is kept open."""


class Located:
    """The server is looked for, each time that a link is opened.

    Args:
        address: How the whole is shown, without secrets.
        locator: Knows how to find the server.
        dial: How to connect to it.
    """

    moves = True

    def __init__(self, address: str, locator: Locator, dial: Dial) -> None:
        self._address = address
        self._locator = locator
        self._dial = dial
        self._node: Node | None = None

    async def open(self, seconds: float) -> Link:
        """Find the server and connect to it; try again for a while, because a fail-over takes its time."""
        deadline = clock.now() + SEARCHING_SHARE * seconds
        backoff = Backoff()
        while True:
            try:
                return await self._open_once(ONE_NODE_SHARE * seconds)
            except Unlocatable:
                raise
            except CoordinatorUnavailable as error:
                if isinstance(error.__cause__, (AuthenticationError, NoPermissionError)):
                    raise
                delay = backoff.next_delay(random.random())
                if clock.now() + delay > deadline:
                    raise
            await asyncio.sleep(delay)

    def is_current(self, link: Link) -> bool:
        """See ``Endpoint.is_current``."""
        return link.address == self._named(self._node)

    async def confirm(self, link: Link) -> None:
        """See ``Endpoint.confirm``."""
        if self.is_current(link):
            try:
                self._node = await self._locator.locate(anew=False)
            except CoordinatorUnavailable:
                # Nobody can be asked: that is no reason to leave a server that answers.
                return
        if not self.is_current(link):
            raise CoordinatorUnavailable(f"Redis at {link.address} is not in charge any more: {self._node} is")

    async def aclose(self) -> None:
        """See ``Endpoint.aclose``."""
        await self._locator.aclose()

    async def _open_once(self, seconds: float) -> Link:
        self._node = node = await self._locator.locate(anew=True)
        link = await open_link(self._dial(node), self._named(node), seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._locator.check(link)
        except BaseException as error:
            await link.aclose()
            if isinstance(error, (ResponseError, TimeoutError)):
                raise unavailable(link.address, error) from error
            raise
        return link

    def _named(self, node: Node | None) -> str:
        return f"{self._address} ({node})"
