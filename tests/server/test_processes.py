"""What holds between real processes."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from tests.conftest import Make, Place
from tests.servers import RedisServer, eventually
from tests.worker import Worker

HOURS_OFF = """
import time
shift = {shift}
real_time, real_time_ns = time.time, time.time_ns
time.time = lambda: real_time() + shift
time.time_ns = lambda: real_time_ns() + int(shift * 1e9)
import datetime
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=shift)
    @classmethod
    def utcnow(cls):
        return super().utcnow() + datetime.timedelta(seconds=shift)
datetime.datetime = Shifted
"""


async def start(stack: AsyncExitStack, place: Place, count: int, **settings: Any) -> list[Worker]:
    """Start so many workers side by side."""
    workers = [Worker(place.url, place.namespace, **settings) for _ in range(count)]
    return await asyncio.gather(*(stack.enter_async_context(worker) for worker in workers))


async def test_one_processs_429_stops_the_others(shared_place: Place) -> None:
    async with AsyncExitStack() as stack:
        workers = await start(stack, shared_place, 4)
        waiting = [asyncio.create_task(worker.do("limited", "openai")) for worker in workers[1:]]
        result = await workers[0].do("report_rate_limit", "openai", 30.0, "job", 7)
        reported = time.monotonic()
        seen = await asyncio.gather(*waiting)
        assert max(seen) < reported + 1.0
        told = await asyncio.gather(*(worker.do("is_rate_limited", "openai") for worker in workers))
        assert all(limited and 25 < seconds <= 30 for limited, seconds in told)
        assert result["delivered"]
        for worker in workers:
            (notice,) = await worker.do("heard")
            assert (notice["backend"], notice["job_id"], notice["sheet_num"]) == ("openai", "job", 7)
        assert await workers[3].do("clear_limits", "openai") == 1
        for worker in workers:
            await eventually(lambda worker=worker: _is_clear(worker))  # type: ignore[misc]


async def _is_clear(worker: Worker) -> bool:
    return bool(await worker.do("active") == {})


async def _is_callable(worker: Worker, backend: str) -> bool:
    return bool(await worker.do("is_rate_limited", backend) == [False, 0.0])


async def _holds_at_most(worker: Worker, backend: str, seconds: float) -> bool:
    limited, remaining = await worker.do("is_rate_limited", backend)
    return bool(limited) and remaining <= seconds


async def test_a_waiter_in_another_process_wakes_on_a_clear_and_holds_on_an_extension(shared_place: Place) -> None:
    """P31."""
    async with AsyncExitStack() as stack:
        waiter, other = await start(stack, shared_place, 2)
        await other.do("report_rate_limit", "openai", 0.5)
        await waiter.do("limited", "openai")
        began = time.monotonic()
        waiting = asyncio.create_task(waiter.do("wait_until_clear", "openai"))
        await other.do("report_rate_limit", "openai", 1.0)
        await waiting
        assert time.monotonic() - began > 0.9
        await other.do("report_rate_limit", "openai", 60.0)
        await waiter.do("limited", "openai")
        waiting = asyncio.create_task(waiter.do("wait_until_clear", "openai"))
        await other.do("clear_limits")
        async with asyncio.timeout(5):
            await waiting


async def test_any_order_of_reports_leaves_all_processes_at_the_maximum(shared_place: Place) -> None:
    """P01: to the millisecond."""
    chance = random.Random(3)
    waits = [round(chance.uniform(10, 60), 3) for _ in range(40)]
    async with AsyncExitStack() as stack:
        workers = await start(stack, shared_place, 4)
        results = await asyncio.gather(
            *(_report_all(worker, waits[number::4]) for number, worker in enumerate(workers))
        )
        longest = max(result["resume_at"] for results_of_one in results for result in results_of_one)
        for worker in workers:
            await worker.do("refresh")
        times = [await worker.do("resume_times") for worker in workers]
        assert times.count(times[0]) == 4
        last = [result for results_of_one in results for result in results_of_one if result["resume_at"] == longest]
        assert last
        assert [await worker.do("recent") for worker in workers] == [40] * 4


async def _report_all(worker: Worker, waits: list[float]) -> list[dict[str, Any]]:
    return [await worker.do("report_rate_limit", "openai", wait) for wait in waits]


async def test_ten_thousand_concurrent_reports_of_four_processes_are_ten_thousand_events(shared_place: Place) -> None:
    async with AsyncExitStack() as stack:
        workers = await start(stack, shared_place, 4, max_events=50_000)
        ids = await asyncio.gather(*(worker.do("reports", "openai", 2500, 30.0) for worker in workers))
        assert len({event_id for of_one in ids for event_id in of_one if event_id}) == 10_000
        calls = [(await worker.do("health"))["script_calls"] for worker in workers]
        assert sum(calls) < 300


@pytest.mark.parametrize("shift", [-5 * 3600.0, 5 * 3600.0, -40 * 365 * 86400.0], ids=["behind", "ahead", "1986"])
async def test_a_client_whose_clock_is_hours_off_neither_sees_nor_makes_a_difference(
    shared_place: Place, make: Make, shift: float
) -> None:
    """P12: only the server's clock counts."""
    right = await make()
    async with Worker(shared_place.url, shared_place.namespace, prelude=HOURS_OFF.format(shift=shift)) as wrong:
        assert abs(await wrong.do("wall_clock") - time.time() - shift) < 60
        result = await wrong.do("report_rate_limit", "openai", 30.0)
        assert result["seconds_remaining"] == 30.0
        await eventually(lambda: "openai" in right.active_limits)
        assert 28 < right.active_limits["openai"] <= 30
        await right.report_rate_limit("claude", 0.5)
        await right.report_rate_limit("gemini", 60.0)
        await wrong.do("limited", "gemini")
        limited, seconds = await wrong.do("is_rate_limited", "gemini")
        assert limited
        assert 58 < seconds <= 60
        assert await wrong.do("wait_until_clear", "claude") < 2.0
        ours = {str(limit.target): round(limit.resume_at.timestamp() * 1000) for limit in right.limits}
        theirs = await wrong.do("resume_times")
        assert {name: theirs[name] for name in ("openai", "gemini")} == {n: ours[n] for n in ("openai", "gemini")}
        assert await wrong.do("recent") == 3


async def test_a_process_that_was_suspended_neither_lifts_too_early_nor_holds_too_long(
    shared_place: Place, make: Make
) -> None:
    """P13: its own clock goes on, and what it missed meanwhile reaches it."""
    other = await make()
    async with Worker(shared_place.url, shared_place.namespace) as worker:
        await other.report_rate_limit("short", 1.0)
        await other.report_rate_limit("long", 60.0)
        for target in ("short", "long"):
            await worker.do("limited", target)
        worker.signal(signal.SIGSTOP)
        await other.report_rate_limit("extended", 1.0)
        await other.report_rate_limit("extended", 60.0)
        await other.wait_until_clear("short")
        worker.signal(signal.SIGCONT)
        await eventually(lambda: _is_callable(worker, "short"), within=1)
        assert 50 < (await worker.do("is_rate_limited", "long"))[1] < 59.5
        await worker.do("limited", "extended")
        left = other.active_limits["extended"]
        await eventually(lambda: _holds_at_most(worker, "extended", left + 0.1), within=3)
        assert (await worker.do("is_rate_limited", "extended"))[1] > other.active_limits["extended"] - 0.5


async def test_a_reporter_that_is_killed_leaves_no_limit_without_its_event(real: Place, admin: redis.Redis) -> None:
    """P54: killed without warning at any point."""
    chance = random.Random(11)
    for _ in range(6):
        async with Worker(real.url, real.namespace, max_events=100_000) as worker:
            storm = asyncio.create_task(worker.do("storm", 100_000))
            await asyncio.sleep(chance.uniform(0.02, 0.15))
            worker.signal(signal.SIGKILL)
            await asyncio.gather(storm, return_exceptions=True)
        keys = real.keys
        causes: Any = admin.hgetall(keys.causes)
        active: Any = admin.zrange(keys.active, 0, -1, withscores=True)
        assert active
        for target, resume_at_ms in active:
            cause_id = causes[target].partition("|")[0]
            entries: Any = admin.xrange(keys.events, cause_id, cause_id)
            assert int(entries[0][1]["resume_at_ms"]) == int(resume_at_ms)
            assert admin.get(f"{keys.prefix}:limit:{target}") == str(int(resume_at_ms))


async def test_a_server_that_is_killed_has_no_limit_without_its_event_afterwards(redis_server: RedisServer) -> None:
    """P54: with the append-only file, whatever a crash cut off."""
    with RedisServer(redis_server.binary, appendonly="yes", appendfsync="always") as server:
        place = Place(server.url, "test")
        async with Worker(place.url, place.namespace, max_events=100_000) as worker:
            storm = asyncio.create_task(worker.do("storm", 100_000))
            await asyncio.sleep(0.3)
            server.stop()
            worker.signal(signal.SIGKILL)
            await asyncio.gather(storm, return_exceptions=True)
        server.start()
        causes: Any = server.admin.hgetall(place.keys.causes)
        active: Any = server.admin.zrange(place.keys.active, 0, -1, withscores=True)
        assert active
        for target, resume_at_ms in active:
            cause_id = causes[target].partition("|")[0]
            entries: Any = server.admin.xrange(place.keys.events, cause_id, cause_id)
            assert int(entries[0][1]["resume_at_ms"]) == int(resume_at_ms)
        async with Worker(place.url, place.namespace) as worker:
            assert len(await worker.do("active")) == len(active)
