"""A server that dies, stands still, forgets, or refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SERVERS
from tests.faults.harness import SECRET, Expect, trial
from tests.servers import RedisServer, eventually

REFUSED = "Connection refused|Connect call failed|[Cc]onnection closed"


async def nothing() -> None:
    """Do nothing: the fault is over as soon as it has happened."""


async def test_a_server_that_is_killed_and_restarted_with_its_data(durable_server: RedisServer) -> None:
    async with trial(durable_server) as given:
        await given.survive(
            "kill -9 and restart, with its data",
            happens=lambda: asyncio.to_thread(durable_server.stop),
            passes=lambda: asyncio.to_thread(durable_server.start),
            expect=Expect(says=REFUSED, lasts=1.0),
        )


async def test_a_server_that_is_killed_and_restarted_without_its_data(server: RedisServer) -> None:
    async with trial(server) as given:
        await given.survive(
            "kill -9 and restart, without its data",
            happens=lambda: asyncio.to_thread(server.stop),
            passes=lambda: asyncio.to_thread(server.start),
            expect=Expect(says=REFUSED, lasts=1.0, keeps_data=False, warnings=2),
        )
        assert "before" in given.mirror(), "another server process: what is still known is put back"


async def test_a_server_that_stands_still_for_a_while(server: RedisServer) -> None:
    async with trial(server) as given:
        await given.survive(
            "SIGSTOP",
            happens=lambda: asyncio.to_thread(server.pause),
            passes=lambda: asyncio.to_thread(server.resume),
            expect=Expect(says="silent|no answer", lasts=1.0, stalls=3.0),
        )


async def test_a_server_that_stands_still_for_half_a_minute_is_survived_with_the_default_settings(
    server: RedisServer,
) -> None:
    """P41: every public call ends within its timeout; the library's own defaults."""
    async with trial(server, connect_timeout=5.0) as given:
        outcome = await given.survive(
            "SIGSTOP for 30 s, default settings",
            happens=lambda: asyncio.to_thread(server.pause),
            passes=lambda: asyncio.to_thread(server.resume),
            expect=Expect(says="silent|no answer", within=10.0, lasts=25.0, stalls=35.0),
        )
        assert outcome.shown_after < 7.5


async def test_a_server_that_loads_a_large_dump(durable_server: RedisServer) -> None:
    """P37 P40: it takes connections and subscriptions, and refuses everything else."""
    server = durable_server
    server.admin.eval("for i = 1, 20000 do redis.call('SET', 'filler' .. i, i) end", 0)
    server.configure(key_load_delay="200", loading_process_events_interval_bytes="1024")
    starting: list[asyncio.Task[Any]] = []

    async def restart() -> None:
        await asyncio.to_thread(server.stop)
        starting.append(asyncio.create_task(asyncio.to_thread(server.start)))
        # Before that, there is no server at all.
        await eventually(lambda: "loading" in (given.subject.health.last_error or "").lower(), within=5.0)

    async def loaded() -> None:
        await starting[0]

    async with trial(server) as given:
        # At the end of it, the server carries out what stands in its buffers when it has time for that.
        expect = Expect(says="(?i)loading|no answer|silent|closed", lasts=0.2, stalls=1.0)
        await given.survive("LOADING", restart, loaded, expect)


@pytest.mark.parametrize("program", SERVERS, ids=lambda server: f"{server.product}-{server.version}")
async def test_a_server_that_was_made_a_replica_of_another(program: Any) -> None:
    """P37 P40: its data are replaced by the other's, and it takes no writes until it is a primary again."""
    with RedisServer(program.path) as server, RedisServer(program.path) as other:

        async def demote() -> None:
            server.admin.replicaof("127.0.0.1", str(other.port))

        async def promote() -> None:
            server.admin.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]

        async with trial(server) as given:
            await given.survive(
                f"READONLY after a demotion ({program.product} {program.version})",
                demote,
                promote,
                Expect(says="READONLY|read only|replica", keeps_data=False),
            )


@pytest.mark.parametrize("program", SERVERS, ids=lambda server: f"{server.product}-{server.version}")
async def test_a_server_without_memory_for_more(program: Any) -> None:
    """P37 P40."""
    with RedisServer(program.path) as server:

        async def fill() -> None:
            server.admin.config_set("maxmemory", "1")

        async def free() -> None:
            server.admin.config_set("maxmemory", "0")

        async with trial(server) as given:
            await given.survive(f"OOM ({program.product} {program.version})", fill, free, Expect(says="OOM|maxmemory"))


async def test_a_server_that_cannot_write_to_its_disk(server: RedisServer) -> None:
    """P37 P40: it answers PING and refuses writes."""
    in_the_way = Path(server.socket).parent / "dump.rdb"

    async def saved(status: str) -> None:
        await eventually(lambda: server.admin.info("persistence")["rdb_bgsave_in_progress"] == 0)
        server.admin.bgsave()
        await eventually(lambda: server.admin.info("persistence")["rdb_last_bgsave_status"] == status)

    async def fail() -> None:
        in_the_way.mkdir()
        server.admin.config_set("save", "3600 1")
        await saved("err")

    async def work() -> None:
        in_the_way.rmdir()
        await saved("ok")

    async with trial(server) as given:
        await given.survive("MISCONF: snapshots fail", fail, work, Expect(says="MISCONF"))


async def test_a_script_cache_that_is_flushed(server: RedisServer) -> None:
    """P34."""

    async def flush() -> None:
        server.admin.script_flush()

    async with trial(server) as given:
        await given.survive("SCRIPT FLUSH", flush, flush, Expect(degraded=False))


async def test_a_database_that_is_flushed(server: RedisServer) -> None:
    """P40: an emptied database on the same server is somebody's decision and is obeyed."""

    async def flush() -> None:
        server.admin.flushall()

    async with trial(server) as given:
        await given.survive("FLUSHALL", flush, nothing, Expect(degraded=False, keeps_data=False))
        assert "before" not in given.mirror()


async def test_a_server_that_evicts_our_keys(server: RedisServer) -> None:
    """P40: with the wrong maxmemory-policy; what is left in Redis counts, and it is the same for everyone."""
    admin = server.admin

    async def evict() -> None:
        ours = set(admin.keys("{test}:*"))
        admin.config_set("maxmemory-policy", "allkeys-random")
        admin.config_set("maxmemory", str(admin.info("memory")["used_memory"] + 300_000))
        for number in range(5000):
            admin.set(f"filler{number}", "x" * 1000)
            if ours - set(admin.keys("{test}:*")):
                break
        assert ours - set(admin.keys("{test}:*"))
        admin.config_set("maxmemory", "0")

    async with trial(server) as given:
        await given.survive(
            "eviction of our keys", evict, nothing, Expect(degraded=False, keeps_data=False, warnings=1)
        )


@pytest.mark.parametrize("how", ["requirepass", "ACL SETUSER"])
async def test_a_password_that_is_changed_under_us(locked_server: RedisServer, how: str) -> None:
    admin = locked_server.admin
    user = "default" if how == "requirepass" else "worker"
    admin.execute_command("ACL", "SETUSER", "worker", "on", f">{SECRET}", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]

    def set_to(password: str) -> None:
        if how == "requirepass":
            admin.config_set("requirepass", password)
        else:
            admin.execute_command("ACL", "SETUSER", "worker", "resetpass", f">{password}")  # type: ignore[no-untyped-call]

    async def change() -> None:
        set_to(f"another-{SECRET}")
        for kind in ("normal", "pubsub"):
            admin.client_kill_filter(_type=kind, skipme=True)

    async def change_back() -> None:
        set_to(SECRET)

    async with trial(locked_server, f"redis://{user}:{SECRET}@127.0.0.1:{locked_server.port}") as given:
        await given.survive(
            f"password changed ({how})", change, change_back, Expect(says="password|WRONGPASS|NOAUTH", lasts=1.0)
        )
