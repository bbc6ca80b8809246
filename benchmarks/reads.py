"""What a read costs: ``await is_rate_limited(...)`` against the coordinator that lives in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.harness import Figure, Options, run, taking_turns
from rate_coordinator import RateLimitCoordinator

GOAL = 0.6
"""Ours takes at most so much of the baseline's time."""

Check = Callable[..., Awaitable[object]]


class InProcess:
    """The baseline: the least that an in-process coordinator does, an ``asyncio.Lock`` around a dictionary."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._until: dict[str | tuple[str, str], float] = {}

    async def report_rate_limit(self, backend_type: str, wait_seconds: float, model: str | None = None) -> None:
        """Limit a backend, or one model of it."""
        async with self._lock:
            target = backend_type if model is None else (backend_type, model)
            self._until[target] = max(self._until.get(target, 0.0), time.monotonic() + wait_seconds)

    async def is_rate_limited(self, backend_type: str, model: str | None = None) -> tuple[bool, float]:
        """Return whether a backend is limited, and for how many seconds."""
        async with self._lock:
            until = self._until.get(backend_type, 0.0)
            if model is not None:
                until = max(until, self._until.get((backend_type, model), 0.0))
            remaining = until - time.monotonic()
            return (True, remaining) if remaining > 0.0 else (False, 0.0)


class Bare:
    """The floor: a coroutine around a dictionary look-up, which knows no time."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    async def is_rate_limited(self, backend_type: str, model: str | None = None) -> float | None:
        """Return what the dictionary holds."""
        return self._until.get(backend_type)


def measure(options: Options) -> list[Figure]:
    """Measure limited and clear backends, with and without a model, among 1 and 1,000 active limits."""
    return run(options, lambda: _measure(options))


async def _measure(options: Options) -> list[Figure]:
    figures = []
    for limits in (1, 1000):
        namespace = f"benchmark of reads, {limits}"
        async with RateLimitCoordinator.from_url(options.url, namespace) as coordinator:
            for model in (None, "model"):
                await coordinator.clear_limits()
                baseline = InProcess()
                names = [f"backend-{number}" for number in range(limits)]
                await asyncio.gather(*(coordinator.report_rate_limit(name, 3000.0, model=model) for name in names))
                for name in names:
                    await baseline.report_rate_limit(name, 3000.0, model)
                for state, name in (("limited", names[-1]), ("clear", "another backend")):
                    arguments = (name,) if model is None else (name, model)
                    expected = state == "limited"
                    assert (await coordinator.is_rate_limited(*arguments))[0] is expected
                    assert (await baseline.is_rate_limited(*arguments))[0] is expected
                    figures += await _compare(
                        options,
                        f"{state}, {'with' if model else 'without'} model, {limits:,} active",
                        arguments,
                        coordinator.is_rate_limited,
                        baseline.is_rate_limited,
                    )
    figures.append(await _floor(options))
    return figures


async def _compare(
    options: Options, name: str, arguments: tuple[str, ...], ours: Check, baseline: Check
) -> list[Figure]:
    calls = options.pick(20_000, 500)
    mine, other = await taking_turns(
        lambda: _time(ours, arguments, calls),
        lambda: _time(baseline, arguments, calls),
        rounds=options.pick(25, 3),
    )
    return [Figure.of_rounds(name, mine, other, "µs", scale=1e6, goal=GOAL)]


async def _floor(options: Options) -> Figure:
    calls = options.pick(20_000, 500)
    bare, baseline = Bare(), InProcess()
    mine, other = await taking_turns(
        lambda: _time(bare.is_rate_limited, ("backend",), calls),
        lambda: _time(baseline.is_rate_limited, ("backend",), calls),
        rounds=options.pick(25, 3),
    )
    return Figure.of_rounds("for comparison: a bare coroutine around a look-up", mine, other, "µs", scale=1e6)


async def _time(check: Check, arguments: tuple[str, ...], calls: int) -> float:
    """Return seconds per call."""
    began = time.perf_counter()
    if len(arguments) == 1:
        (backend,) = arguments
        for _ in range(calls):
            await check(backend)
    else:
        backend, model = arguments
        for _ in range(calls):
            await check(backend, model)
    return (time.perf_counter() - began) / calls
