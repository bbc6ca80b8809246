"""What grows, and where it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest

from rate_coordinator import CoordinatorUnavailable, RateLimitCoordinator
from rate_coordinator.connection import Endpoint
from rate_coordinator.keys import Keys
from rate_coordinator.mirror import TRACKED_NAMES
from rate_coordinator.replies import WireReport
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from tests.faults.harness import QUICK
from tests.faults.proxy import Faults, Proxy
from tests.servers import RedisServer, eventually

TARGETS = 100_000
BATCH = 500


async def test_a_hundred_thousand_targets_leave_nothing_behind_on_either_side(server: RedisServer) -> None:
    """P43: 10^5 stand for the 10^6 of the row: what is bounded by one is by the other, in a tenth of the time."""
    admin = server.admin
    before = admin.info("memory")["used_memory"]
    async with RateLimitCoordinator.from_url(server.url, "test", resync_interval=1.0, max_events=1000) as coordinator:
        engine, store = coordinator._engine, Store(Endpoint.from_url(server.url), Keys("test"), 1000)
        process = psutil.Process()
        resident = process.memory_info().rss
        began = time.monotonic()
        for first in range(0, TARGETS, BATCH):
            names = [f"b{number}" for number in range(first, first + BATCH)]
            details = [f'"backend":"{name}","model":null' for name in names]
            reports = [WireReport(Target(name), 500, 0, 0, told) for name, told in zip(names, details, strict=True)]
            await store.report(first + 1, reports)
            for name in names:
                await coordinator.is_rate_limited(name)
        await store.aclose()
        took = time.monotonic() - began
        most: Any = admin.zcard("{test}:active")
        used = admin.info("memory")["used_memory"] - before
        await eventually(lambda: not coordinator.active_limits)
        # Everything below is swept by what goes on anyway: reports and re-synchronisations.
        for _ in range(3):
            await coordinator.report_rate_limit("last", 0.001)
        await coordinator.refresh()
        assert len(engine.mirror.limits()) <= 1
        assert len(engine.mirror.until) <= TRACKED_NAMES + BATCH
        assert len(engine.log._entries) <= 2 * 1000
        await eventually(lambda: len(admin.keys("{test}:limit:*")) == 0)
        entries: Any = admin.xlen("{test}:events")
        assert entries <= 2 * 1000
        left: Any = admin.zcard("{test}:active")
        print(
            f"\n{TARGETS} targets in {took:.0f} s: at most {most} in the index, {used / 2**20:.0f} MiB in Redis; "
            f"{left} left in the index, {(process.memory_info().rss - resident) / 2**20:.0f} MiB more here",
            end="",
        )
        assert most < TARGETS / 4
        assert left <= 1 + 3 * 100 or left < most
        assert 0 < admin.pttl("{test}:active") <= 120_000
        assert process.memory_info().rss - resident < 150 * 2**20


async def test_a_full_buffer_counts_what_it_drops_and_warns_of_it_once(server: RedisServer, caplog: Any) -> None:
    coordinator = RateLimitCoordinator.from_url(server.url, "test", max_buffered_reports=100, **QUICK)
    async with coordinator:
        await asyncio.to_thread(server.stop)
        for number in range(300):
            await coordinator.report_rate_limit(f"b{number}", 60.0 + (number or 1000))
        health = coordinator.health
        assert (health.reports_buffered, health.reports_dropped) == (100, 200)
        assert set(coordinator.active_limits) == {f"b{number}" for number in [0, *range(201, 300)]}
        await asyncio.to_thread(server.start)
        await eventually(lambda: coordinator.health.reports_buffered == 0)
        assert (coordinator.health.reports_delivered, coordinator.health.reports_dropped) == (100, 200)
    warnings = [record.getMessage() for record in caplog.records if "buffer" in record.getMessage()]
    assert len(warnings) == 1


async def test_a_call_of_many_round_trips_ends_within_one_timeout(server: RedisServer, proxy: Proxy) -> None:
    """P41: each page of the stream comes in time, all of them do not."""
    fill = "for i = 1, 20000 do redis.call('XADD', KEYS[1], '*', 'kind', 'report') end"
    server.admin.eval(fill, 1, Keys("test").events)
    async with RateLimitCoordinator.from_url(proxy.url, "test", command_timeout=1.0, max_events=1) as coordinator:
        await coordinator.report_rate_limit("openai", 60.0)
        proxy.go_wrong(Faults(latency=0.1))
        calls: list[Callable[[], Awaitable[object]]] = [
            coordinator.events,
            lambda: coordinator.explain("openai"),
        ]
        for call in calls:
            began = time.monotonic()
            with pytest.raises(CoordinatorUnavailable, match="no answer within 1 s"):
                await call()
            assert 0.9 < time.monotonic() - began < 1.5
        proxy.heal()
        assert len(await coordinator.events(count=1)) == 1
