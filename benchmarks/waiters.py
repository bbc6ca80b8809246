"""What it costs to have 10,000 tasks wait for one backend: time to wake them all, memory, timers.

The baselines are what one would write without the library: each task in an ``asyncio.sleep`` of its own until the same
moment, or all of them at one ``asyncio.Event`` that one timer sets then.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, TypeVarTuple, Unpack

from benchmarks.harness import Figure, Options, run, taking_turns
from rate_coordinator import RateLimitCoordinator

NAMESPACE = "benchmark of waiters"
WAITERS = 10_000
LIMIT_SECONDS = 1.0
"""Long enough for 10,000 tasks to be made and to begin to wait, unless the machine stalls."""
LONGEST_LIMIT_SECONDS = 8.0

Ts = TypeVarTuple("Ts")


def measure(options: Options) -> list[Figure]:
    """Measure the waking, then memory and timers in runs of their own: counting slows the rest down."""
    return [
        *run(options, lambda: _waking(options)),
        *run(options, lambda: _memory(options)),
        *run(options, lambda: _timers(options), CountingLoop),
    ]


async def _waking(options: Options) -> list[Figure]:
    count = options.pick(WAITERS, 200)
    async with RateLimitCoordinator.from_url(options.url, NAMESPACE) as coordinator:

        async def ours(seconds: float) -> float:
            await coordinator.report_rate_limit("backend", seconds)
            _, remaining = await coordinator.is_rate_limited("backend")
            lifts_at = time.monotonic() + remaining
            return await _wake(count, lifts_at, lambda: coordinator.wait_until_clear("backend"))

        async def sleeps(seconds: float) -> float:
            lifts_at = time.monotonic() + seconds
            return await _wake(count, lifts_at, lambda: asyncio.sleep(lifts_at - time.monotonic()))

        async def event(seconds: float) -> float:
            lifts_at = time.monotonic() + seconds
            lifted = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, lifted.set)
            return await _wake(count, lifts_at, lifted.wait)

        took, took_sleeps, took_event = await taking_turns(
            *(partial(_in_time, side) for side in (ours, sleeps, event)), rounds=options.pick(9, 1)
        )
    return [
        Figure.of_rounds(f"lift to the last of {count:,} / each in asyncio.sleep", took, took_sleeps, "ms", scale=1e3),
        Figure.of_rounds(f"lift to the last of {count:,} / one asyncio.Event", took, took_event, "ms", scale=1e3),
    ]


class _TooSlow(Exception):
    """The limit was over before all tasks waited for it."""


async def _in_time(side: Callable[[float], Awaitable[float]]) -> float:
    """Measure once, with a longer limit if the machine needs it."""
    seconds = LIMIT_SECONDS
    while True:
        try:
            return await side(seconds)
        except _TooSlow:
            if seconds >= LONGEST_LIMIT_SECONDS:
                raise
            seconds *= 2


async def _wake(count: int, lifts_at: float, wait: Callable[[], Awaitable[object]]) -> float:
    """Let so many tasks wait; return the seconds from the lift to the last one's turn."""
    turns: list[float] = []

    async def waiter() -> None:
        await wait()
        turns.append(time.monotonic())

    tasks = [asyncio.create_task(waiter()) for _ in range(count)]
    await asyncio.sleep(0)
    in_time = time.monotonic() < lifts_at
    await asyncio.gather(*tasks)
    if not in_time:
        raise _TooSlow("this machine is too slow: the limit was over before all tasks waited")
    if min(turns) < lifts_at - 0.005:
        raise RuntimeError("a waiter was woken before its time")
    return max(turns) - lifts_at


async def _memory(options: Options) -> list[Figure]:
    count = options.pick(WAITERS, 200)
    async with RateLimitCoordinator.from_url(options.url, NAMESPACE) as coordinator:
        await coordinator.report_rate_limit("backend", 600.0)
        ours = await _bytes_each(count, lambda: coordinator.wait_until_clear("backend"))
        event = await _bytes_each(count, asyncio.Event().wait)
        sleeps = await _bytes_each(count, lambda: asyncio.sleep(600.0))
        await coordinator.clear_limits("backend")
    return [
        Figure("memory per waiter, its task included / a task at an asyncio.Event", ours, event, "B", [ours / event]),
        Figure("memory per waiter, its task included / a task in asyncio.sleep", ours, sleeps, "B", [ours / sleeps]),
    ]


async def _bytes_each(count: int, wait: Callable[[], Awaitable[object]]) -> float:
    async def waiter() -> None:
        await wait()

    gc.collect()
    tracemalloc.start()
    try:
        tasks = [asyncio.create_task(waiter()) for _ in range(count)]
        await asyncio.sleep(0)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the timers that are set."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = 0

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer, and count it."""
        self.timers += 1
        return super().call_at(when, callback, *args, context=context)


async def _timers(options: Options) -> list[Figure]:
    count = options.pick(WAITERS, 200)
    async with RateLimitCoordinator.from_url(options.url, NAMESPACE) as coordinator:
        await coordinator.report_rate_limit("backend", 60.0)
        ours = await _timers_of(count, lambda: coordinator.wait_until_clear("backend"))
        sleeps = await _timers_of(count, lambda: asyncio.sleep(60.0))
        bounded = await _timers_of(count, lambda: coordinator.wait_until_clear("backend", timeout=300.0))
        lifted = asyncio.Event()
        timeouts = await _timers_of(count, lambda: asyncio.wait_for(lifted.wait(), 300.0))
        await coordinator.clear_limits("backend")
    return [
        Figure(f"timers of {count:,} waiters / asyncio.sleep", ours, sleeps, "timers", [ours / sleeps]),
        Figure(
            f"timers of {count:,} waiters with a timeout / asyncio.wait_for on an Event",
            bounded,
            timeouts,
            "timers",
            [bounded / timeouts],
        ),
    ]


async def _timers_of(count: int, wait: Callable[[], Awaitable[Any]]) -> int:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)

    async def waiter() -> None:
        await wait()

    before = loop.timers
    tasks = [asyncio.create_task(waiter()) for _ in range(count)]
    # Nothing else of this process gets a turn between the two lines, so that only theirs are counted.
    await asyncio.sleep(0)
    after = loop.timers
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return after - before
