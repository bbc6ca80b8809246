"""A network that loses, delays, cuts or moves connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.harness import Expect, trial
from tests.faults.proxy import Connection, Faults, Proxy, Way, commands, everyone, listeners
from tests.faults.test_server import REFUSED, nothing
from tests.servers import RedisServer

BOTH: frozenset[Way] = frozenset({"requests", "replies"})
REQUESTS: frozenset[Way] = frozenset({"requests"})
REPLIES: frozenset[Way] = frozenset({"replies"})


def names(ways: frozenset[Way]) -> str:
    return " and ".join(sorted(ways))


@pytest.mark.parametrize("ways", [BOTH, REQUESTS, REPLIES], ids=names)
async def test_a_black_hole(server: RedisServer, proxy: Proxy, ways: frozenset[Way]) -> None:
    """P26 P41: what was sent meanwhile arrives when the network is back, as TCP sends it again."""

    async def swallow() -> None:
        proxy.go_wrong(Faults(holes=ways))

    async def heal() -> None:
        proxy.heal()

    async with trial(server, proxy.url) as given:
        await given.survive(
            f"black hole: {names(ways)}", swallow, heal, Expect(says="silent|no answer|no connection", stalls=3.0)
        )


@pytest.mark.parametrize("concerned", [everyone, commands, listeners])
async def test_a_black_hole_whose_connections_stay_dead(
    server: RedisServer, proxy: Proxy, concerned: Callable[[Connection], bool]
) -> None:
    """P26: no side is ever told; a router forgot them."""

    async def swallow() -> None:
        proxy.go_wrong(Faults(concerned, holes=BOTH))

    async def heal() -> None:
        proxy.heal(forget=True)

    async with trial(server, proxy.url) as given:
        await given.survive(
            f"black hole, and the connections stay dead: {concerned.__name__}",
            swallow,
            heal,
            Expect(says="silent|no answer|no connection", stalls=3.0, lasts=0.8),
        )


async def test_a_subscription_that_dies_silently_is_noticed_within_ten_seconds_by_default(
    server: RedisServer, proxy: Proxy
) -> None:
    """P26: the network works all the time, but for this one connection; nothing else tells."""

    async def swallow() -> None:
        proxy.go_wrong(Faults(listeners, holes=BOTH))
        proxy.heal(forget=True)

    async with trial(server, proxy.url, connect_timeout=5.0) as given:
        outcome = await given.survive(
            "subscription dies silently, default settings", swallow, nothing, Expect(within=10.0, heals=True)
        )
        assert 2.0 < outcome.shown_after < 10.0


@pytest.mark.timeout(120)
async def test_connections_that_die_silently_in_a_longer_outage_are_survived_with_the_default_settings(
    server: RedisServer, proxy: Proxy
) -> None:
    """P26 P41: the longest that it may take, with the library's own defaults."""

    async def swallow() -> None:
        proxy.go_wrong(Faults(holes=BOTH))

    async def heal() -> None:
        proxy.heal(forget=True)

    async with trial(server, proxy.url, connect_timeout=5.0) as given:
        await given.survive(
            "black hole, and the connections stay dead, default settings",
            swallow,
            heal,
            Expect(says="silent|no answer|no connection", within=10.0, lasts=8.0, stalls=15.0),
        )


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_replies_that_end_in_the_middle(server: RedisServer, proxy: Proxy, reset: bool) -> None:
    """P35: the server has done what it was asked; it is done once."""

    async def cut() -> None:
        proxy.go_wrong(Faults(commands, truncate=9, reset=reset))

    async def heal() -> None:
        proxy.heal()

    async with trial(server, proxy.url) as given:
        await given.survive(
            f"{'reset' if reset else 'end of the connection'} in the middle of every reply",
            cut,
            heal,
            Expect(says="closed|[Rr]eset"),
        )
        assert proxy.lost > 3


async def test_one_reply_that_ends_in_the_middle_is_no_outage(server: RedisServer, proxy: Proxy) -> None:
    """P35 P36."""

    async def cut() -> None:
        lose = iter([True])
        proxy.lose_reply = lambda request: b"sheet_num" in request and next(lose, False)

    async with trial(server, proxy.url) as given:
        await given.survive("one lost reply", cut, nothing, Expect(degraded=False))
        assert proxy.lost == 1


async def test_replies_that_come_byte_by_byte(server: RedisServer, proxy: Proxy) -> None:
    """P41: a connection that is never silent, and never done."""

    async def drip() -> None:
        proxy.go_wrong(Faults(drip=0.05))

    async def heal() -> None:
        proxy.heal()

    async with trial(server, proxy.url) as given:
        await given.survive("slow drip", drip, heal, Expect(says="no answer|silent"))


async def test_a_slow_and_unsteady_network_is_no_outage(server: RedisServer, proxy: Proxy) -> None:
    async def slow_down() -> None:
        proxy.go_wrong(Faults(latency=0.03, jitter=0.03))

    async def heal() -> None:
        proxy.heal()

    async with trial(server, proxy.url) as given:
        # Some reports stand behind other calls of the same connection, each as slow as they are.
        expect = Expect(degraded=False, stalls=0.7)
        await given.survive("latency 30 ms and jitter 30 ms each way", slow_down, heal, expect)


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_a_connection_that_the_server_closes(server: RedisServer, kind: str) -> None:
    """P28 P36: the command connection is renewed within the call, the subscription a moment later."""

    async def kill() -> None:
        assert server.admin.client_kill_filter(_type=kind, skipme=True) == 1

    async with trial(server) as given:
        await given.survive(
            f"CLIENT KILL TYPE {kind}", kill, nothing, Expect(degraded=kind == "pubsub", heals=True, lasts=1.5)
        )


async def test_a_name_that_moves_to_another_address(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo
    address = "127.0.0.1"

    async def getaddrinfo(host: Any, *arguments: Any, **keywords: Any) -> Any:
        return await resolve(address if host == "redis.example" else host, *arguments, **keywords)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with Proxy(server.port) as old, Proxy(server.port, "127.0.0.2", old.port) as new:

        async def vanish() -> None:
            await old.close()

        async def move() -> None:
            nonlocal address
            address = "127.0.0.2"

        async with trial(server, f"redis://redis.example:{old.port}") as given:
            await given.survive("DNS name moves to another address", vanish, move, Expect(says=REFUSED, lasts=1.0))
        assert new.accepted >= 2


async def test_a_name_that_is_not_found_for_a_while(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo
    known = True

    async def getaddrinfo(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if host == "redis.example" and not known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await resolve("127.0.0.1" if host == "redis.example" else host, *arguments, **keywords)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with Proxy(server.port) as proxy:

        async def forget() -> None:
            nonlocal known
            known = False
            proxy.break_all()

        async def remember() -> None:
            nonlocal known
            known = True

        async with trial(server, f"redis://redis.example:{proxy.port}") as given:
            await given.survive("DNS name not found", forget, remember, Expect(says="Name or service", lasts=1.0))
