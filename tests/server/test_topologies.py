"""Each topology that a URL can name: what it takes to get in, and what happens when the server becomes another one."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

import pytest
from redis.crc import key_slot

from rate_coordinator import CoordinatorUnavailable, RateLimitCoordinator, diagnose
from rate_coordinator.keys import Keys
from tests.conftest import NEWEST, OLDEST, SERVERS
from tests.servers import RedisServer, eventually, free_port, listed_rights
from tests.tls import Certificates, TlsProxy, speaks_tls, tls_port
from tests.topologies import SERVICE, SLOTS, Cluster, Sentinel, SentinelTrio, member_port, within

PASSWORD, SENTINEL_PASSWORD = "s3cr3t/of@the:data?", "s3cr3t&of=the#guards"
QUOTED, SENTINEL_QUOTED = quote(PASSWORD, safe=""), quote(SENTINEL_PASSWORD, safe="")
AFTER_AGREEMENT_SECONDS = 5.0
"""Within this a listener has left a master that the Sentinels do not take for one any more."""


class Connect(Protocol):
    """Makes started coordinators of the test's namespace, and closes them after the test."""

    async def __call__(self, url: str, **settings: Any) -> RateLimitCoordinator: ...


@pytest.fixture
def namespace() -> str:
    return f"test {uuid4()}"


@pytest.fixture
async def connect(namespace: str) -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        async def connect(url: str, **settings: Any) -> RateLimitCoordinator:
            coordinator = RateLimitCoordinator.from_url(url, **{"namespace": namespace, **settings})
            return await stack.enter_async_context(coordinator)

        yield connect


@pytest.fixture(scope="module")
def trio() -> Iterator[SentinelTrio]:
    """A trio whose master may be killed: it has passwords, and is put in order again."""
    with SentinelTrio(NEWEST, password=PASSWORD, sentinel_password=SENTINEL_PASSWORD) as trio:
        yield trio


@pytest.fixture(scope="module", params=[NEWEST, OLDEST], ids=["sharded", "not sharded"])
def fragile(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster whose nodes may be killed and whose slots may be moved, with a password."""
    with Cluster(request.param, password=PASSWORD) as cluster:
        yield cluster


def trio_url(trio: SentinelTrio, ports: list[int] | None = None) -> str:
    plain = trio.url_of(*(ports or [sentinel.port for sentinel in trio.sentinels]))
    return plain.replace("://", f"://:{QUOTED}@") + f"?sentinel_password={SENTINEL_QUOTED}"


def cluster_url(cluster: Cluster, ports: list[int] | None = None) -> str:
    plain = cluster.url_of(*(ports or [node.port for node in cluster.nodes[:3]]))
    return plain.replace("://", f"://:{QUOTED}@")


def resume_times(coordinator: RateLimitCoordinator) -> dict[str, int]:
    return {str(limit.target): round(limit.resume_at.timestamp() * 1000) for limit in coordinator.limits}


def in_redis(server: RedisServer, namespace: str) -> dict[str, int]:
    active: Any = server.admin.zrange(Keys(namespace).active, 0, -1, withscores=True)
    return {target: int(resume_at_ms) for target, resume_at_ms in active}


def reported(server: RedisServer, namespace: str) -> list[int]:
    """Return the sheets of all events but those that only put a limit back, in order."""
    entries: Any = server.admin.xrange(Keys(namespace).events)
    details = [fields["details"] for _, fields in entries if '"restores"' not in fields["details"]]
    return sorted(int(match[1]) for text in details if (match := re.search(r'"sheet_num":(\d+)', text)))


async def report_until(coordinator: RateLimitCoordinator, done: Callable[[], bool], within: float = 30.0) -> int:
    """Report one target after another until a condition holds; return how many."""
    deadline = time.monotonic() + within
    number = 0
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        number += 1
        await coordinator.report_rate_limit(f"b{number}", 600.0 + number, "job", number)
        await asyncio.sleep(0.02)
    return number


async def test_waiters_and_reports_outlive_a_master_that_dies(
    trio: SentinelTrio, connect: Connect, namespace: str
) -> None:
    trio.settle()
    one, two = await connect(trio_url(trio)), await connect(trio_url(trio))
    await one.report_rate_limit("long", 600.0)
    await one.report_rate_limit("short", 2.0)
    await eventually(lambda: set(two.active_limits) == {"long", "short"})
    freed, held = (asyncio.create_task(two.wait_until_clear(name)) for name in ("short", "long"))
    master = trio.master
    assert master.admin.wait(2, 5000) == 2
    reconnects = two.health.reconnects
    master.stop()
    killed_at = time.monotonic()
    try:
        count = await report_until(
            one,
            lambda: (
                two.health.reconnects > reconnects
                and {one.health.state, two.health.state} == {"connected"}
                and one.health.reports_buffered == 0
            ),
        )
        print(f"recovered: {time.monotonic() - killed_at:.2f} s")
        async with asyncio.timeout(5):
            assert await freed >= 1.5
        assert not held.done()
        await eventually(lambda: reported(trio.master, namespace) == list(range(1, count + 1)))
        await eventually(lambda: resume_times(one) == resume_times(two) == in_redis(trio.master, namespace))
        assert len(two.active_limits) == count + 1
        await one.clear_limits("long")
        async with asyncio.timeout(5):
            await held
    finally:
        trio.bring_back(master)


async def test_a_master_that_was_stopped_and_woken_is_not_listened_to_any_more(
    trio: SentinelTrio, connect: Connect, namespace: str
) -> None:
    """P27: it still answers, but whatever is published now is published elsewhere."""
    trio.settle()
    patient = {"resync_interval": 1000.0, "ping_timeout": 60.0}
    listener = await connect(trio_url(trio), **patient)
    await listener.report_rate_limit("before", 600.0)
    old = trio.master
    assert old.admin.wait(2, 5000) == 2
    old.pause()
    try:
        await eventually(lambda: len(masters := trio.masters()) == 1 and old.port not in masters, within=20)
    finally:
        old.resume()
    agreed_at = time.monotonic()
    other = await connect(trio_url(trio))
    number = 0
    while not any(name.startswith("after") for name in listener.active_limits):
        number += 1
        assert (await other.report_rate_limit(f"after-{number}", 600.0)).delivered
        await asyncio.sleep(0.05)
        assert time.monotonic() < agreed_at + AFTER_AGREEMENT_SECONDS
    print(f"heard_again: {time.monotonic() - agreed_at:.2f} s")
    await eventually(lambda: resume_times(listener) == in_redis(trio.master, namespace))
    assert (await listener.report_rate_limit("own", 600.0)).delivered
    assert "own" in in_redis(trio.master, namespace)


async def test_a_slots_master_that_is_killed_is_replaced_by_its_replica(
    fragile: Cluster, connect: Connect, namespace: str
) -> None:
    """P29."""
    one, two = await connect(cluster_url(fragile)), await connect(cluster_url(fragile))
    await one.report_rate_limit("long", 600.0)
    await eventually(lambda: "long" in two.active_limits)
    held = asyncio.create_task(two.wait_until_clear("long"))
    key = Keys(namespace).order
    master = fragile.master_of(key)
    assert master.admin.wait(1, 5000) == 1
    reconnects = two.health.reconnects
    master.stop()
    killed_at = time.monotonic()
    try:
        count = await report_until(
            one,
            lambda: (
                two.health.reconnects > reconnects
                and {one.health.state, two.health.state} == {"connected"}
                and one.health.reports_buffered == 0
            ),
        )
        print(f"recovered: {time.monotonic() - killed_at:.2f} s")
        heir = fragile.master_of(key)
        assert heir is not master
        await eventually(lambda: reported(heir, namespace) == list(range(1, count + 1)))
        await eventually(lambda: resume_times(one) == resume_times(two) == in_redis(heir, namespace))
        assert not held.done()
        await one.clear_limits("long")
        async with asyncio.timeout(5):
            await held
    finally:
        master.start()
        fragile.settle()


async def test_a_slot_that_moves_while_everybody_reports_takes_everything_along(
    fragile: Cluster, connect: Connect, namespace: str
) -> None:
    """P29."""
    one, two = await connect(cluster_url(fragile)), await connect(cluster_url(fragile))
    key = Keys(namespace).order
    source = fragile.master_of(key)
    target = next(node for node in fragile.masters() if node is not source)
    moved = asyncio.Event()
    reporting = asyncio.create_task(report_until(one, moved.is_set))
    await eventually(lambda: len(two.active_limits) >= 5)
    began = time.monotonic()
    await asyncio.to_thread(fragile.move, key_slot(key.encode()), source, target)
    moved_at = time.monotonic()
    await eventually(lambda: one.health.reports_buffered == 0 and one.health.state == "connected")
    await eventually(lambda: two.health.state == "connected")
    known = len(two.active_limits)
    await eventually(lambda: len(two.active_limits) >= known + 5)
    print(f"moving: {moved_at - began:.2f} s")
    print(f"recovered: {time.monotonic() - moved_at:.2f} s")
    moved.set()
    count = await reporting
    assert fragile.master_of(key) is target
    await eventually(lambda: reported(target, namespace) == list(range(1, count + 1)))
    await eventually(lambda: resume_times(one) == resume_times(two) == in_redis(target, namespace))
    assert len(two.active_limits) == count


async def test_a_slot_that_nobody_reports_to_is_followed_as_well(
    fragile: Cluster, connect: Connect, namespace: str
) -> None:
    listener = await connect(cluster_url(fragile), resync_interval=1000.0)
    await listener.report_rate_limit("before", 600.0)
    key = Keys(namespace).order
    source = fragile.master_of(key)
    target = next(node for node in fragile.masters() if node is not source)
    await asyncio.to_thread(fragile.move, key_slot(key.encode()), source, target)
    moved_at = time.monotonic()
    await eventually(lambda: listener.health.reconnects == 1, within=AFTER_AGREEMENT_SECONDS)
    await eventually(lambda: listener.health.state == "connected")
    other = await connect(cluster_url(fragile))
    await other.report_rate_limit("after", 600.0)
    await eventually(lambda: set(listener.active_limits) == {"before", "after"})
    assert time.monotonic() - moved_at < 2 * AFTER_AGREEMENT_SECONDS


async def test_notices_stay_on_one_shard_where_channels_belong_to_slots(
    cluster: Cluster, connect: Connect, namespace: str
) -> None:
    coordinator = await connect(cluster.url)
    channel = Keys(namespace).notices
    node = cluster.master_of(channel)
    assert node.admin.pubsub_shardnumsub(channel, target_nodes=None) == [(channel, 1)]
    assert node.admin.pubsub_numsub(channel) == [(channel, 0)]
    await coordinator.report_rate_limit("openai", 60.0)
    await eventually(lambda: coordinator.health.notices_received == 1)


async def test_some_seeds_may_be_dead(sentinel_trio: SentinelTrio, cluster: Cluster, connect: Connect) -> None:
    dead = free_port()
    for url in (
        sentinel_trio.url_of(dead, sentinel_trio.sentinels[1].port),
        cluster.url_of(dead, cluster.nodes[4].port),
    ):
        began = time.monotonic()
        coordinator = await connect(url)
        assert time.monotonic() - began < 3
        assert (await coordinator.report_rate_limit("openai", 60.0)).delivered


async def test_a_silent_seed_holds_up_nobody_for_long(
    sentinel_trio: SentinelTrio, cluster: Cluster, connect: Connect
) -> None:
    held: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        for url in (
            sentinel_trio.url_of(port, *(one.port for one in sentinel_trio.sentinels[:2])),
            cluster.url_of(port, cluster.nodes[4].port),
        ):
            coordinator = await connect(url)
            assert (await coordinator.report_rate_limit("openai", 60.0)).delivered
            await coordinator.aclose()
        assert held
        for writer in held:
            writer.transport.abort()


async def test_the_nodes_of_a_cluster_that_the_url_does_not_name_are_learned(
    fragile: Cluster, connect: Connect, namespace: str
) -> None:
    master = fragile.master_of(Keys(namespace).order)
    seed = next(node for node in fragile.masters() if node is not master)
    coordinator = await connect(cluster_url(fragile, [seed.port]))
    await coordinator.report_rate_limit("before", 60.0)
    seed.pause()
    try:
        reconnects = coordinator.health.reconnects
        master.admin.client_kill_filter(_type="normal", skipme=True)
        master.admin.client_kill_filter(_type="pubsub")
        await eventually(lambda: coordinator.health.reconnects > reconnects)
        assert (await coordinator.report_rate_limit("after", 60.0)).delivered
    finally:
        seed.resume()
        fragile.settle()


def refused_urls(trio: SentinelTrio, cluster: Cluster) -> dict[str, tuple[str, str]]:
    """Return URLs that lead nowhere, each with what its error says."""
    dead = free_port()
    wrong = "wr0ng"
    guards, nodes = trio_url(trio), cluster_url(cluster)
    return {
        "unknown service": (guards.replace(SERVICE, "nobody"), "no Sentinel knows the service 'nobody'"),
        "no Sentinel": (trio.url_of(dead), f"no Sentinel answers.*127.0.0.1:{dead}"),
        "no node": (cluster.url_of(dead), f"no node of the cluster answers.*127.0.0.1:{dead}"),
        "wrong password of the Sentinels": (guards.replace(SENTINEL_QUOTED, wrong), "no Sentinel answers.*password"),
        "wrong password of the data": (guards.replace(QUOTED, wrong), r"\(127.0.0.1:\d+\).*password"),
        "wrong password of a cluster": (nodes.replace(QUOTED, wrong), "no node of the cluster answers.*password"),
        "no password of a cluster": (nodes.replace(f":{QUOTED}@", ""), "no node of the cluster answers.*uthenticat"),
    }


async def test_what_leads_nowhere_is_one_clear_error_within_the_connect_timeout(
    trio: SentinelTrio, fragile: Cluster
) -> None:
    for what, (url, said) in refused_urls(trio, fragile).items():
        began = time.monotonic()
        with pytest.raises(CoordinatorUnavailable) as caught:
            async with RateLimitCoordinator.from_url(url, connect_timeout=2.0):
                pass
        assert time.monotonic() - began < 2.5, what
        assert re.search(said, str(caught.value)), (what, str(caught.value))
        for shown in (str(caught.value), repr(caught.value.__cause__)):
            assert "s3cr3t" not in shown
            assert "wr0ng" not in shown
        diagnosis = await diagnose(url, connect_timeout=2.0)
        assert [finding.name for finding in diagnosis.findings if finding.status == "wrong"] == ["reachable"], what
        assert ("user and the password" in str(diagnosis.findings[0].advice)) == ("password" in what)


async def test_a_start_that_is_allowed_to_fail_connects_when_the_sentinels_are_there(
    trio: SentinelTrio, connect: Connect
) -> None:
    for sentinel in trio.sentinels:
        sentinel.stop()
    coordinator = RateLimitCoordinator.from_url(trio_url(trio), connect_timeout=1.0, command_timeout=1.0)
    try:
        await coordinator.start(degraded_ok=True)
        assert coordinator.health.state == "degraded"
        assert not (await coordinator.report_rate_limit("openai", 60.0)).delivered
    finally:
        for sentinel in trio.sentinels:
            sentinel.start()
    await eventually(lambda: coordinator.health.state == "connected" and not coordinator.health.reports_buffered)
    await coordinator.clear_limits()
    await coordinator.aclose()


async def test_sentinels_that_are_gone_are_no_reason_to_leave_a_master_that_answers(
    trio: SentinelTrio, connect: Connect
) -> None:
    coordinator = await connect(trio_url(trio), ping_interval=0.1)
    for sentinel in trio.sentinels:
        sentinel.stop()
    try:
        for number in range(5):
            await asyncio.sleep(0.1)
            assert (await coordinator.report_rate_limit(f"b{number}", 60.0)).delivered
        assert coordinator.health.state == "connected"
        assert coordinator.health.reconnects == 0
    finally:
        for sentinel in trio.sentinels:
            sentinel.start()
        assert trio.master.running


@pytest.mark.parametrize("which", ["sentinel_trio", "cluster", "old_cluster"])
async def test_a_healthy_topology_is_diagnosed_as_such(which: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(which).url
    diagnosis = await diagnose(url, "test diagnosis")
    assert [finding.name for finding in diagnosis.findings if finding.status == "wrong"] == ["persistence"]
    assert diagnosis.address == url
    assert diagnosis.notice_delay_seconds is not None


def rights(*more: str) -> list[str]:
    """Return the rights that the README lists, and those that it says are needed beside them."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    assert all(right in text[text.index("Beside the rights above") :] for right in more)
    return [*listed_rights(), "~*", "&*", *more]


async def test_the_rights_that_are_listed_for_a_cluster_are_enough(fragile: Cluster, connect: Connect) -> None:
    sharded = fragile.nodes[0].admin.info("server")["redis_version"] >= "7"
    more = ["+cluster|slots", *(["+ssubscribe", "+spublish"] if sharded else [])]
    for node in fragile.nodes:
        node.admin.execute_command("ACL", "SETUSER", "coordinator", *rights(*more))  # type: ignore[no-untyped-call]
    url = fragile.url.replace("://", "://coordinator:password@")
    one, two = await connect(url), await connect(url)
    await one.report_rate_limit("openai", 60.0)
    await eventually(lambda: two.active_limits)
    assert two.health.last_error is None


async def test_the_rights_that_are_listed_for_sentinels_are_enough(trio: SentinelTrio, connect: Connect) -> None:
    for node in trio.nodes:
        node.admin.execute_command("ACL", "SETUSER", "coordinator", *rights("+role"))  # type: ignore[no-untyped-call]
    url = trio_url(trio).replace(f":{QUOTED}@", "coordinator:password@")
    one, two = await connect(url), await connect(url)
    await one.report_rate_limit("openai", 60.0)
    await eventually(lambda: two.active_limits)


async def test_a_database_can_be_chosen_behind_sentinels(
    sentinel_trio: SentinelTrio, connect: Connect, namespace: str
) -> None:
    url = sentinel_trio.url_of(sentinel_trio.sentinels[0].port, database="/3")
    coordinator = await connect(url)
    await coordinator.report_rate_limit("openai", 60.0)
    keyspace: Any = sentinel_trio.master.admin.info("keyspace")
    assert "db3" in keyspace


@pytest.mark.parametrize("ask_clients", [False, True], ids=["with a CA", "with a client certificate"])
async def test_a_server_speaks_tls(certificates: Certificates, connect: Connect, ask_clients: bool) -> None:
    server = next((server for server in SERVERS if speaks_tls(server)), NEWEST)
    options = f"{certificates.trust}&{certificates.identity}" if ask_clients else certificates.trust
    with tls_port(server, certificates, ask_clients=ask_clients) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        one, two = await connect(f"{url}?{options}"), await connect(f"{url}?{options}&ssl_check_hostname=true")
        await one.report_rate_limit("openai", 60.0)
        await eventually(lambda: two.active_limits)
        assert one.address == url
        wrong = [certificates.trust.replace("ca.pem", "other.pem"), ""]
        wrong += [certificates.trust] if ask_clients else []
        for bad in wrong:
            began = time.monotonic()
            with pytest.raises(CoordinatorUnavailable, match=r"(?i)certificate|ssl|tls|closed|reset"):
                await connect(f"{url}?{bad}", connect_timeout=2.0)
            assert time.monotonic() - began < 2.5
        await one.aclose()
        await two.aclose()


@pytest.fixture
def behind_tls(certificates: Certificates, request: pytest.FixtureRequest) -> Iterator[str]:
    """A Sentinel and its master, or a cluster of one node: what they tell of is where TLS is spoken."""
    with ExitStack() as stack:
        if request.param == "cluster":
            node = RedisServer(NEWEST.path, port=member_port(), cluster_enabled="yes", cluster_config_file="nodes.conf")
            proxy = stack.enter_context(TlsProxy(certificates, node.port))
            stack.callback(node.close)
            node.configure(cluster_announce_port=str(proxy.port))
            node.start()
            node.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)  # type: ignore[no-untyped-call]
            within(lambda: node.admin.cluster("info")["cluster_state"] == "ok")
            yield f"rediss+cluster://127.0.0.1:{proxy.port}"
        else:
            master = stack.enter_context(RedisServer(NEWEST.path))
            proxy = stack.enter_context(TlsProxy(certificates, master.port))
            sentinel = Sentinel(NEWEST.path)
            stack.callback(sentinel.close)
            sentinel.configure([f"sentinel monitor {SERVICE} 127.0.0.1 {proxy.port} 1"])
            sentinel.start()
            within(lambda: sentinel.admin.ping())
            guard = stack.enter_context(TlsProxy(certificates, sentinel.port))
            yield f"rediss+sentinel://127.0.0.1:{guard.port}/{SERVICE}"


@pytest.mark.parametrize("behind_tls", ["sentinel", "cluster"], indirect=True)
async def test_sentinels_and_clusters_speak_tls(behind_tls: str, certificates: Certificates, connect: Connect) -> None:
    url = f"{behind_tls}?{certificates.trust}"
    one, two = await connect(url), await connect(url)
    await one.report_rate_limit("openai", 60.0)
    await eventually(lambda: two.active_limits)
    with pytest.raises(CoordinatorUnavailable, match=r"(?i)certificate"):
        await connect(f"{behind_tls}?{certificates.trust.replace('ca.pem', 'other.pem')}", connect_timeout=2.0)
    await one.aclose()
    await two.aclose()


async def test_a_socket_is_a_place_like_any_other(connect: Connect, tmp_path: Path) -> None:
    with RedisServer(NEWEST.path) as server:
        one, two = await connect(f"unix://{server.socket}?db=2"), await connect(f"redis://127.0.0.1:{server.port}/2")
        await one.report_rate_limit("openai", 60.0)
        await eventually(lambda: two.active_limits)
        await one.aclose()
        await two.aclose()
