"""Hears notices, and keeps hearing them.

It owns the life of its connection: subscribe first, then have a snapshot read, then hand on what is heard. It pings,
so that a peer that died without a word is noticed within a bound, and begins anew after any break. Now and then it has
a snapshot read all the same, as a net.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from rate_coordinator import clock
from rate_coordinator.backoff import Backoff
from rate_coordinator.condition import Condition
from rate_coordinator.connection import Endpoint, Link, unavailable
from rate_coordinator.errors import CoordinatorError, CoordinatorUnavailable
from rate_coordinator.models import Notice
from rate_coordinator.settings import Settings
from rate_coordinator.wire import Trouble, Unreadable, read_notice

logger = logging.getLogger(__name__)

STABLE_SECONDS = 5.0
"""A connection that lasted longer counts as one that worked when it breaks."""

SPREAD_SECONDS = 1.0
"""Over how long a fleet spreads its first attempt after a break: at once would be everybody in the same instant."""

RECONNECT_SECONDS = 2.5
"""Longest time that one attempt to connect anew takes: with the longest pause, a listener is back within 5 seconds."""


class Subscription:
    """One process's ear on the channel of a namespace.

    Args:
        endpoint: Where Redis is.
        channel: What to subscribe to.
        settings: How often to ping and to re-synchronise.
        heard: Takes in a notice and when it was received; returns whether a snapshot is needed now.
        synchronise: Reads a snapshot; returns whether another one is needed at once.
        renewed: Called when a new connection hears, before the first snapshot is read over it.
        in_step: Told when Redis can be heard and read again, and when it can no more.
        condition: Told what goes wrong.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        channel: str,
        settings: Settings,
        heard: Callable[[Notice, float], bool],
        synchronise: Callable[[], Awaitable[bool]],
        renewed: Callable[[], Awaitable[None]],
        in_step: Callable[[bool], None],
        condition: Condition,
    ) -> None:
        self.ending = False
        """Set before it is cancelled: a task group whose parts fail in that moment raises nothing but their errors."""
        self.received = 0
        self.reconnects = 0
        self._endpoint = endpoint
        self._channel = channel
        self._settings = settings
        self._heard = heard
        self._synchronise = synchronise
        self._renewed = renewed
        self._in_step = in_step
        self._condition = condition
        self._link: Link | None = None
        self._unreadable: Counter[Trouble] = Counter()
        self._alive = asyncio.Event()
        self._wanted = asyncio.Event()

    @property
    def newer(self) -> int:
        """How many messages of a newer version were not understood."""
        return self._unreadable["newer_version"]

    @property
    def unreadable(self) -> int:
        """How many other messages were no notices."""
        return self._unreadable.total() - self.newer

    async def connect(self, longest_seconds: float = math.inf) -> None:
        """Subscribe and wait until the server says that it is done.

        Args:
            longest_seconds: How long that may take; never longer than the connect timeout.

        Raises:
            CoordinatorUnavailable: That failed, or took too long.
        """
        link: Link | None = None
        try:
            async with asyncio.timeout(min(self._settings.connect_timeout, longest_seconds)):
                link = await self._endpoint.open(longest_seconds)
                await link.subscribe(self._channel)
        except BaseException as error:
            if link is not None:
                await link.aclose()
            if isinstance(error, (TimeoutError, RedisError)) and not isinstance(error, CoordinatorUnavailable):
                raise unavailable(self._endpoint.address, error) from error
            raise
        self._link = link

    def resynchronise(self) -> None:
        """Have a snapshot read as soon as possible."""
        self._wanted.set()

    async def run(self) -> None:
        """Listen until cancelled, whatever happens."""
        backoff = Backoff(SPREAD_SECONDS)
        try:
            while True:
                began = math.inf
                try:
                    if self._link is None:
                        await self.connect(RECONNECT_SECONDS)
                        self.reconnects += 1
                        await self._renewed()
                        self._wanted.set()
                    began = clock.now()
                    await self._session(self._link)  # type: ignore[arg-type]
                except Exception as error:
                    if self.ending:
                        raise asyncio.CancelledError from error
                    self._note(error)
                    # A server that takes connections only to break them is no better than one that takes none.
                    if clock.now() - began > STABLE_SECONDS:
                        backoff.reset()
                self._in_step(False)
                await self.aclose()
                await asyncio.sleep(backoff.next_delay(random.random()))
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def _session(self, link: Link) -> None:
        """Listen, ping and synchronise until one of them fails."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(link))
                tasks.create_task(self._ping(link))
                tasks.create_task(self._keep_synchronised())
                if self._endpoint.moves:
                    tasks.create_task(self._watch(link))
        except* (CoordinatorError, RedisError) as failures:
            raise _first(failures) from failures

    async def _listen(self, link: Link) -> None:
        while True:
            message = await link.read()
            received_at = clock.now()
            self._alive.set()
            if isinstance(message, list) and len(message) == 3:
                kind, _, data = message
                if kind in (b"message", b"smessage"):
                    self._take(data, received_at)
                elif kind in (b"unsubscribe", b"sunsubscribe"):
                    # Nobody asked for that: the slot of the channel has moved to another node.
                    raise CoordinatorUnavailable(f"Redis at {link.address} ended the subscription")

    def _take(self, message: bytes, received_at: float) -> None:
        try:
            notice = read_notice(message)
        except Unreadable as error:
            self._unreadable[error.trouble] += 1
            # A flood of these must not become a flood in the log.
            level = logging.WARNING if self._unreadable[error.trouble] == 1 else logging.DEBUG
            told = {"trouble": error.trouble, "error": str(error)}
            logger.log(level, "a message on the channel is unreadable", extra=told)
            return
        if notice is not None:
            self.received += 1
            if self._heard(notice, received_at):
                self._wanted.set()

    async def _ping(self, link: Link) -> None:
        while True:
            await asyncio.sleep(self._settings.ping_interval)
            self._alive.clear()
            try:
                async with asyncio.timeout(self._settings.ping_timeout):
                    await link.send("PING")
                    await self._alive.wait()
            except TimeoutError as error:
                # A process that was stopped finds its timers due together with the answers: those count.
                if not self._alive.is_set():
                    silence = self._settings.ping_timeout
                    raise unavailable(
                        self._endpoint.address, error, f"silent for {silence:g} s after a ping"
                    ) from error

    async def _watch(self, link: Link) -> None:
        """Leave a server that is no longer in charge: it may answer pings for ever and never hear of a notice."""
        while True:
            await asyncio.sleep(self._settings.ping_interval)
            await self._endpoint.confirm(link)

    async def _keep_synchronised(self) -> None:
        backoff = Backoff()
        while True:
            try:
                # Spread, so that processes that were started together do not ask together for ever.
                async with asyncio.timeout(self._settings.resync_interval * random.uniform(0.75, 1.25)):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                if await self._synchronise():
                    self._wanted.set()
            except Exception as error:
                if self.ending:
                    raise asyncio.CancelledError from error
                # Whatever it is, it does not keep from hearing notices.
                self._note(error)
                self._in_step(False)
                self._wanted.set()
                await asyncio.sleep(backoff.next_delay(random.random()))
            else:
                backoff.reset()
                self._in_step(True)

    def _note(self, error: Exception) -> None:
        self._condition.failed(error)
        if not isinstance(error, (CoordinatorError, RedisError)):
            level = logging.DEBUG if self._condition.degraded else logging.ERROR
            logger.log(level, "the subscription failed in a way that was not foreseen", exc_info=error)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
