"""A server that writes everything to disk before it answers, and a network between it and the processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from tests.chaos.scene import LONGEST_SECONDS, Fault, Scene, in_thread
from tests.faults.proxy import Connection, Faults, Proxy, Way, commands, everyone, listeners
from tests.servers import RedisServer


class Single(Scene):
    """One server that can die, stand still and forget, behind a network that can do the same."""

    round_seconds = 30.0

    def __init__(self, *arguments: Any) -> None:
        self._server = RedisServer(
            appendonly="yes", appendfsync="always", auto_aof_rewrite_percentage="0", aof_load_truncated="yes"
        )
        super().__init__(*arguments)

    @property
    def url(self) -> str:
        return self._proxy.url

    def server(self) -> RedisServer:
        return self._server

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            # Closing blocks for a moment, as nothing else is to happen by then.
            stack.callback(self._server.close)
            await in_thread(self._server.start)
            self._proxy = await stack.enter_async_context(Proxy(self._server.port))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def faults(self) -> list[Fault]:
        return [
            Fault("server killed and restarted with its data", self.of_server, self._restart, 4),
            Fault("server killed and restarted without its data", self.of_server, self._restart_empty, 1),
            Fault("server killed and restarted without its newest writes", self.of_server, self._restart_behind, 1),
            Fault("server stopped", self.of_server, self._stop_server, 4),
            Fault("connections reset", self.of_network, self._reset, 4),
            Fault("connections refused", self.of_network, self._refuse, 2),
            Fault("black hole", self.of_network, self._swallow, 5),
            Fault("replies lost", self.of_network, self._lose_replies, 4),
            Fault("a reply truncated", self.of_network, self._truncate, 3),
            Fault("latency", self.of_network, self._delay, 3),
            Fault("replies byte by byte", self.of_network, self._drip, 2),
        ]

    async def _restart(self) -> None:
        await in_thread(self._server.stop)
        await self.last(1.5)
        await in_thread(self._server.start)

    async def _restart_empty(self) -> None:
        await in_thread(self._server.stop)
        # Before the next start, everything that it ever recorded is gone.
        self.model.losses.append((0.0, time.time()))
        for path in self._logs():
            path.unlink()
        shutil.rmtree(self._server.directory / "appendonlydir", ignore_errors=True)
        await self.last(1.5)
        await in_thread(self._server.start)

    async def _restart_behind(self) -> None:
        since = time.time()
        lengths = {path: path.stat().st_size for path in self._logs()}
        await self.last(1.0)
        await in_thread(self._server.stop)
        self.model.losses.append((since, time.time()))
        for path, length in lengths.items():
            # In the middle of a transaction, perhaps: the server then drops the whole of it, as after a power failure.
            with path.open("r+b") as file:
                file.truncate(length)
        await in_thread(self._server.start)

    def _logs(self) -> list[Path]:
        """Return the files that it appends to: one of several from version 7 on."""
        return [*self._server.directory.glob("appendonlydir/*.incr.aof"), *self._server.directory.glob("*.aof")]

    async def _stop_server(self) -> None:
        self._server.pause()
        try:
            await self.last()
        finally:
            self._server.resume()

    async def _reset(self) -> None:
        self._proxy.break_all(self._concerned())

    async def _refuse(self) -> None:
        self._proxy.refuse = True
        self._proxy.break_all()
        try:
            await self.last()
        finally:
            self._proxy.refuse = False

    async def _swallow(self) -> None:
        both: list[frozenset[Way]] = [
            frozenset({"requests"}),
            frozenset({"replies"}),
            frozenset({"requests", "replies"}),
        ]
        faults = Faults(concerns=self._concerned(), holes=self.chance.choice(both))
        forget = self.chance.random() < 0.5
        self.log(f"holes for {sorted(faults.holes)}, {'forgotten' if forget else 'sent again'} afterwards")
        self._proxy.go_wrong(faults)
        try:
            await self.last()
        finally:
            self._proxy.heal(forget=forget)

    async def _lose_replies(self) -> None:
        share = self.chance.uniform(0.1, 0.9)
        self._proxy.lose_reply = lambda request: b"EVAL" in request and self.chance.random() < share
        try:
            await self.last()
        finally:
            self._proxy.lose_reply = lambda request: False

    async def _truncate(self) -> None:
        await self._go_wrong(
            Faults(self._concerned(), truncate=self.chance.randrange(1, 40), reset=self.chance.random() < 0.5), 0.5
        )

    async def _delay(self) -> None:
        await self._go_wrong(
            Faults(self._concerned(), latency=self.chance.uniform(0.0, 0.2), jitter=self.chance.uniform(0.0, 0.2))
        )

    async def _drip(self) -> None:
        await self._go_wrong(Faults(self._concerned(), drip=0.0005))

    async def _go_wrong(self, faults: Faults, most: float = LONGEST_SECONDS) -> None:
        self._proxy.go_wrong(faults)
        try:
            await self.last(most)
        finally:
            self._proxy.heal()

    def _concerned(self) -> Callable[[Connection], bool]:
        """Choose to whom it happens: to all, to one kind of connections, or to about half of them."""
        half = self.chance.randrange(2)
        return self.chance.choice([everyone, listeners, commands, lambda connection: id(connection) // 64 % 2 == half])
