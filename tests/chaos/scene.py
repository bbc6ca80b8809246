"""Where a chaos run takes place: servers, what can go wrong with them, and what can go wrong anywhere.

Each fault lasts for a bounded time: a method makes it happen and ends it. Faults of the same kind of thing (the server,
the network, a process) never overlap, those of different ones may.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, NamedTuple, Self, TypeVar

from rate_coordinator.keys import Keys
from rate_coordinator.targets import Target
from tests.chaos.model import Model
from tests.chaos.processes import Crew
from tests.chaos.worker import TARGETS
from tests.servers import RedisServer

T = TypeVar("T")

LONGEST_SECONDS = 2.5
"""No fault lasts longer, apart from a restart and from what takes over."""


async def in_thread(call: Callable[[], T]) -> T:
    """Call something that blocks; if cancelled, wait for its end first: it must not start something that is left."""
    working = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


class Fault(NamedTuple):
    """One kind of fault."""

    name: str
    concerns: asyncio.Lock
    happen: Callable[[], Awaitable[None]]
    weight: int


class Scene(ABC):
    """A place, and everything that can go wrong there.

    Args:
        crew: The processes, some of which are stopped, killed, or made to clear.
        keys: Which are evicted.
        model: Told what the servers are made to forget.
        chance: Chooses.
        log: Told what happens.
    """

    round_seconds: ClassVar[float]
    """No round of faults takes longer, one after the other at worst."""

    def __init__(self, crew: Crew, keys: Keys, model: Model, chance: random.Random, log: Callable[[str], None]) -> None:
        self.crew = crew
        self.keys = keys
        self.model = model
        self.chance = chance
        self.log = log
        self.of_server, self.of_network, self.of_processes = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        faults = [*self.faults(), *self._anywhere()]
        self._faults = {fault.name: fault for fault in faults}
        self.counts = dict.fromkeys(self._faults, 0)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where coordinators connect."""

    @abstractmethod
    def server(self) -> RedisServer:
        """Return the server that holds the limits now. Blocks until everyone agrees which one it is."""

    @abstractmethod
    def faults(self) -> list[Fault]:
        """Return what can go wrong here and not elsewhere."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start it."""

    @abstractmethod
    async def __aexit__(self, *_: object) -> None:
        """Stop it."""

    def choose(self) -> str:
        """Return the name of a fault."""
        return self.chance.choices(list(self._faults), [fault.weight for fault in self._faults.values()])[0]

    async def happen(self, name: str) -> None:
        """Let it happen, and return when it is over."""
        fault = self._faults[name]
        async with fault.concerns:
            self.log(f"{name} …")
            try:
                await fault.happen()
            finally:
                self.log(f"… {name}: over")
            self.counts[name] += 1

    async def last(self, most: float = LONGEST_SECONDS) -> None:
        """Let some time pass."""
        await asyncio.sleep(self.chance.uniform(0.1, most))

    def _anywhere(self) -> list[Fault]:
        return [
            Fault("client connections killed", self.of_server, self._kill_clients, 4),
            Fault("scripts flushed", self.of_server, self._flush_scripts, 3),
            Fault("a key evicted", self.of_server, self._evict, 4),
            Fault("database flushed", self.of_server, self._flush, 1),
            Fault("process stopped", self.of_processes, self._stop_process, 4),
            Fault("process killed, another one started", self.of_processes, self._kill_process, 2),
            Fault("clear", self.of_processes, self._clear, 2),
        ]

    async def _kill_clients(self) -> None:
        of_type = self.chance.choice(["normal", "pubsub"])
        killed = await in_thread(lambda: self.server().admin.client_kill_filter(_type=of_type, skipme=True))
        self.log(f"killed {killed} connections of type {of_type}")

    async def _flush_scripts(self) -> None:
        await in_thread(lambda: self.server().admin.script_flush())

    async def _flush(self) -> None:
        began = time.time()
        await in_thread(lambda: self.server().admin.flushall())
        self.model.flush(began, time.time())

    async def _evict(self) -> None:
        keys = self.keys
        target = self.chance.choice(TARGETS)
        limit = keys.limit(Target(*target))
        key = self.chance.choice(
            [limit, limit, keys.active, keys.causes, keys.order, keys.clears, keys.events, "applied"]
        )
        server = await in_thread(self.server)
        if key == "applied":
            # What a process did last may be done again if it has not heard that it was done.
            applied = await in_thread(lambda: sorted(server.admin.scan_iter(match="*:applied:*", count=1000)))
            if not applied:
                return
            key = self.chance.choice(applied)
        evicted_at = time.time()
        await in_thread(lambda: server.admin.delete(key))
        self.log(f"evicted {key}")
        if key == keys.events:
            self.model.losses_of_events.append((0.0, time.time()))
        elif key == keys.active:
            self.model.index_evictions.append(time.time())
        elif key == limit:
            self.model.key_evictions[target].append(time.time())
        elif "applied" in key:
            self.model.evictions.append(evicted_at)

    async def _stop_process(self) -> None:
        process = self.chance.choice(self.crew.processes)
        since = process.stop()
        # Until it goes on nobody knows how long it was; it tells nothing before that.
        try:
            await self.last()
        finally:
            self.model.stops[process.number].append((since, process.wake()))
            self.log(f"it was process {process.number}")

    async def _kill_process(self) -> None:
        place = self.chance.randrange(len(self.crew.processes))
        killed, heir = await self.crew.replace(place, self.model.dies)
        self.log(f"process {killed} was killed, process {heir} follows it")

    async def _clear(self) -> None:
        process = self.chance.choice(self.crew.processes)
        scope = self.chance.choice([(None, None), ("b0", None), ("b1", None), ("b0", "m0")])
        await process.do("clear", *scope)
