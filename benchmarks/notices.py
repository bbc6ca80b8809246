"""How fast another process hears of a report, against bare pub/sub between the same two processes.

One process reports and publishes in turns; the other has a coordinator with a callback and a bare subscription. Each
message carries when it was sent, on the clock that all processes of a machine share. Messages are paced, a few
milliseconds apart: what is measured is the way of one message, not how a flood is worked off.
"""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

from benchmarks.harness import Figure, Options, bare_client, child, monotonic_ns, pause, quantile, receive, run
from rate_coordinator import Notice, RateLimitCoordinator

P50_GOAL = 1.5
P99_GOAL = 2.0
NAMESPACE = "benchmark of notices"
CHANNEL = "benchmark of bare pub/sub"
WARM_UP = 50


def measure(options: Options) -> list[Figure]:
    """Measure the delay of each notice; both sides take turns, message by message."""
    return run(options, lambda: _measure(options))


async def _measure(options: Options) -> list[Figure]:
    rounds, per_round = options.pick(10, 2), options.pick(300, 25)
    count = WARM_UP + rounds * per_round
    with child(options, _hear, count) as pipe:
        await receive(pipe)
        async with (
            RateLimitCoordinator.from_url(options.url, NAMESPACE) as coordinator,
            bare_client(options.url) as bare,
        ):
            for number in range(count):
                for turn in range(2):
                    if (number + turn) % 2:
                        # Each wait is longer than the one before: only a report that extends is told to others.
                        wait_seconds = 60.0 + number / 100
                        await coordinator.report_rate_limit("backend", wait_seconds, job_id=str(monotonic_ns()))
                    else:
                        await bare.publish(CHANNEL, str(monotonic_ns()))
                    await pause(options.pace_seconds)
            heard, heard_bare = await receive(pipe)
    ours, baseline = heard[WARM_UP:], heard_bare[WARM_UP:]
    figures = []
    for name, share, goal in (("p50", 0.5, P50_GOAL), ("p90", 0.9, None), ("p99", 0.99, P99_GOAL)):
        ratios = [
            quantile(ours[first : first + per_round], share) / quantile(baseline[first : first + per_round], share)
            for first in range(0, rounds * per_round, per_round)
        ]
        mine, other = quantile(ours, share), quantile(baseline, share)
        title = f"{name} of {len(ours):,}, report to callback / PUBLISH to get_message"
        figures.append(Figure(title, mine * 1e6, other * 1e6, "µs", ratios, goal, mine / other))
    return figures


async def _hear(options: Options, pipe: Connection, count: int) -> None:
    """Be the other process: send the delays of both sides, in seconds, when there are so many of each."""
    ours: list[float] = []
    bare: list[float] = []
    all_heard = asyncio.Event()

    def on_notice(notice: Notice) -> None:
        ours.append((monotonic_ns() - int(notice.job_id or 0)) / 1e9)
        if len(ours) == count:
            all_heard.set()

    async with (
        RateLimitCoordinator.from_url(options.url, NAMESPACE) as coordinator,
        bare_client(options.url) as client,
        client.pubsub() as subscription,
    ):
        coordinator.on_notice(on_notice)
        await subscription.subscribe(CHANNEL)
        await subscription.get_message(timeout=10.0)
        pipe.send("ready")
        while len(bare) < count:
            message = await subscription.get_message(ignore_subscribe_messages=True, timeout=None)
            if message is not None:
                bare.append((monotonic_ns() - int(message["data"])) / 1e9)
        async with asyncio.timeout(10.0):
            await all_heard.wait()
        pipe.send((ours, bare))
