"""From ``from_url`` to ``aclose``: what starts when, what an error says, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
import redis

from rate_coordinator import (
    CoordinatorClosed,
    CoordinatorError,
    CoordinatorMisuse,
    CoordinatorUnavailable,
    ForkedCoordinator,
    RateLimitChecker,
    RateLimitCoordinator,
    ServerUnsuitable,
    WrongEventLoop,
)
from rate_coordinator.keys import Keys
from tests.conftest import Make, Place
from tests.servers import RedisServer, eventually, free_port

PASSWORD = "s3cret/pass@word"
QUOTED = "s3cret%2Fpass%40word"


def sockets() -> set[Any]:
    """Return the connections of this process that are not closed."""
    return {c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_ESTABLISHED}


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Check that no task and no socket outlives the block."""
    tasks, connections = asyncio.all_tasks(), sockets()
    yield
    gc.collect()
    assert await eventually(lambda: asyncio.all_tasks() <= tasks or None), asyncio.all_tasks() - tasks
    await eventually(lambda: sockets() <= connections)


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Give the URL of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"redis://:{QUOTED}@127.0.0.1:{server.getsockname()[1]}"


def test_making_a_coordinator_does_no_io_and_needs_no_loop() -> None:
    before = sockets()
    coordinator = RateLimitCoordinator.from_url(f"redis://:{QUOTED}@192.0.2.1:6379/3?client_name=x")
    assert sockets() == before
    assert coordinator.health.state == "new"
    assert coordinator.active_limits == {}
    assert coordinator.recent_events == []
    assert isinstance(coordinator, RateLimitChecker)
    assert "s3cret" not in repr(coordinator) + repr(coordinator.health) + coordinator.address
    assert "192.0.2.1:6379" in repr(coordinator)


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.is_rate_limited("openai"),
        lambda c: c.report_rate_limit("openai", 5.0),
        lambda c: c.wait_until_clear("openai"),
        lambda c: c.wait_until_any_clear(["openai"]),
        lambda c: c.clear_limits(),
        lambda c: c.prune_stale(),
        lambda c: c.events(),
        lambda c: c.explain("openai"),
        lambda c: c.refresh(),
    ],
    ids=["read", "report", "wait", "wait any", "clear", "prune", "events", "explain", "refresh"],
)
async def test_the_first_use_starts_it(place: Place, make: Make, use: Any) -> None:
    coordinator = await make(start=False)
    await use(coordinator)
    assert coordinator.health.state == "connected"


async def test_concurrent_first_uses_share_one_start(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make(start=False)
    before = {client["id"] for client in admin.client_list()}
    await asyncio.gather(*(coordinator.is_rate_limited(f"b{number}") for number in range(100)))
    assert len({client["id"] for client in admin.client_list()} - before) == 2


async def test_nothing_is_left_behind_after_closing(place: Place) -> None:
    async with nothing_left_behind():
        async with RateLimitCoordinator.from_url(place.url, place.namespace) as coordinator:
            await coordinator.report_rate_limit("openai", 30.0)
            coordinator.on_notice(lambda notice: None)
            stream = coordinator.notices()
        assert [notice async for notice in stream if notice.backend != "openai"] == []
        assert coordinator.health.state == "closed"
        await coordinator.aclose()
        await asyncio.gather(coordinator.aclose(), coordinator.aclose())


async def test_closing_before_starting_is_fine(place: Place) -> None:
    async with nothing_left_behind():
        coordinator = RateLimitCoordinator.from_url(place.url, place.namespace)
        await coordinator.aclose()
        await coordinator.aclose()
        with pytest.raises(CoordinatorClosed):
            await coordinator.start()


async def test_what_is_closed_says_so(place: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.is_rate_limited("openai")
    await coordinator.report_rate_limit("claude", 30.0)
    await coordinator.aclose()
    for use in (
        lambda: coordinator.is_rate_limited("openai"),
        lambda: coordinator.is_rate_limited("claude"),
        lambda: coordinator.report_rate_limit("openai", 5.0),
        lambda: coordinator.wait_until_clear("openai"),
        lambda: coordinator.clear_limits(),
        lambda: coordinator.refresh(),
        lambda: coordinator.start(),
    ):
        with pytest.raises(CoordinatorClosed) as caught:
            await use()
        assert isinstance(caught.value, (CoordinatorError, CoordinatorMisuse))
    with pytest.raises(CoordinatorClosed):
        coordinator.notices()
    with pytest.raises(CoordinatorClosed):
        coordinator.on_notice(print)


async def test_what_is_queued_is_sent_before_closing(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    tasks = [asyncio.create_task(one.report_rate_limit("openai", 30.0, sheet_num=n)) for n in range(300)]
    await asyncio.sleep(0)
    await one.aclose()
    assert all(result.delivered for result in await asyncio.gather(*tasks))
    assert len(await two.events()) == 300


async def test_an_unreachable_server_is_told_within_the_connect_timeout() -> None:
    port = free_port()
    coordinator = RateLimitCoordinator.from_url(f"redis://user:{QUOTED}@127.0.0.1:{port}/0")
    async with nothing_left_behind():
        began = time.monotonic()
        with pytest.raises(CoordinatorUnavailable) as caught:
            await coordinator.start()
        assert time.monotonic() - began < 5.5
        assert isinstance(caught.value, ConnectionError)
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "s3cret" not in repr(caught.value) + str(caught.value) + repr(caught.value.__cause__)
        with pytest.raises(CoordinatorUnavailable):
            await coordinator.is_rate_limited("openai")
        with pytest.raises(CoordinatorUnavailable):
            async with coordinator:
                pass
    await coordinator.aclose()


async def test_a_server_that_says_nothing_is_told_within_the_connect_timeout() -> None:
    async with silent_server() as url, nothing_left_behind():
        coordinator = RateLimitCoordinator.from_url(url, connect_timeout=0.4)
        began = time.monotonic()
        with pytest.raises(CoordinatorUnavailable, match=r"0\.4 s"):
            await coordinator.start()
        assert 0.3 < time.monotonic() - began < 2.0
        assert coordinator.health.state == "new"
        await coordinator.aclose()


async def test_a_start_can_be_repeated_once_the_server_is_there(own_server: RedisServer) -> None:
    own_server.stop()
    coordinator = RateLimitCoordinator.from_url(own_server.url)
    with pytest.raises(CoordinatorUnavailable):
        await coordinator.start()
    own_server.start()
    await coordinator.start()
    await coordinator.report_rate_limit("openai", 30.0)
    await coordinator.aclose()


async def test_it_starts_without_redis_if_that_is_wanted(own_server: RedisServer, make: Make) -> None:
    other = await make()
    await other.report_rate_limit("claude", 60.0)
    own_server.stop()
    coordinator = await make(start=False)
    await coordinator.start(degraded_ok=True)
    assert coordinator.health.state == "degraded"
    assert coordinator.health.degraded_seconds >= 0.0
    assert coordinator.health.last_error
    assert await coordinator.is_rate_limited("openai") == (False, 0.0)
    result = await coordinator.report_rate_limit("openai", 60.0)
    assert not result.delivered
    assert result.seconds_remaining > 59.0
    assert (await coordinator.is_rate_limited("openai"))[0]
    assert coordinator.health.reports_buffered == 1
    with pytest.raises(CoordinatorUnavailable):
        await coordinator.clear_limits()
    own_server.start()
    await eventually(lambda: coordinator.health.state == "connected")
    await eventually(lambda: coordinator.health.reports_buffered == 0)
    await eventually(lambda: "openai" in other.active_limits)
    assert other.active_limits["openai"] < 60.0


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "localhost:6379",
        "",
        "redis://localhost:port",
        "redis://localhost:99999",
        "redis://localhost/name",
        "redis://localhost?no_such_option=1",
        "redis://localhost?db=five",
        "unix://",
        "redis+nothing://localhost",
        None,
        6379,
    ],
)
def test_a_wrong_url_is_refused_when_it_is_given(url: Any) -> None:
    with pytest.raises(ValueError, match="URL"):
        RateLimitCoordinator.from_url(url)


def test_a_wrong_url_is_shown_without_its_password() -> None:
    for url in (f"http://u:{QUOTED}@host", f"redis://:{QUOTED}@host:port", "redis://:s3cret@host/x?password=s3cret"):
        with pytest.raises(ValueError, match="URL") as caught:
            RateLimitCoordinator.from_url(url)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None


async def test_a_wrong_password_is_told_without_it(redis_server: RedisServer) -> None:
    with RedisServer(redis_server.binary, requirepass=PASSWORD) as server:
        right = RateLimitCoordinator.from_url(f"redis://:{QUOTED}@127.0.0.1:{server.port}")
        await right.start()
        await right.aclose()
        for url in (f"redis://:wr0ng@127.0.0.1:{server.port}", server.url):
            coordinator = RateLimitCoordinator.from_url(url)
            with pytest.raises(CoordinatorUnavailable, match=str(server.port)) as caught:
                await coordinator.start()
            assert "wr0ng" not in str(caught.value)
            await coordinator.aclose()


async def test_a_unix_socket_serves_as_well(own_server: RedisServer) -> None:
    async with RateLimitCoordinator.from_url(f"unix://{own_server.socket}?db=0") as coordinator:
        await coordinator.report_rate_limit("openai", 30.0)
        assert (await coordinator.is_rate_limited("openai"))[0]


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        (["+@all", "-time", "~*", "&*"], "TIME"),
        (["+@all", "-xadd", "~*", "&*"], "XADD"),
        (["+@all", "~*", "resetchannels"], "NOPERM|channel"),
        (["+@all", "~*", "resetchannels", "&{test}:notices", "-publish"], "PUBLISH"),
        (["+@all", "-@scripting", "~*", "&*"], "(?i)evalsha"),
        (["+@all", "~elsewhere*", "&*"], "NOPERM|key"),
    ],
    ids=["time", "stream", "channels", "publish", "scripts", "keys"],
)
async def test_rights_that_are_missing_are_one_clear_error_at_start_and_nothing_is_written(
    own_server: RedisServer, rules: list[str], names: str
) -> None:
    """P16 P39: what would let a script fail half-way is found before it runs."""
    own_server.admin.execute_command("ACL", "SETUSER", "limited", "on", ">secret", *rules)  # type: ignore[no-untyped-call]
    coordinator = RateLimitCoordinator.from_url(f"redis://limited:secret@127.0.0.1:{own_server.port}", "test")
    with pytest.raises(ServerUnsuitable, match=names) as caught:
        await coordinator.start()
    assert "secret" not in str(caught.value)
    assert own_server.admin.keys("*") == []
    await coordinator.aclose()


@pytest.mark.parametrize("trouble", ["READONLY", "OOM", "MISCONF"])
async def test_a_server_that_will_recover_is_no_reason_to_refuse_to_start_degraded(
    own_server: RedisServer, trouble: str
) -> None:
    """P40: what passes by itself is unavailability; only what needs a person is unsuitability."""
    admin = own_server.admin
    if trouble == "READONLY":
        admin.replicaof("127.0.0.1", str(free_port()))
    elif trouble == "OOM":
        admin.config_set("maxmemory", "1")
    else:
        own_server.directory.joinpath("dump.rdb").mkdir()
        admin.config_set("save", "3600 1")
        admin.bgsave()
        await eventually(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
    strict = RateLimitCoordinator.from_url(own_server.url, "test")
    with pytest.raises(CoordinatorUnavailable, match=f"{trouble}|maxmemory"):
        await strict.start()
    await strict.aclose()
    patient = RateLimitCoordinator.from_url(own_server.url, "test")
    await patient.start(degraded_ok=True)
    try:
        assert patient.health.state == "degraded"
        assert re.search(f"{trouble}|maxmemory", str(patient.health.last_error))
        assert not (await patient.report_rate_limit("openai", 60.0)).delivered
        admin.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        admin.config_set("maxmemory", "0")
        admin.config_set("save", "")
        await eventually(lambda: patient.health.state == "connected" and not patient.health.reports_buffered)
        assert admin.zrange(Keys("test").active, 0, -1) == ["openai"]
    finally:
        await patient.aclose()


@pytest.mark.parametrize(("policy", "warned"), [("noeviction", False), ("allkeys-lru", True), ("volatile-ttl", True)])
async def test_a_server_that_would_evict_limits_is_warned_of_once_at_start(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture, policy: str, warned: bool
) -> None:
    """P40."""
    own_server.admin.config_set("maxmemory", "100mb")
    own_server.admin.config_set("maxmemory-policy", policy)
    async with RateLimitCoordinator.from_url(own_server.url, "test") as coordinator:
        for _ in range(3):
            await coordinator.refresh()
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == (
        ["the server throws limits away when its memory is full"] if warned else []
    )
    assert [vars(record)["policy"] for record in warnings] == ([policy] if warned else [])


@pytest.mark.parametrize("moment", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_it_can_be_cancelled_anywhere(place: Place, moment: int) -> None:
    async def work(coordinator: RateLimitCoordinator) -> None:
        async with coordinator:
            await coordinator.report_rate_limit("openai", 0.01)
            await coordinator.refresh()
            await coordinator.wait_until_clear("openai")
            await coordinator.clear_limits()

    async with nothing_left_behind():
        coordinator = RateLimitCoordinator.from_url(place.url, place.namespace)
        task = asyncio.create_task(work(coordinator))
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await coordinator.aclose()


async def test_a_cancelled_close_still_closes(place: Place) -> None:
    async with nothing_left_behind():
        coordinator = RateLimitCoordinator.from_url(place.url, place.namespace)
        await coordinator.start()
        closing = asyncio.create_task(coordinator.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await coordinator.aclose()
        assert coordinator.health.state == "closed"


async def test_cancelling_one_of_two_starters_does_not_disturb_the_other(place: Place, make: Make) -> None:
    coordinator = await make(start=False)
    first, second = asyncio.create_task(coordinator.start()), asyncio.create_task(coordinator.start())
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()
    assert coordinator.health.state == "connected"


async def test_cancelling_a_reader_leaves_the_coordinator_working(place: Place, make: Make) -> None:
    coordinator = await make()
    for _ in range(20):
        task = asyncio.create_task(coordinator.refresh())
        await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await coordinator.report_rate_limit("openai", 30.0)
    assert len(await coordinator.events()) == 1


def test_another_event_loop_is_told_so(place: Place) -> None:
    coordinator = RateLimitCoordinator.from_url(place.url, place.namespace)
    with asyncio.Runner() as runner:
        runner.run(coordinator.report_rate_limit("openai", 30.0))
        for use in (coordinator.report_rate_limit, coordinator.wait_until_clear, coordinator.explain):
            arguments: tuple[Any, ...] = ("openai", 5.0) if use == coordinator.report_rate_limit else ("openai",)

            async def elsewhere(use: Any = use, arguments: tuple[Any, ...] = arguments) -> None:
                async with asyncio.timeout(5):
                    await use(*arguments)

            with pytest.raises(WrongEventLoop, match="event loop"):
                asyncio.run(elsewhere())
        with pytest.raises(WrongEventLoop):
            asyncio.run(coordinator.aclose())
        assert runner.run(coordinator.clear_limits()) == 1
        runner.run(coordinator.aclose())


def test_a_loop_that_ended_around_it_does_not_hang_anybody(place: Place) -> None:
    coordinator = RateLimitCoordinator.from_url(place.url, place.namespace)
    asyncio.run(coordinator.report_rate_limit("openai", 30.0))
    with pytest.raises(CoordinatorMisuse):
        asyncio.run(coordinator.report_rate_limit("openai", 30.0))
    with pytest.raises(CoordinatorMisuse):
        asyncio.run(coordinator.is_rate_limited("openai"))


def _use_after_fork(coordinator: RateLimitCoordinator, answers: Any) -> None:
    async def use() -> list[str]:
        told = []
        for attempt in (
            coordinator.is_rate_limited("openai"),
            coordinator.report_rate_limit("openai", 5.0),
            coordinator.wait_until_clear("openai"),
            coordinator.aclose(),
        ):
            try:
                async with asyncio.timeout(5):
                    await attempt
                told.append("worked")
            except Exception as error:
                told.append(type(error).__name__)
        return told

    answers.put(asyncio.run(use()))


def test_a_forked_child_is_told_to_make_its_own(real: Place) -> None:
    """P55: as in a prefork server."""
    context = multiprocessing.get_context("fork")
    with asyncio.Runner() as runner:
        coordinator = RateLimitCoordinator.from_url(real.url, real.namespace)
        runner.run(coordinator.report_rate_limit("openai", 30.0))
        answers = context.Queue()
        child = context.Process(target=_use_after_fork, args=(coordinator, answers))
        # Not from within the loop, and not while another thread holds a lock: what a prefork server does.
        child.start()
        assert answers.get(timeout=20) == [ForkedCoordinator.__name__] * 4
        child.join(20)
        assert child.exitcode == 0
        assert runner.run(coordinator.is_rate_limited("openai"))[0], "the parent goes on undisturbed"
        assert runner.run(coordinator.report_rate_limit("openai", 40.0)).delivered
        runner.run(coordinator.aclose())


async def test_the_embedded_server_says_once_that_nothing_is_shared(caplog: pytest.LogCaptureFixture) -> None:
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        await coordinator.report_rate_limit("openai", 30.0)
        await coordinator.refresh()
    assert len([record for record in caplog.records if "no other" in record.getMessage()]) == 1


async def test_embedded_coordinators_share_by_name_and_only_by_name() -> None:
    async with (
        RateLimitCoordinator.from_url("memory://shared") as one,
        RateLimitCoordinator.from_url("memory://shared") as two,
        RateLimitCoordinator.from_url("memory://other") as other,
        RateLimitCoordinator.from_url("memory://") as alone,
    ):
        await one.report_rate_limit("openai", 30.0)
        await eventually(lambda: two.active_limits)
        await other.refresh()
        await alone.refresh()
        assert other.active_limits == alone.active_limits == {}


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with pytest.raises(ModuleNotFoundError, match=r"rate-coordinator\[embedded\]"):
        RateLimitCoordinator.from_url("memory://")


async def test_the_library_opens_nothing_when_it_is_imported() -> None:
    code = """
import threading, psutil
process = psutil.Process()
before = process.num_fds()
import rate_coordinator
print(threading.active_count(), process.num_fds() - before, len(process.net_connections()))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert said.split() == [b"1", b"0", b"0"]
