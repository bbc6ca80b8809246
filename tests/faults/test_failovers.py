"""A server that another one takes over from, behind Sentinels and in a cluster: all that is promised for bad days."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis.crc import key_slot

from rate_coordinator.keys import Keys
from tests.conftest import NEWEST, OLDEST
from tests.faults.harness import NAMESPACE, Expect, trial
from tests.servers import RedisServer
from tests.topologies import SERVICE, Cluster, SentinelTrio

KEY = Keys(NAMESPACE).order
ANYTHING = "."


@pytest.fixture
def trio() -> Iterator[SentinelTrio]:
    with SentinelTrio(NEWEST) as trio:
        yield trio


@pytest.fixture(params=[NEWEST, OLDEST], ids=["sharded", "not sharded"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param) as cluster:
        yield cluster


def kind(cluster: Cluster) -> str:
    return "sharded" if cluster.nodes[0].binary == NEWEST.path else "not sharded"


def in_step(master: RedisServer, replicas: int) -> None:
    """Wait until the replicas have everything: what they have not is lost with the master, whatever a client does."""
    master.admin.set("{" + NAMESPACE + "}:in step", "1")
    assert master.admin.wait(replicas, 5000) == replicas


# Another server process answers: what it may lack is looked for, and put back with a second warning.
TAKEN_OVER = Expect(says=ANYTHING, lasts=0.2, within=10.0, warnings=2, stalls=3.0)
# It may be in charge for another moment, in its own eyes, and be heard until it learns better.
WOKEN = replace(TAKEN_OVER, relapses=1)


async def test_a_master_behind_sentinels_that_is_killed(trio: SentinelTrio) -> None:
    async with trial(trio.master, trio.url, trio.url) as given:
        old = given.server

        async def kill() -> None:
            await asyncio.to_thread(in_step, old, 2)
            await asyncio.to_thread(old.stop)

        async def taken_over() -> None:
            given.server = await asyncio.to_thread(trio.successor_of, old)

        await given.survive("Sentinel: master killed, from agreement on", kill, taken_over, TAKEN_OVER)


async def test_a_master_behind_sentinels_that_stands_still_and_is_woken(trio: SentinelTrio) -> None:
    """P27."""
    async with trial(trio.master, trio.url, trio.url) as given:
        old = given.server

        async def pause() -> None:
            await asyncio.to_thread(in_step, old, 2)
            old.pause()

        async def taken_over() -> None:
            given.server = await asyncio.to_thread(trio.successor_of, old)
            old.resume()

        await given.survive("Sentinel: master stopped and woken", pause, taken_over, WOKEN)


async def test_a_fail_over_that_an_operator_orders(trio: SentinelTrio) -> None:
    async with trial(trio.master, trio.url, trio.url) as given:
        old = given.server

        async def order() -> None:
            await asyncio.to_thread(in_step, old, 2)
            await asyncio.to_thread(trio.sentinels[0].admin.sentinel_failover, SERVICE)

        async def taken_over() -> None:
            given.server = await asyncio.to_thread(trio.successor_of, old)

        expect = replace(TAKEN_OVER, brief=True)
        await given.survive("Sentinel: SENTINEL FAILOVER", order, taken_over, expect)


async def test_a_node_of_a_cluster_that_is_killed(cluster: Cluster) -> None:
    """P29."""
    async with trial(cluster.master_of(KEY), cluster.url, cluster.url) as given:
        old = given.server

        async def kill() -> None:
            await asyncio.to_thread(in_step, old, 1)
            await asyncio.to_thread(old.stop)

        async def taken_over() -> None:
            given.server = await asyncio.to_thread(cluster.successor_of, old, KEY)

        await given.survive(f"Cluster ({kind(cluster)}): node killed, from agreement on", kill, taken_over, TAKEN_OVER)


async def test_a_node_of_a_cluster_that_stands_still_and_is_woken(cluster: Cluster) -> None:
    """P29."""
    async with trial(cluster.master_of(KEY), cluster.url, cluster.url) as given:
        old = given.server

        async def pause() -> None:
            await asyncio.to_thread(in_step, old, 1)
            old.pause()

        async def taken_over() -> None:
            given.server = await asyncio.to_thread(cluster.successor_of, old, KEY)
            old.resume()

        await given.survive(f"Cluster ({kind(cluster)}): node stopped and woken", pause, taken_over, WOKEN)


async def test_a_slot_that_moves(cluster: Cluster) -> None:
    """P29."""
    async with trial(cluster.master_of(KEY), cluster.url, cluster.url) as given:
        old = given.server
        new = next(node for node in cluster.masters() if node is not old)

        async def move() -> None:
            given.server = new
            await asyncio.to_thread(cluster.move, key_slot(KEY.encode()), old, new)

        async def moved() -> None:
            pass

        await given.survive(
            f"Cluster ({kind(cluster)}): slot moved", move, moved, Expect(heals=True, lasts=2.0, warnings=2)
        )
