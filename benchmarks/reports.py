"""What a report costs its caller, against a bare ``EVALSHA`` of a script that does nothing.

The bare calls go through redis-py's own client: once over one connection, which is what the library has, and once
with a pool that opens a connection for each call that is under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.harness import Figure, Options, bare_client, quantile, run, taking_turns
from rate_coordinator import RateLimitCoordinator

NAMESPACE = "benchmark of reports"
STORM = 10_000
POOLED_CONNECTIONS = 64

Call = Callable[[], Awaitable[object]]


def measure(options: Options) -> list[Figure]:
    """Measure latency and throughput with 1, 8 and 64 reporters at once, and a storm of reports."""
    return run(options, lambda: _measure(options))


async def _measure(options: Options) -> list[Figure]:
    pool = BlockingConnectionPool.from_url(options.url, max_connections=POOLED_CONNECTIONS, timeout=None, protocol=2)
    figures = []
    async with (
        RateLimitCoordinator.from_url(options.url, NAMESPACE, command_timeout=60.0) as coordinator,
        bare_client(options.url, single_connection_client=True) as one_connection,
        Redis.from_pool(pool) as pooled,
    ):
        sha: Any = await one_connection.script_load("return 1")

        async def report() -> object:
            return await coordinator.report_rate_limit("backend", 60.0, "job", 1)

        sides: dict[str, Call] = {
            "one connection": lambda: one_connection.evalsha(sha, 0),
            "a pool": lambda: pooled.evalsha(sha, 0),
        }
        for reporters in (1, 8, 64):
            calls = options.pick({1: 500, 8: 200, 64: 50}[reporters], 3)
            ours, *baselines = await taking_turns(
                *(partial(_hammer, call, reporters, calls) for call in (report, *sides.values())),
                rounds=options.pick(15, 2),
            )
            for name, baseline in zip(sides, baselines, strict=True):
                if reporters == 1 and name != "one connection":
                    continue
                for number, what in enumerate(("p50", "p99", "time per call")):
                    figures.append(
                        Figure.of_rounds(
                            f"{reporters} at once, {what} / EVALSHA over {name}",
                            [took[number] for took in ours],
                            [took[number] for took in baseline],
                            "µs",
                            scale=1e6,
                        )
                    )
        figures += await _storm(options, coordinator, report, sides)
    return figures


async def _hammer(call: Call, workers: int, calls: int) -> tuple[float, float, float]:
    """Make calls from several tasks at once; return p50 and p99 of their latency and the time per call, in seconds."""
    latencies: list[float] = []

    async def work() -> None:
        for _ in range(calls):
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    wall = time.perf_counter() - began
    return quantile(latencies, 0.5), quantile(latencies, 0.99), wall / len(latencies)


async def _storm(
    options: Options, coordinator: RateLimitCoordinator, report: Call, sides: dict[str, Call]
) -> list[Figure]:
    """Make 10,000 calls at once: how long until the last has returned, and how many calls of scripts it takes."""
    count = options.pick(STORM, 500)
    script_calls: list[int] = []

    async def storm_of_reports() -> float:
        before = coordinator.health.script_calls
        took = await _all_at_once(report, count)
        script_calls.append(coordinator.health.script_calls - before)
        return took

    ours, *baselines = await taking_turns(
        storm_of_reports,
        *(partial(_all_at_once, call, count) for call in sides.values()),
        rounds=options.pick(5, 1),
    )
    figures = [
        Figure.of_rounds(f"storm of {count:,}, wall time / EVALSHA over {name}", ours, baseline, "ms", scale=1e3)
        for name, baseline in zip(sides, baselines, strict=True)
    ]
    most = max(script_calls)
    figures.append(Figure(f"storm of {count:,}, script calls / one each", most, count, "calls", [most / count]))
    return figures


async def _all_at_once(call: Call, count: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(count)))
    return time.perf_counter() - began
