"""Servers that take over from one another: a Sentinel trio, and a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from redis.crc import key_slot

from tests.chaos.scene import Fault, Scene, in_thread
from tests.conftest import NEWEST
from tests.servers import RedisServer
from tests.topologies import SERVICE, Cluster, SentinelTrio, replicated

TAKEOVER_SECONDS = 30.0
"""It takes four seconds, and as many again until the old master follows the new one."""


class _Succession(Scene):
    """What both have in common."""

    round_seconds = 200.0

    async def _succeed(self, old: RedisServer, end: Callable[[], object], takes_over: Callable[[], object]) -> None:
        """Let another server take over from ``old``: what it acknowledges from now on may be lost, however it ends."""
        since = await in_thread(lambda: replicated(old, f"{self.keys.prefix} replicated"))
        try:
            await in_thread(end)
            await in_thread(takes_over)
        finally:
            self.model.losses.append((since, time.time()))


class BehindSentinels(_Succession):
    """A master, two replicas and three Sentinels."""

    def __init__(self, *arguments: Any) -> None:
        self._trio = SentinelTrio(NEWEST)
        super().__init__(*arguments)

    @property
    def url(self) -> str:
        return self._trio.url

    def server(self) -> RedisServer:
        return self._trio.master

    async def __aenter__(self) -> Self:
        await in_thread(self._trio.__enter__)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._trio.__exit__()

    def faults(self) -> list[Fault]:
        return [
            Fault("master killed, a replica takes over", self.of_server, self._kill_master, 4),
            Fault("master stopped, replaced and woken", self.of_server, self._stop_master, 4),
            Fault("fail-over ordered", self.of_server, self._order, 2),
            Fault("replica killed and restarted", self.of_server, self._restart_replica, 2),
            Fault("Sentinel killed and restarted", self.of_network, self._restart_sentinel, 3),
        ]

    async def _kill_master(self) -> None:
        old = await in_thread(self.server)

        def takes_over() -> None:
            self._trio.successor_of(old, TAKEOVER_SECONDS)
            self._trio.bring_back(old)

        await self._succeed(old, old.stop, takes_over)

    async def _stop_master(self) -> None:
        old = await in_thread(self.server)

        def takes_over() -> None:
            try:
                self._trio.successor_of(old, TAKEOVER_SECONDS)
            finally:
                old.resume()
            self._trio.settle()

        await self._succeed(old, old.pause, takes_over)

    async def _order(self) -> None:
        old = await in_thread(self.server)

        def takes_over() -> None:
            self._trio.successor_of(old, TAKEOVER_SECONDS)
            self._trio.settle()

        await self._succeed(old, lambda: self._trio.sentinels[0].admin.sentinel_failover(SERVICE), takes_over)

    async def _restart_replica(self) -> None:
        master = await in_thread(self.server)
        replica = self.chance.choice([node for node in self._trio.nodes if node is not master])
        await in_thread(replica.stop)
        await self.last(1.0)
        await in_thread(lambda: self._trio.bring_back(replica))

    async def _restart_sentinel(self) -> None:
        # Not while the others have to agree on something: two of three are as many as it takes.
        async with self.of_server:
            sentinel = self.chance.choice(self._trio.sentinels)
            await in_thread(sentinel.stop)
            await self.last(1.0)
            await in_thread(sentinel.start)
            await in_thread(self._trio.settle)


class InCluster(_Succession):
    """Three masters with a replica each."""

    def __init__(self, *arguments: Any) -> None:
        self._cluster = Cluster(NEWEST)
        super().__init__(*arguments)

    @property
    def url(self) -> str:
        return self._cluster.url

    def server(self) -> RedisServer:
        return self._cluster.master_of(self.keys.order)

    async def __aenter__(self) -> Self:
        await in_thread(self._cluster.__enter__)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cluster.__exit__()

    def faults(self) -> list[Fault]:
        return [
            Fault("node killed, its replica takes over", self.of_server, self._kill_node, 4),
            Fault("node stopped, replaced and woken", self.of_server, self._stop_node, 4),
            Fault("slot moved", self.of_server, self._move, 5),
            Fault("another node killed and restarted", self.of_server, self._restart_another, 2),
        ]

    async def _kill_node(self) -> None:
        old = await in_thread(self.server)

        def takes_over() -> None:
            self._cluster.successor_of(old, self.keys.order, TAKEOVER_SECONDS)
            old.start()
            self._cluster.settle()

        await self._succeed(old, old.stop, takes_over)

    async def _stop_node(self) -> None:
        old = await in_thread(self.server)

        def takes_over() -> None:
            try:
                self._cluster.successor_of(old, self.keys.order, TAKEOVER_SECONDS)
            finally:
                old.resume()
            self._cluster.settle()

        await self._succeed(old, old.pause, takes_over)

    async def _move(self) -> None:
        source = await in_thread(self.server)
        others = await in_thread(lambda: [node for node in self._cluster.masters() if node is not source])
        target = self.chance.choice(others)
        await in_thread(lambda: self._cluster.move(key_slot(self.keys.order.encode()), source, target))

    async def _restart_another(self) -> None:
        holder = await in_thread(self.server)
        node = self.chance.choice([node for node in self._cluster.nodes if node is not holder])
        await in_thread(node.stop)
        await self.last(1.0)
        await in_thread(node.start)
        await in_thread(self._cluster.settle)
