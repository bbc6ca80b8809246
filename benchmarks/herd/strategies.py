"""The ways to deal with an upstream's 429s. Each makes one call until it is served; tasks of a process share one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tenacity import AsyncRetrying, retry_if_result, wait_random_exponential

from benchmarks.harness import bare_client
from benchmarks.herd.oracle import Oracle
from benchmarks.herd.policies import Policy
from rate_coordinator import RateLimitCoordinator

BACKEND = "upstream"
LONGEST_BACKOFF_SECONDS = 60.0

Send = Callable[[], Awaitable[float | None]]
"""Send one request: None if it was served, else the seconds of its ``Retry-After``."""
Strategy = Callable[[Send], Awaitable[None]]
"""Send requests until one is served."""


@dataclass(frozen=True)
class Surroundings:
    """What a strategy may use."""

    url: str
    """Of a Redis that all processes share."""
    namespace: str
    """For this run alone."""
    policy: Policy
    start_ns: int
    """When the upstream began; this and the policy are for the oracle."""
    tasks: int
    """How many tasks of this process share the strategy."""
    longest_seconds: float
    """How long any call may wait."""


Opened = AbstractAsyncContextManager[Strategy]


@asynccontextmanager
async def retry(_: Surroundings) -> AsyncIterator[Strategy]:
    """Each call for itself: exponential back-off with full jitter, from a second on."""

    async def until_served(send: Send) -> None:
        await AsyncRetrying(
            retry=retry_if_result(lambda retry_after: retry_after is not None),
            wait=wait_random_exponential(min=1, max=LONGEST_BACKOFF_SECONDS),
        )(send)

    yield until_served


@asynccontextmanager
async def retry_after(_: Surroundings) -> AsyncIterator[Strategy]:
    """Each call for itself: it sleeps as long as its own 429 said."""

    async def until_served(send: Send) -> None:
        while True:
            seconds = await send()
            if seconds is None:
                return
            await asyncio.sleep(seconds)

    yield until_served


@asynccontextmanager
async def released_at_once(around: Surroundings) -> AsyncIterator[Strategy]:
    """All share what each one learns, and all go on when the limit lifts."""
    async with RateLimitCoordinator.from_url(around.url, around.namespace) as coordinator:

        async def until_served(send: Send) -> None:
            while True:
                await coordinator.wait_until_clear(BACKEND)
                seconds = await send()
                if seconds is None:
                    return
                await coordinator.report_rate_limit(BACKEND, seconds)

        yield until_served


@asynccontextmanager
async def paced(around: Surroundings) -> AsyncIterator[Strategy]:
    """All share what each one learns, and go on at the pace that the upstream was seen to keep up with."""
    async with RateLimitCoordinator.from_url(around.url, around.namespace) as coordinator:

        async def until_served(send: Send) -> None:
            while True:
                async with coordinator.admit(BACKEND, timeout=around.longest_seconds) as call:
                    seconds = await send()
                    if seconds is None:
                        return
                    await call.limited(seconds)

        yield until_served


@asynccontextmanager
async def oracle(around: Surroundings) -> AsyncIterator[Strategy]:
    """A limiter in Redis that was told what the upstream allows; see ``oracle.py``."""
    async with bare_client(around.url) as client:
        limiter = Oracle(client, around.namespace, around.policy, around.start_ns)
        await limiter.prepare(around.tasks)

        async def until_served(send: Send) -> None:
            await limiter.turn()
            while await send() is not None:
                await limiter.turn()

        yield until_served


STRATEGIES: dict[str, Callable[[Surroundings], Opened]] = {
    "retry": retry,
    "retry-after": retry_after,
    "released-at-once": released_at_once,
    "paced": paced,
    "oracle": oracle,
}
SHARED, OURS, ORACLE = "released-at-once", "paced", "oracle"
