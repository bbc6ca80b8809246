"""How long it takes until the last of many coordinators knows of a report, against bare subscriptions.

The coordinators are spread over a few processes, and so are as many bare subscriptions of redis-py, on a channel of
their own. A coordinator's time is taken in a callback, which runs after its mirror has changed. One report at a time:
the next comes when all have had time to hear this one.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from multiprocessing.connection import Connection

from redis.asyncio.client import PubSub

from benchmarks.harness import Figure, Options, bare_client, child, monotonic_ns, pause, quantile, receive, run
from rate_coordinator import Notice, RateLimitCoordinator

NAMESPACE = "benchmark of listeners"
CHANNEL = "benchmark of bare listeners"
PROCESSES = 4
STARTED_AT_ONCE = 5
WARM_UP = 5


def measure(options: Options) -> list[Figure]:
    """Measure 1, 8, 50 and 200 listeners."""
    figures = []
    for listeners in (1, 8) if options.quick else (1, 8, 50, 200):
        figures += run(options, partial(_measure, options, listeners))
    return figures


async def _measure(options: Options, listeners: int) -> list[Figure]:
    rounds, per_round = options.pick(5, 1), options.pick(30, 10)
    count = WARM_UP + rounds * per_round
    processes = min(listeners, PROCESSES)
    shares = [listeners // processes + (number < listeners % processes) for number in range(processes)]
    pace_seconds = 0.005 + 0.0005 * listeners
    with ExitStack() as children:
        pipes = [children.enter_context(child(options, _hear, share, count)) for share in shares]
        for pipe in pipes:
            await receive(pipe)
        sent: list[int] = []
        sent_bare: list[int] = []
        async with (
            RateLimitCoordinator.from_url(options.url, NAMESPACE) as coordinator,
            bare_client(options.url) as bare,
        ):
            for number in range(count):
                for turn in range(2):
                    if (number + turn) % 2:
                        sent.append(monotonic_ns())
                        await coordinator.report_rate_limit("backend", 60.0, sheet_num=number)
                    else:
                        sent_bare.append(monotonic_ns())
                        await bare.publish(CHANNEL, str(number))
                    await pause(pace_seconds)
            heard = [await receive(pipe) for pipe in pipes]
    ours = _last_of_all(sent, [last for last, _ in heard])
    baseline = _last_of_all(sent_bare, [last for _, last in heard])
    figures = []
    for name, share in (("median", 0.5), ("p90", 0.9)):
        ratios = [
            quantile(ours[first : first + per_round], share) / quantile(baseline[first : first + per_round], share)
            for first in range(0, rounds * per_round, per_round)
        ]
        mine, other = quantile(ours, share), quantile(baseline, share)
        title = f"{listeners} in {processes} process{'es'[: 2 * (processes > 1)]}, last to hear, {name} / bare pub/sub"
        figures.append(Figure(title, mine * 1e3, other * 1e3, "ms", ratios, None, mine / other))
    return figures


def _last_of_all(sent: list[int], heard: list[list[int]]) -> list[float]:
    """Return for each message after the warm-up the seconds until the last listener of all processes had it."""
    last = [max(times) for times in zip(*heard, strict=True)]
    return [(heard_at - sent_at) / 1e9 for sent_at, heard_at in zip(sent, last, strict=True)][WARM_UP:]


class _Roll:
    """When the last of this process's listeners heard each message."""

    def __init__(self, listeners: int, messages: int) -> None:
        self.last = [0] * messages
        self.complete = asyncio.Event()
        self._missing = listeners * messages

    def heard(self, number: int) -> None:
        """Take down that one listener heard this message now."""
        self.last[number] = monotonic_ns()
        self._missing -= 1
        if not self._missing:
            self.complete.set()


async def _hear(options: Options, pipe: Connection, listeners: int, count: int) -> None:
    """Be one of the processes: send when the last listener of each side heard each message."""
    ours, bare = _Roll(listeners, count), _Roll(listeners, count)

    def on_notice(notice: Notice) -> None:
        if notice.sheet_num is not None:
            ours.heard(notice.sheet_num)

    async def listen(subscription: PubSub) -> None:
        for _ in range(count):
            message = None
            while message is None:
                message = await subscription.get_message(ignore_subscribe_messages=True, timeout=None)
            bare.heard(int(message["data"]))

    async with AsyncExitStack() as stack:
        coordinators = [RateLimitCoordinator.from_url(options.url, NAMESPACE) for _ in range(listeners)]
        for first in range(0, listeners, STARTED_AT_ONCE):
            group = coordinators[first : first + STARTED_AT_ONCE]
            for coordinator in group:
                stack.push_async_callback(coordinator.aclose)
                coordinator.on_notice(on_notice)
            await asyncio.gather(*(coordinator.start() for coordinator in group))
        client = await stack.enter_async_context(bare_client(options.url))
        subscriptions = []
        for _ in range(listeners):
            subscription = await stack.enter_async_context(client.pubsub())
            await subscription.subscribe(CHANNEL)
            await subscription.get_message(timeout=10.0)
            subscriptions.append(subscription)
        async with asyncio.TaskGroup() as tasks:
            for subscription in subscriptions:
                tasks.create_task(listen(subscription))
            pipe.send("ready")
            await ours.complete.wait()
        pipe.send((ours.last, bare.last))
        # Their end comes with ours, so that no connection goes away while others are still being measured.
        await asyncio.to_thread(pipe.poll, 60.0)
