"""A process of the fleet: its tasks make their share of the calls by one strategy, within bounds."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Literal

from benchmarks.harness import Options, monotonic_ns, receive
from benchmarks.herd.client import HttpClient
from benchmarks.herd.policies import SECOND_NS, Policy
from benchmarks.herd.strategies import STRATEGIES, Strategy, Surroundings

Stop = Literal["time", "requests"]


@dataclass(frozen=True)
class Job:
    """What a process is to do."""

    port: int
    strategy: str
    namespace: str
    policy: Policy
    tasks: int
    calls: int
    most_requests: int
    most_seconds: float


@dataclass
class Work:
    """What came of it."""

    sent: int = 0
    ended_ns: int = 0
    """When the last call had been served, or a bound was hit."""
    call_seconds: list[float] = field(default_factory=list)
    """How long each took, all its requests and waits together."""
    stopped_by: Stop | None = None
    """The bound that ended it before all calls were made."""


class _Desk:
    """Hands out the process's calls to its tasks, and takes down what becomes of them."""

    def __init__(self, job: Job, strategy: Strategy) -> None:
        self._job = job
        self._strategy = strategy
        self._left = job.calls
        self._bound = asyncio.timeout(None)
        self.work = Work()

    async def make_all(self, clients: list[HttpClient]) -> None:
        """Make all calls, or as many as the bounds allow."""
        try:
            async with self._bound, asyncio.TaskGroup() as tasks:
                self._bound.reschedule(asyncio.get_running_loop().time() + self._job.most_seconds)
                for client in clients:
                    tasks.create_task(self._call_on(client))
        except TimeoutError:
            self.work.stopped_by = self.work.stopped_by or "time"
        self.work.ended_ns = monotonic_ns()

    async def _call_on(self, client: HttpClient) -> None:
        """Make one call after the other until none is left."""
        send = partial(self._send, client)
        while self._left:
            self._left -= 1
            began_ns = monotonic_ns()
            await self._strategy(send)
            self.work.call_seconds.append((monotonic_ns() - began_ns) / SECOND_NS)

    async def _send(self, client: HttpClient) -> float | None:
        if self.work.sent == self._job.most_requests:
            self.work.stopped_by = "requests"
            self._bound.reschedule(0)
            await asyncio.Event().wait()
        self.work.sent += 1
        return await client.get()


async def work(options: Options, pipe: Connection, job: Job) -> None:
    """Be one of the processes: say when it is ready, receive when to start, send what came of it."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(HttpClient.connected(job.port)) for _ in range(job.tasks)]
        pipe.send("ready")
        start_ns = await receive(pipe)
        around = Surroundings(options.url, job.namespace, job.policy, start_ns, job.tasks, job.most_seconds)
        desk = _Desk(job, await stack.enter_async_context(STRATEGIES[job.strategy](around)))
        await asyncio.sleep((start_ns - monotonic_ns()) / SECOND_NS)
        await desk.make_all(clients)
        pipe.send(desk.work)
        # Their end comes with ours, so that nobody's leaving is in another's way.
        await asyncio.to_thread(pipe.poll, 60.0)
