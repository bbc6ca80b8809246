"""A server whose clock is set while limits are active: real servers, real clocks.

Redis expires keys by its own clock, so that a clock put forward makes it forget limits before their time. Whoever
knows of them holds them all the same, by its own clock, and puts them back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from rate_coordinator import RateLimitCoordinator
from tests.conftest import NEWEST, SERVERS
from tests.faults.test_failovers import in_step
from tests.servers import RedisServer, eventually
from tests.stepped_clock import SteppedClock
from tests.topologies import SentinelTrio
from tools.find_redis import Server

HOUR = 3600
SHORT, LONG, AFTER = 2.0, 600.0, 3.0
LATE_SECONDS = 1.0
"""What a machine with busy neighbours adds to a waking."""


@pytest.fixture
def stepped(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path)


@pytest.fixture(params=SERVERS, ids=lambda server: f"{server.product}-{server.version}")
def server(request: pytest.FixtureRequest, stepped: SteppedClock) -> Iterator[RedisServer]:
    program: Server = request.param
    running = RedisServer(program.path)
    running.environment = stepped.environment
    with running:
        yield running


class Promise:
    """A limit that was reported: when it may lift at the earliest, by this process's clock."""

    def __init__(self, backend: str, wait_seconds: float) -> None:
        self.backend = backend
        self.wait_seconds = wait_seconds
        self.made_at = time.monotonic()

    def is_kept_by(self, coordinator: RateLimitCoordinator) -> bool:
        """Tell whether a coordinator holds it neither shorter nor noticeably longer than was told."""
        left = self.made_at + self.wait_seconds - time.monotonic()
        return left - 0.05 < coordinator.active_limits.get(self.backend, 0.0) < left + LATE_SECONDS


async def report(coordinator: RateLimitCoordinator, backend: str, wait_seconds: float) -> Promise:
    promise = Promise(backend, wait_seconds)
    assert (await coordinator.report_rate_limit(backend, wait_seconds)).delivered
    return promise


async def hold(coordinator: RateLimitCoordinator, backend: str, wait_seconds: float) -> Promise:
    promise = Promise(backend, wait_seconds)
    assert (await coordinator.hold(backend, wait_seconds)).extended
    return promise


@asynccontextmanager
async def reading(*coordinators: RateLimitCoordinator) -> AsyncIterator[None]:
    """Read all the time, and fail if a read raises or waits."""

    async def read() -> None:
        while True:
            for coordinator in coordinators:
                began = time.perf_counter()
                await coordinator.is_rate_limited("long")
                _ = coordinator.active_limits, coordinator.health
                assert time.perf_counter() - began < 0.25
            await asyncio.sleep(0.002)

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.wait([task])


async def is_released_in_time(waiting: asyncio.Task[float], promise: Promise) -> None:
    async with asyncio.timeout(promise.wait_seconds + LATE_SECONDS):
        await waiting
    took = time.monotonic() - promise.made_at
    assert promise.wait_seconds <= took < promise.wait_seconds + LATE_SECONDS


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forth", "back"])
async def test_a_servers_clock_that_is_set_and_set_right_again_releases_nobody_early_and_holds_nobody_longer(
    server: RedisServer, stepped: SteppedClock, step: int
) -> None:
    """P13."""
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(RateLimitCoordinator.from_url(server.url, "test")) for _ in range(2)
        ]
        await stack.enter_async_context(reading(one, two))
        long, held = await report(one, "long", LONG), await hold(two, "held", LONG)
        for shift, name in ((step, "set"), (0, "set right")):
            short = await report(one, f"short, {name}", SHORT)
            await eventually(lambda short=short: {short.backend, "long"} <= two.active_limits.keys())  # type: ignore[misc]
            waiting = [asyncio.create_task(each.wait_until_clear(short.backend)) for each in (one, two)]
            stepped.step(shift)
            after = await report(two, f"after, {name}", AFTER)
            newcomer = await stack.enter_async_context(RateLimitCoordinator.from_url(server.url, "test"))
            await eventually(lambda after=after: after.backend in one.active_limits)  # type: ignore[misc]
            for each in (one, two):
                await each.refresh()
            for each in (one, two):
                assert long.is_kept_by(each)
                assert held.is_kept_by(each)
                assert short.is_kept_by(each)
            # What Redis had let go too early, or held too long, has been put right by those who knew.
            for name in ("long", "held"):
                await eventually(lambda c=newcomer, n=name: c.active_limits.get(n, 0.0) > LONG - 60)  # type: ignore[misc]
            for each in (one, two, newcomer):
                assert after.is_kept_by(each)
                assert [limit.backend for limit in each.limits if limit.held_until == limit.resume_at] == ["held"]
                # A newcomer may hold what was limited before the step anew, but never for more than its own wait.
                assert all(left <= LONG for left in each.active_limits.values())
            await asyncio.gather(*(is_released_in_time(task, short) for task in waiting))
            for each in (one, two):
                await each.wait_until_clear(after.backend, timeout=AFTER + LATE_SECONDS)
                assert time.monotonic() - after.made_at >= AFTER
                assert (each.health.state, each.health.last_error) == ("connected", None)
                assert long.is_kept_by(each)
                assert held.is_kept_by(each)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_replica_whose_clock_is_an_hour_off_takes_over_and_nothing_is_released_early_or_held_longer(
    stepped: SteppedClock, ahead: int
) -> None:
    """P13."""
    stepped.step(ahead)
    trio = SentinelTrio(NEWEST)
    for replica in trio.nodes[1:]:
        replica.environment = stepped.environment
    with trio:
        async with AsyncExitStack() as stack:
            one, two = [
                await stack.enter_async_context(RateLimitCoordinator.from_url(trio.url, "test")) for _ in range(2)
            ]
            await stack.enter_async_context(reading(one, two))
            long, short = await report(one, "long", LONG), await report(one, "short", 3 * SHORT)
            await eventually(lambda: {"short", "long"} <= two.active_limits.keys())
            waiting = [asyncio.create_task(each.wait_until_clear("short")) for each in (one, two)]
            old = trio.master
            await asyncio.to_thread(in_step, old, 2)
            await asyncio.to_thread(old.stop)
            await asyncio.to_thread(trio.successor_of, old)
            await asyncio.gather(*(is_released_in_time(task, short) for task in waiting))
            await eventually(lambda: one.health.reconnects and two.health.reconnects)
            await eventually(lambda: {one.health.state, two.health.state} == {"connected"})
            after = await report(two, "after", AFTER)
            newcomer = await stack.enter_async_context(RateLimitCoordinator.from_url(trio.url, "test"))
            await eventually(lambda: "after" in one.active_limits)
            for each in (one, two):
                await each.refresh()
                assert long.is_kept_by(each)
            # What the new master had forgotten, or misjudged, has been put right by those who knew.
            await eventually(lambda: newcomer.active_limits.get("long", 0.0) > LONG - 60)
            for each in (one, two, newcomer):
                assert after.is_kept_by(each)
                assert all(left <= LONG for left in each.active_limits.values())
