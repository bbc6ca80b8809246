"""From a URL to open connections."""

from __future__ import annotations

import math
from typing import Self

from redis.crc import key_slot

from rate_coordinator import urls
from rate_coordinator.cluster import ClusterLocator
from rate_coordinator.keys import Keys
from rate_coordinator.link import Link as Link
from rate_coordinator.link import answered_within as answered_within
from rate_coordinator.link import unavailable as unavailable
from rate_coordinator.nodes import Locator
from rate_coordinator.routes import Direct, Located, Route
from rate_coordinator.sentinel import SentinelLocator

ONE_GUIDE_SHARE = 0.2
"""Which part of the connect timeout one Sentinel, or one node of a cluster, may take to say where to connect."""


class Endpoint:
    """Where Redis is, and how to connect to it.

    Args:
        address: How it is shown, without secrets.
        route: The way there.
        connect_timeout: Longest time that opening a link takes, in seconds.
        command_timeout: Longest time that a call may take, in seconds.
        shared: Whether other processes can reach the same place.
    """

    def __init__(
        self,
        address: str,
        route: Route,
        *,
        connect_timeout: float = 5.0,
        command_timeout: float = 5.0,
        shared: bool = True,
    ) -> None:
        self.address = address
        self.connect_timeout = connect_timeout
        self.command_timeout = command_timeout
        self.shared = shared
        self._route = route

    @classmethod
    def from_url(
        cls, url: str, keys: Keys | None = None, *, connect_timeout: float = 5.0, command_timeout: float = 5.0
    ) -> Self:
        """Read a URL. Nothing is connected.

        Args:
            url: See ``RateLimitCoordinator.from_url``.
            keys: Those that are to be reached: in a cluster, each namespace has its own node.
            connect_timeout: Longest time that opening a link takes, in seconds.
            command_timeout: Longest time that a call may take, in seconds.

        Raises:
            ValueError: The URL cannot be used.
        """
        scheme = urls.scheme_of(url)
        address = urls.describe(url)
        route: Route
        if scheme == urls.EMBEDDED:
            from rate_coordinator.embedded import connect

            route = Direct(address, connect(url.removeprefix("memory://")))
        elif scheme in urls.SINGLE:
            route = Direct(address, urls.read_single(url, connect_timeout))
        else:
            members = urls.read_members(url, connect_timeout)
            patience = ONE_GUIDE_SHARE * connect_timeout
            locator: Locator
            if scheme in urls.SENTINEL:
                locator = SentinelLocator(address, members.nodes, members.service, members.dial_guide, patience)
            else:
                slot = key_slot((keys or Keys()).order.encode())
                locator = ClusterLocator(address, members.nodes, slot, members.dial_guide, patience)
            route = Located(address, locator, members.dial)
        return cls(
            address,
            route,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
            shared=scheme != urls.EMBEDDED,
        )

    @property
    def moves(self) -> bool:
        """Whether the server may be another one tomorrow."""
        return self._route.moves

    async def open(self, longest_seconds: float = math.inf) -> Link:
        """Find the server, connect, log in and select the database.

        Args:
            longest_seconds: How long that may take; never longer than the connect timeout.

        Raises:
            CoordinatorUnavailable: That failed, or took too long.
        """
        return await self._route.open(min(longest_seconds, self.connect_timeout))

    def is_current(self, link: Link) -> bool:
        """Return whether a link leads to the server that was last found to be in charge. Asks nobody."""
        return self._route.is_current(link)

    async def confirm(self, link: Link) -> None:
        """Ask whether the server that a link leads to is still in charge; that nobody answers is no proof against it.

        Raises:
            CoordinatorUnavailable: Another one is.
        """
        await self._route.confirm(link)

    async def aclose(self) -> None:
        """Close what is kept open for finding the server. It can be used again."""
        await self._route.aclose()
