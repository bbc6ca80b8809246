"""What can go wrong, each for a bounded time: a method makes it happen and ends it.

Faults of the same kind of thing (the server, the network, a process) never overlap, those of different ones may.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from rate_coordinator.keys import Keys
from rate_coordinator.targets import Target
from tests.chaos.model import Model
from tests.chaos.processes import Process
from tests.chaos.worker import TARGETS
from tests.proxy import Connection, Faults, Proxy, Way, commands, everyone, listeners
from tests.servers import RedisServer

T = TypeVar("T")

LONGEST_SECONDS = 2.5
"""No fault lasts longer, apart from the restart of a server."""


async def in_thread(call: Callable[[], T]) -> T:
    """Call something that blocks; if cancelled, wait for its end first: it must not start something that is left."""
    working = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


class Mischief:
    """All faults.

    Args:
        server: Which is made to suffer, and writes everything to disk before it answers.
        proxy: Between it and the processes.
        processes: Some of which are stopped, or made to clear.
        keys: Which are evicted.
        model: Told what the server is made to forget.
        chance: Chooses.
        log: Told what happens.
    """

    def __init__(
        self,
        server: RedisServer,
        proxy: Proxy,
        processes: list[Process],
        keys: Keys,
        model: Model,
        chance: random.Random,
        log: Callable[[str], None],
    ) -> None:
        self._server = server
        self._proxy = proxy
        self._processes = processes
        self._keys = keys
        self._model = model
        self._chance = chance
        self._log = log
        self._of_server, self._of_network, self._of_processes = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        kinds: list[tuple[str, asyncio.Lock, Callable[[], Awaitable[None]], int]] = [
            ("server killed and restarted with its data", self._of_server, self._restart, 4),
            ("server killed and restarted without its data", self._of_server, self._restart_empty, 1),
            ("server killed and restarted without its newest writes", self._of_server, self._restart_behind, 1),
            ("server stopped", self._of_server, self._stop_server, 4),
            ("client connections killed", self._of_server, self._kill_clients, 4),
            ("scripts flushed", self._of_server, self._flush_scripts, 3),
            ("a key evicted", self._of_server, self._evict, 4),
            ("connections reset", self._of_network, self._reset, 4),
            ("connections refused", self._of_network, self._refuse, 2),
            ("black hole", self._of_network, self._swallow, 5),
            ("replies lost", self._of_network, self._lose_replies, 4),
            ("a reply truncated", self._of_network, self._truncate, 3),
            ("latency", self._of_network, self._delay, 3),
            ("replies byte by byte", self._of_network, self._drip, 2),
            ("process stopped", self._of_processes, self._stop_process, 4),
            ("clear", self._of_processes, self._clear, 2),
        ]
        self._kinds = {name: (lock, happen) for name, lock, happen, _ in kinds}
        self._weights = [weight for *_, weight in kinds]
        self.counts = dict.fromkeys(self._kinds, 0)

    def choose(self) -> str:
        """Return the name of a fault."""
        return self._chance.choices(list(self._kinds), self._weights)[0]

    async def happen(self, name: str) -> None:
        """Let it happen, and return when it is over."""
        lock, happen = self._kinds[name]
        async with lock:
            self._log(f"{name} …")
            try:
                await happen()
            finally:
                self._log(f"… {name}: over")
            self.counts[name] += 1

    async def _last(self, most: float = LONGEST_SECONDS) -> None:
        await asyncio.sleep(self._chance.uniform(0.1, most))

    async def _restart(self) -> None:
        await in_thread(self._server.stop)
        await self._last(1.5)
        await in_thread(self._server.start)

    async def _restart_empty(self) -> None:
        await in_thread(self._server.stop)
        # Before the next start, everything that it ever recorded is gone.
        self._model.losses.append((0.0, time.time()))
        for path in self._logs():
            path.unlink()
        shutil.rmtree(self._server.directory / "appendonlydir", ignore_errors=True)
        await self._last(1.5)
        await in_thread(self._server.start)

    async def _restart_behind(self) -> None:
        since = time.time()
        lengths = {path: path.stat().st_size for path in self._logs()}
        await self._last(1.0)
        await in_thread(self._server.stop)
        self._model.losses.append((since, time.time()))
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
            await self._last()
        finally:
            self._server.resume()

    async def _kill_clients(self) -> None:
        of_type = self._chance.choice(["normal", "pubsub"])
        killed = await in_thread(lambda: self._server.admin.client_kill_filter(_type=of_type, skipme=True))
        self._log(f"killed {killed} connections of type {of_type}")

    async def _flush_scripts(self) -> None:
        await in_thread(self._server.admin.script_flush)

    async def _evict(self) -> None:
        keys = self._keys
        target = self._chance.choice(TARGETS)
        limit = keys.limit(Target(*target))
        key = self._chance.choice(
            [limit, limit, keys.active, keys.causes, keys.order, keys.clears, keys.events, "applied"]
        )
        if key == "applied":
            # What a process did last may be done again if it has not heard that it was done.
            applied = await in_thread(lambda: sorted(self._server.admin.scan_iter(match="*:applied:*", count=1000)))
            if not applied:
                return
            key = self._chance.choice(applied)
        evicted_at = time.time()
        await in_thread(lambda: self._server.admin.delete(key))
        self._log(f"evicted {key}")
        if key == keys.events:
            self._model.losses_of_events.append((0.0, time.time()))
        elif key == keys.active:
            self._model.index_evictions.append(time.time())
        elif key == limit:
            self._model.key_evictions[target].append(time.time())
        elif "applied" in key:
            self._model.evictions.append(evicted_at)

    async def _reset(self) -> None:
        self._proxy.break_all(self._concerned())

    async def _refuse(self) -> None:
        self._proxy.refuse = True
        self._proxy.break_all()
        try:
            await self._last()
        finally:
            self._proxy.refuse = False

    async def _swallow(self) -> None:
        both: list[frozenset[Way]] = [
            frozenset({"requests"}),
            frozenset({"replies"}),
            frozenset({"requests", "replies"}),
        ]
        faults = Faults(concerns=self._concerned(), holes=self._chance.choice(both))
        forget = self._chance.random() < 0.5
        self._log(f"holes for {sorted(faults.holes)}, {'forgotten' if forget else 'sent again'} afterwards")
        self._proxy.go_wrong(faults)
        try:
            await self._last()
        finally:
            self._proxy.heal(forget=forget)

    async def _lose_replies(self) -> None:
        share = self._chance.uniform(0.1, 0.9)
        self._proxy.lose_reply = lambda request: b"EVAL" in request and self._chance.random() < share
        try:
            await self._last()
        finally:
            self._proxy.lose_reply = lambda request: False

    async def _truncate(self) -> None:
        await self._go_wrong(
            Faults(self._concerned(), truncate=self._chance.randrange(1, 40), reset=self._chance.random() < 0.5), 0.5
        )

    async def _delay(self) -> None:
        await self._go_wrong(
            Faults(self._concerned(), latency=self._chance.uniform(0.0, 0.2), jitter=self._chance.uniform(0.0, 0.2))
        )

    async def _drip(self) -> None:
        await self._go_wrong(Faults(self._concerned(), drip=0.0005))

    async def _go_wrong(self, faults: Faults, most: float = LONGEST_SECONDS) -> None:
        self._proxy.go_wrong(faults)
        try:
            await self._last(most)
        finally:
            self._proxy.heal()

    def _concerned(self) -> Callable[[Connection], bool]:
        """Choose to whom it happens: to all, to one kind of connections, or to about half of them."""
        half = self._chance.randrange(2)
        return self._chance.choice([everyone, listeners, commands, lambda connection: id(connection) // 64 % 2 == half])

    async def _stop_process(self) -> None:
        process = self._chance.choice(self._processes)
        since = process.stop()
        # Until it goes on nobody knows how long it was; it tells nothing before that.
        try:
            await self._last()
        finally:
            self._model.stops[process.number].append((since, process.wake()))
            self._log(f"it was process {process.number}")

    async def _clear(self) -> None:
        process = self._chance.choice(self._processes)
        scope = self._chance.choice([(None, None), ("b0", None), ("b1", None), ("b0", "m0")])
        await process.do("clear", *scope)
