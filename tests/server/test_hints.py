"""What a user knows beforehand of an upstream makes the first calls cheaper."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from tests.conftest import Make, Place
from tests.faults.harness import QUICK
from tests.servers import RedisServer, eventually


class Calls:
    """Calls that are under way until they are ended."""

    def __init__(self, coordinator: RateLimitCoordinator) -> None:
        self.coordinator = coordinator
        self.begun: list[str] = []
        self.times: list[float] = []
        self.under_way = 0
        self.most = 0
        self.end = asyncio.Event()

    async def call(self, name: str = "", model: str | None = None, **arguments: Any) -> None:
        async with self.coordinator.admit("openai", model, **arguments):
            self.begun.append(name)
            self.times.append(time.monotonic())
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await self.end.wait()
            self.under_way -= 1


async def test_the_fleet_starts_at_the_pace_that_it_is_told(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    for coordinator in (one, two):
        coordinator.hint("openai", initial_rate=20)
    calls = [Calls(one), Calls(two)]
    for some in calls:
        some.end.set()
    await asyncio.gather(*(some.call() for some in calls for _ in range(10)))
    times = sorted([*calls[0].times, *calls[1].times])

    # 20 turns of 50 ms, but for what is made up for, and for how late the machine lets the first one begin.
    assert times[-1] - times[0] > 0.05 * 14
    (pace,) = one.health.paces
    assert (pace.ceiling, pace.processes) == (20.0, 2)
    assert 0.5 < pace.fleet_per_second <= 2.0


async def test_a_pace_that_was_learned_counts_more_than_what_is_told(place: Place, make: Make) -> None:
    coordinator = await make()
    async with coordinator.admit("openai") as call:
        await call.limited(0.05)
    await coordinator.wait_until_clear("openai")
    async with coordinator.admit("openai"):
        pass
    before = await coordinator.pace("openai")
    coordinator.hint("openai", initial_rate=500)
    async with coordinator.admit("openai"):
        pass
    after = await coordinator.pace("openai")

    assert before
    assert after
    assert after.rate < 10 * before.rate


async def test_no_more_calls_are_under_way_in_a_process_than_it_is_told(real: Place, make: Make) -> None:
    coordinator = await make()
    coordinator.hint("openai", max_in_flight=3)
    calls = Calls(coordinator)
    tasks = [asyncio.create_task(calls.call(f"{number}")) for number in range(5)]
    await eventually(lambda: calls.under_way == 3)
    urgent = asyncio.create_task(calls.call("urgent", priority=-1))
    with pytest.raises(LimitWaitTimeout, match="under way"):
        await calls.call("late", timeout=0.05)
    cancelled = asyncio.create_task(calls.call("cancelled", priority=-2))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    calls.end.set()
    await asyncio.gather(*tasks, urgent)

    assert calls.most == 3
    assert calls.begun == ["0", "1", "2", "urgent", "3", "4"]


async def test_a_call_that_fails_or_is_refused_leaves_its_place(real: Place, make: Make) -> None:
    coordinator = await make()
    coordinator.hint("openai", max_in_flight=1)
    with pytest.raises(RuntimeError):
        async with coordinator.admit("openai"):
            raise RuntimeError
    async with coordinator.admit("openai") as call:
        await call.limited(0.05)
    async with coordinator.admit("openai", timeout=5):
        pass


async def test_a_models_calls_heed_what_is_told_of_their_backend(real: Place, make: Make) -> None:
    coordinator = await make()
    coordinator.hint("openai", max_in_flight=2)
    coordinator.hint("openai", "gpt", max_in_flight=1)
    calls = Calls(coordinator)
    async with AsyncExitStack() as stack:
        tasks = [asyncio.create_task(calls.call(model, model)) for model in ("gpt", "gpt", "other", "other")]
        stack.callback(lambda: [task.cancel() for task in tasks])
        await eventually(lambda: calls.under_way == 2)
        await asyncio.sleep(0.1)
        assert sorted(calls.begun) == ["gpt", "other"]
        calls.end.set()
        await asyncio.gather(*tasks)


async def test_what_is_told_can_be_told_anew_and_taken_back(real: Place, make: Make) -> None:
    coordinator = await make()
    coordinator.hint("openai", max_in_flight=1)
    calls = Calls(coordinator)
    tasks = [asyncio.create_task(calls.call()) for _ in range(5)]
    await eventually(lambda: calls.under_way == 1)
    coordinator.hint("openai", max_in_flight=3)
    await eventually(lambda: calls.under_way == 3)
    coordinator.hint("openai")
    await eventually(lambda: calls.under_way == 5)
    calls.end.set()
    await asyncio.gather(*tasks)
    before = coordinator.health.script_calls
    async with coordinator.admit("openai"):
        pass

    assert coordinator.health.script_calls == before, "it is free again"


async def test_when_redis_is_away_a_process_keeps_to_the_pace_that_it_is_told(own_server: RedisServer) -> None:
    async with RateLimitCoordinator.from_url(own_server.url, "test", **QUICK) as coordinator:
        await asyncio.to_thread(own_server.stop)
        await eventually(lambda: coordinator.health.state == "degraded")
        coordinator.hint("openai", initial_rate=20)
        calls = Calls(coordinator)
        calls.end.set()
        await asyncio.gather(*(calls.call() for _ in range(6)))

        assert calls.times[-1] - calls.times[0] >= 0.05 * 3


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), "fast", True])
def test_an_initial_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match=r"initial_rate must be a number of calls per second above 0, not "):
        RateLimitCoordinator.from_url("redis://nowhere").hint("openai", initial_rate=rate)


@pytest.mark.parametrize("count", [0, -1, 1.5, "many", True])
def test_a_number_of_calls_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(ValueError, match=r"max_in_flight must be a whole number of at least 1, not "):
        RateLimitCoordinator.from_url("redis://nowhere").hint("openai", max_in_flight=count)
