"""A fleet that loses its server and finds it again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from tests.faults.fleet import Fleet
from tests.metronome import Metronome
from tests.servers import RedisServer, eventually

COORDINATORS = 200
PROCESSES = 4
WINDOW_SECONDS = 0.25
MOST_PER_WINDOW = COORDINATORS
"""Of the 400 connections of 200 coordinators, no more than half in any quarter of a second."""
MOST_PER_SECOND = 2 * COORDINATORS + 50


@pytest.fixture
def metronome() -> Iterator[Metronome]:
    """Tells how long the machine stood still."""
    with Metronome() as beating:
        yield beating


@pytest.fixture
async def fleet(server: RedisServer) -> AsyncIterator[list[Fleet]]:
    """Two hundred coordinators in four processes."""
    server.admin.config_set("maxclients", "5000")
    each = COORDINATORS // PROCESSES
    async with AsyncExitStack() as stack:
        parts = [Fleet(server.url, "test", number * each, each) for number in range(PROCESSES)]
        yield list(await asyncio.gather(*(stack.enter_async_context(part) for part in parts)))


async def states(fleet: list[Fleet]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in await asyncio.gather(*(part.ask("states") for part in fleet)):
        for state, count in part.items():
            total[state] = total.get(state, 0) + count
    return total


class Meter:
    """Reads how many connections the server has taken, all the time."""

    def __init__(self, server: RedisServer) -> None:
        self.samples: list[tuple[float, int]] = []
        self._client = redis.Redis(port=server.port, protocol=2, decode_responses=True)

    async def run(self) -> None:
        while True:
            # Bounded by the pause, and over one connection of its own.
            taken: Any = self._client.info("stats")
            self.samples.append((time.monotonic(), int(taken["total_connections_received"])))
            await asyncio.sleep(0.01)

    def most_within(self, seconds: float) -> int:
        """Return the most connections in any stretch of so many seconds."""
        most, first = 0, 0
        for at, taken in self.samples:
            while self.samples[first][0] < at - seconds:
                first += 1
            most = max(most, taken - self.samples[first][1])
        return most

    def close(self) -> None:
        self._client.close()


async def all_connected(fleet: list[Fleet]) -> bool:
    found = await states(fleet)
    return found.get("connected", 0) == COORDINATORS and found["kept"] == 0


@pytest.mark.parametrize("how", ["restart", "CLIENT KILL"])
async def test_two_hundred_coordinators_come_back_without_a_spike_and_replay_spread_out(
    server: RedisServer, fleet: list[Fleet], metronome: Metronome, how: str
) -> None:
    """P42: neither the connections nor what was kept come in the same instant."""
    kept = 0
    if how == "restart":
        await asyncio.to_thread(server.stop)
        # Until the pauses between two attempts have grown to their longest.
        await asyncio.sleep(2.5)
        for part in fleet:
            kept += (await part.ask("report")).get("False", 0)
        assert kept == COORDINATORS
        await asyncio.to_thread(server.start)
    meter = Meter(server)
    metering = asyncio.create_task(meter.run())
    back = time.monotonic()
    if how == "CLIENT KILL":
        for kind in ("pubsub", "normal"):
            server.admin.client_kill_filter(_type=kind, skipme=True)
        meter.close()
    await eventually(lambda: all_connected(fleet))
    recovered = time.monotonic() - back
    await asyncio.sleep(WINDOW_SECONDS)
    metering.cancel()
    await asyncio.wait([metering])
    meter.close()
    window, second = meter.most_within(WINDOW_SECONDS), meter.most_within(1.0)
    entries: Any = server.admin.xrange("{test}:events")
    times = sorted(int(entry_id.partition("-")[0]) for entry_id, _ in entries)
    crowd = max((sum(start <= at < start + 100 for at in times) for start in times), default=0)
    print(
        f"\n{how}: all back after {recovered:.2f} s; at most {window} connections in {WINDOW_SECONDS:g} s "
        f"and {second} in 1 s; {len(times)} replays, at most {crowd} in 0.1 s",
        end="",
    )
    # What was due while the machine stood still comes at once afterwards.
    stall = metronome.longest_stall
    assert recovered < 5.0 + 1.0 + stall
    assert window <= MOST_PER_WINDOW * (1 + stall / WINDOW_SECONDS)
    assert second <= MOST_PER_SECOND
    assert len(times) == kept
    assert crowd <= max(1, kept // 2 + kept * stall)
