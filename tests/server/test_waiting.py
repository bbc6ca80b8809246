"""Waiting: woken by the clock or by a clear made anywhere, put back by an extension made anywhere."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from rate_coordinator import CoordinatorClosed, CoordinatorError, LimitWaitTimeout, RateLimitCoordinator
from tests.conftest import Make, Place
from tests.servers import eventually


def waiting(coordinator: RateLimitCoordinator) -> int:
    """Return how many targets somebody waits for."""
    return len(coordinator._engine.waiters)


async def test_waiting_for_a_clear_backend_returns_at_once(place: Place, make: Make) -> None:
    coordinator = await make()
    assert await coordinator.wait_until_clear("openai") == 0.0
    assert await coordinator.wait_until_clear("openai", "gpt", 0) == 0.0


async def test_a_waiter_is_woken_by_the_clock_and_never_too_early(place: Place, make: Make) -> None:
    """P09: the told time is a floor, also for those that heard of it from others."""
    reporter, other = await make(), await make()
    for wait in (0.05, 0.101, 0.2):
        began = time.monotonic()
        await reporter.report_rate_limit("openai", wait)
        told = time.monotonic()
        await eventually(lambda: other.active_limits)

        async def waited(coordinator: RateLimitCoordinator) -> float:
            await coordinator.wait_until_clear("openai")
            return time.monotonic()

        woken = await asyncio.gather(*(waited(c) for c in (reporter, other) for _ in range(50)))
        assert min(woken) >= began + wait
        assert max(woken) < told + wait + 2.0


async def test_margin_and_jitter_are_added_to_the_waking_and_never_taken_away(place: Place, make: Make) -> None:
    """P09."""
    coordinator = await make(wake_margin_seconds=0.2, wake_jitter_seconds=0.1)
    await coordinator.report_rate_limit("openai", 0.1)
    waited = await coordinator.wait_until_clear("openai")
    assert 0.3 <= waited + 0.01 < 2.0
    assert await coordinator.is_rate_limited("openai") == (False, 0.0)


async def test_a_clear_made_elsewhere_wakes_and_an_extension_holds_a_thousand(place: Place, make: Make) -> None:
    """P31."""
    here, there = await make(), await make()
    await here.report_rate_limit("openai", 1.5)
    tasks = [asyncio.create_task(here.wait_until_clear("openai")) for _ in range(1000)]
    await eventually(lambda: waiting(here) == 1)
    await there.report_rate_limit("openai", 60.0)
    await eventually(lambda: here.active_limits["openai"] > 50)
    await asyncio.sleep(1.6)
    assert not any(task.done() for task in tasks)
    assert await there.clear_limits("openai") == 1
    async with asyncio.timeout(5):
        waits = await asyncio.gather(*tasks)
    assert 1.5 < min(waits) <= max(waits) < 15
    assert waiting(here) == 0


async def test_a_waiter_for_a_model_waits_for_its_backend_too(place: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("claude", 60.0, model="opus")
    waiter = asyncio.create_task(coordinator.wait_until_clear("claude", "opus"))
    assert await coordinator.wait_until_clear("claude", "haiku") == 0.0
    await coordinator.report_rate_limit("claude", 60.0)
    assert await coordinator.clear_limits("claude", model="opus") == 1
    await asyncio.sleep(0.05)
    assert not waiter.done()
    assert await coordinator.clear_limits("claude") == 1
    async with asyncio.timeout(5):
        await waiter


async def test_a_timeout_that_is_known_to_be_too_short_is_told_at_once(place: Place, make: Make) -> None:
    """P33: a timeout of zero returns at once."""
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 60.0)
    for timeout in (0, 0.0, 5.0):
        began = time.monotonic()
        with pytest.raises(LimitWaitTimeout, match="openai") as caught:
            await coordinator.wait_until_clear("openai", timeout=timeout)
        assert time.monotonic() - began < 1.0
        assert isinstance(caught.value, (CoordinatorError, TimeoutError))
    assert waiting(coordinator) == 0


async def test_an_extension_beyond_the_timeout_is_told_when_it_is_made(place: Place, make: Make) -> None:
    here, there = await make(), await make()
    await here.report_rate_limit("openai", 5.0)
    patient = asyncio.create_task(here.wait_until_clear("openai", timeout=1000))
    hasty = asyncio.create_task(here.wait_until_clear("openai", timeout=20))
    await eventually(lambda: waiting(here) == 1)
    await there.report_rate_limit("openai", 60.0)
    async with asyncio.timeout(3):
        with pytest.raises(LimitWaitTimeout):
            await hasty
    assert not patient.done()
    await there.clear_limits()
    async with asyncio.timeout(5):
        await patient


async def test_a_timeout_long_enough_is_met(place: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 0.1)
    assert 0.05 < await coordinator.wait_until_clear("openai", timeout=1.0) < 1.0
    await coordinator.report_rate_limit("openai", 0.1)
    assert 0.05 < await coordinator.wait_until_clear("openai", timeout=math.inf) < 2.0


@pytest.mark.parametrize("timeout", [-1, math.nan, "5", True, -math.inf], ids=repr)
async def test_a_bad_timeout_is_refused(place: Place, make: Make, timeout: Any) -> None:
    """P07."""
    coordinator = await make()
    with pytest.raises(ValueError, match="timeout"):
        await coordinator.wait_until_clear("openai", timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        await coordinator.wait_until_any_clear(["openai"], timeout=timeout)


async def test_the_first_of_several_backends_to_become_callable_is_told(place: Place, make: Make) -> None:
    here, there = await make(), await make()
    choices: list[str | tuple[str, str | None]] = ["claude", ("openai", "gpt"), ("gemini", None)]
    await here.report_rate_limit("claude", 60.0)
    assert await here.wait_until_any_clear(choices) == ("openai", "gpt")
    await here.report_rate_limit("openai", 60.0)
    await here.report_rate_limit("gemini", 0.2)
    assert await here.wait_until_any_clear(choices, timeout=5) == ("gemini", None)
    await here.report_rate_limit("gemini", 60.0)
    waiter = asyncio.create_task(here.wait_until_any_clear(choices))
    await eventually(lambda: waiting(here) == 3)
    await there.clear_limits("openai")
    async with asyncio.timeout(5):
        assert await waiter == ("openai", "gpt")
    assert waiting(here) == 0


async def test_waiting_for_any_prefers_the_earlier_of_those_that_are_clear(place: Place, make: Make) -> None:
    coordinator = await make()
    assert await coordinator.wait_until_any_clear(["b", "a"]) == "b"
    assert await coordinator.wait_until_any_clear(("a", "a", "b")) == "a"


async def test_waiting_for_any_gives_up_only_when_all_outlast_the_timeout(place: Place, make: Make) -> None:
    here, there = await make(), await make()
    await here.report_rate_limit("claude", 60.0)
    await here.report_rate_limit("openai", 0.5)
    task = asyncio.create_task(here.wait_until_any_clear(["claude", "openai"], timeout=10))
    await eventually(lambda: waiting(here) == 2)
    assert not task.done()
    await there.report_rate_limit("openai", 60.0)
    async with asyncio.timeout(3):
        with pytest.raises(LimitWaitTimeout, match="openai"):
            await task


@pytest.mark.parametrize("backends", [[], "openai", None, 5, [5], [("a", "b", "c")], [["a", "b"]]], ids=repr)
async def test_a_bad_choice_of_backends_is_refused(place: Place, make: Make, backends: Any) -> None:
    coordinator = await make()
    with pytest.raises(ValueError, match="backend"):
        await coordinator.wait_until_any_clear(backends)


async def test_cancelled_waiters_leave_nothing_behind(place: Place, make: Make) -> None:
    """P32: every wait can be cancelled."""
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 60.0)
    tasks: list[asyncio.Task[Any]] = []
    for _ in range(100):
        tasks.append(asyncio.create_task(coordinator.wait_until_clear("openai")))
        tasks.append(asyncio.create_task(coordinator.wait_until_any_clear(["openai", "openai"])))
    await eventually(lambda: waiting(coordinator) == 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)
    assert waiting(coordinator) == 0


async def test_ten_thousand_waiters_cost_one_timer(place: Place, make: Make) -> None:
    coordinator = await make(resync_interval=1000.0)
    await coordinator.report_rate_limit("openai", 1.5)
    timers: list[object] = []
    loop = asyncio.get_running_loop()
    plain = loop.call_later

    def counting(delay: float, *arguments: Any, **keywords: Any) -> asyncio.TimerHandle:
        handle = plain(delay, *arguments, **keywords)
        if getattr(arguments[0], "__name__", "") == "_due":
            timers.append(handle)
        return handle

    loop.call_later = counting  # type: ignore[method-assign,assignment]
    tasks = [asyncio.create_task(coordinator.wait_until_clear("openai", timeout=60 + n)) for n in range(10_000)]
    await asyncio.sleep(0)
    await eventually(lambda: waiting(coordinator) == 1)
    assert len(timers) == 1
    for task in tasks[:5000]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[:5000])
    assert all(isinstance(result, float) for result in results[5000:])
    assert len(timers) <= 3


async def test_waiting_costs_no_time_of_the_processor(place: Place, make: Make) -> None:
    """P33: no busy spin, and one long wait blocks nobody else."""
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 60.0)
    tasks = [asyncio.create_task(coordinator.wait_until_clear("openai")) for _ in range(1000)]
    await eventually(lambda: waiting(coordinator) == 1)
    before = time.process_time()
    began = time.monotonic()
    await coordinator.report_rate_limit("other", 1.0)
    await coordinator.wait_until_clear("other")
    assert time.process_time() - before < 0.3 * (time.monotonic() - began)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_closing_releases_everyone_who_waits(place: Place, make: Make) -> None:
    """P32."""
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 60.0)
    tasks = [asyncio.create_task(coordinator.wait_until_clear("openai")) for _ in range(10)]
    await eventually(lambda: waiting(coordinator) == 1)
    await coordinator.aclose()
    for task in tasks:
        with pytest.raises(CoordinatorClosed):
            await task


async def test_a_limit_that_comes_back_at_once_is_not_run_into(place: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 60.0)
    woken: list[tuple[bool, float]] = []

    async def work() -> None:
        await coordinator.wait_until_clear("openai")
        woken.append(await coordinator.is_rate_limited("openai"))
        await coordinator.report_rate_limit("openai", 0.05)

    async with asyncio.timeout(30):
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(work())
            await eventually(lambda: waiting(coordinator) == 1)
            await coordinator.clear_limits()
    assert woken == [(False, 0.0)] * 10
