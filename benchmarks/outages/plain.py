"""The baseline: limits and notices in redis-py as a careful user writes them, without a library between.

A limit is a key with a TTL, a notice a PUBLISH, both in one transaction. All sockets have timeouts, and what fails is
tried again. ``master_for`` makes clients that do not try again by themselves; ``from_url`` makes some that do.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from benchmarks.outages.sides import LIMIT_SECONDS, Ear, Fate, backend, now, number_of
from tests.topologies import SERVICE, SentinelTrio

CHANNEL = "plain notices"
SOCKET_SECONDS = 2.0
CHECK_SECONDS = 2.0
"""``health_check_interval`` of every connection."""
POLL_SECONDS = 0.25
"""How long one ``get_message`` waits."""
PING_SECONDS = 2.0
"""How often a listener with a ping of its own sends one."""
PONG_SECONDS = 5.0
"""How long that may go unanswered."""
PAUSE_SECONDS = 0.2
"""Between two attempts to subscribe."""


@asynccontextmanager
async def master_of(trio: SentinelTrio) -> AsyncIterator[Redis]:
    """Make a client of whoever the Sentinels say is the master."""
    addresses = [("127.0.0.1", sentinel.port) for sentinel in trio.sentinels]
    timeouts = {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": SOCKET_SECONDS}
    sentinels = Sentinel(addresses, **timeouts)  # type: ignore[no-untyped-call]
    async with sentinels, sentinels.master_for(SERVICE, health_check_interval=CHECK_SECONDS) as master:
        yield master


def client_of(url: str) -> Redis:
    """Make a client of one server."""
    return Redis.from_url(
        url,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=SOCKET_SECONDS,
        health_check_interval=CHECK_SECONDS,
    )


class PlainWriter:
    """Writes limits.

    Args:
        client: Over which.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def write(self, number: int) -> Fate:
        """See ``Writer.write``."""
        try:
            async with self._client.pipeline(transaction=True) as transaction:
                transaction.set(self.key(number), number, px=round(LIMIT_SECONDS * 1000))
                transaction.publish(CHANNEL, backend(number))
                await transaction.execute()
        except (RedisError, OSError):
            return "refused"
        return "acknowledged"

    def key(self, number: int) -> str:
        """See ``Writer.key``."""
        return f"plain limit:{backend(number)}"


class PlainListener:
    """Listens, and subscribes anew when that fails.

    Args:
        client: Over which.
        own_ping: Whether it asks by itself if its connection is alive, and waits for the answer.
    """

    def __init__(self, client: Redis, *, own_ping: bool = False) -> None:
        self.ear = Ear()
        self.listening = asyncio.Event()
        self._client = client
        self._own_ping = own_ping

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                async with self._client.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    await self._listen(subscription)
            except (RedisError, OSError):
                self.ear.breaks.append(now())
                await asyncio.sleep(PAUSE_SECONDS)

    async def _listen(self, subscription: PubSub) -> None:
        loop = asyncio.get_running_loop()
        ping_at, dead_at = loop.time() + PING_SECONDS, math.inf
        while True:
            message: Any = await subscription.get_message(timeout=POLL_SECONDS)
            if message is not None:
                dead_at = math.inf
                self._take(message)
            elif loop.time() > dead_at:
                raise TimeoutError("no answer to a ping")
            if self._own_ping and loop.time() > ping_at:
                await subscription.ping()
                ping_at = loop.time() + PING_SECONDS
                dead_at = min(dead_at, loop.time() + PONG_SECONDS)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            self.ear.hear(number_of(message["data"].decode()))
        elif message["type"] == "subscribe":
            if self.listening.is_set():
                self.ear.breaks.append(now())
            self.listening.set()
