"""The link of a listener swallows everything, in both directions, and tells nobody: after how long is it noticed?

As behind a router that forgot the connection: nothing arrives on it any more, no end is told, and a new connection
works. Several listeners of each kind began at different times, because it depends on when the last ping was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.harness import Options
from benchmarks.outages.coordinated import OurListener, OurWriter, coordinator_of
from benchmarks.outages.plain import PING_SECONDS, PlainListener, PlainWriter, client_of
from benchmarks.outages.sides import Desk, Ear, in_background, now, wait_until
from tests.faults.proxy import Faults, Proxy, listeners

PAUSE_SECONDS = 0.05
"""Between two writes of a side."""
BEFORE_SECONDS = 1.0
"""How long everything works at first."""


@dataclass(frozen=True)
class Noticing:
    """What the listeners of one kind noticed, one number for each; infinity where it was not until the end."""

    noticed_seconds: tuple[float, ...]
    """From the cut until it knew that it cannot hear."""
    deaf_seconds: tuple[float, ...]
    """See ``Ear.deaf_after``, after the cut."""
    never_heard: tuple[int, ...]
    """Acknowledged notices that it never learned of."""


@dataclass(frozen=True)
class Cut:
    """What links that died without a word cost."""

    observed_seconds: float
    """From the cut until the last write."""
    checking: Noticing
    """redis-py with ``health_check_interval``."""
    pinging: Noticing
    """The same with a ping of its own."""
    ours: Noticing
    our_lacks: tuple[int, ...]
    """Limits that each of our listeners does not know of in the end."""


async def cut(options: Options) -> Cut:
    """Let all listeners live through it; they connect through a proxy, the writers do not.

    Args:
        options: How many listeners, how long to wait for them, and which server to use.
    """
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(urlsplit(options.url).port or 6379))
        client = await stack.enter_async_context(client_of(options.url))
        coordinator = await stack.enter_async_context(coordinator_of(options.url))
        plain_desk, our_desk = Desk(PlainWriter(client)), Desk(OurWriter(coordinator))
        checking, pinging, ours = await _listen(stack, proxy.url, options.pick(8, 2))
        kinds = (
            (plain_desk, [listener.ear for listener in checking]),
            (plain_desk, [listener.ear for listener in pinging]),
            (our_desk, [listener.ear for listener in ours]),
        )
        async with in_background(*(desk.write_on(PAUSE_SECONDS) for desk in (plain_desk, our_desk))):
            await asyncio.sleep(BEFORE_SECONDS)
            proxy.go_wrong(Faults(concerns=listeners, holes=frozenset({"requests", "replies"})))
            proxy.heal(forget=True)
            cut_at = now()
            await wait_until(
                lambda: all(_hears_again(ear, desk, cut_at) for desk, ears in kinds for ear in ears),
                options.pick(20, 12),
            )
        ended_at = now()
        lacks = await asyncio.gather(*(listener.settle(our_desk.promised) for listener in ours))
        noticed = [_noticing(ears, desk, cut_at) for desk, ears in kinds]
        return Cut(ended_at - cut_at, noticed[0], noticed[1], noticed[2], tuple(len(one) for one in lacks))


async def _listen(
    stack: AsyncExitStack, url: str, count: int
) -> tuple[list[PlainListener], list[PlainListener], list[OurListener]]:
    """Start so many listeners of each kind, spread over the time between two pings."""
    checking: list[PlainListener] = []
    pinging: list[PlainListener] = []
    ours: list[OurListener] = []
    for _ in range(count):
        for own_ping, kind in ((False, checking), (True, pinging)):
            plain = PlainListener(await stack.enter_async_context(client_of(url)), own_ping=own_ping)
            await stack.enter_async_context(in_background(plain.run()))
            await plain.listening.wait()
            kind.append(plain)
        our = await stack.enter_async_context(OurListener.of(url))
        await stack.enter_async_context(in_background(our.watch()))
        ours.append(our)
        await asyncio.sleep(PING_SECONDS / count)
    return checking, pinging, ours


def _hears_again(ear: Ear, desk: Desk, cut_at: float) -> bool:
    return ear.hears_since(cut_at + ear.noticed_after(cut_at), desk)


def _noticing(ears: Sequence[Ear], desk: Desk, cut_at: float) -> Noticing:
    return Noticing(
        tuple(ear.noticed_after(cut_at) for ear in ears),
        tuple(ear.deaf_after(cut_at, desk) for ear in ears),
        tuple(len(desk.acknowledged.keys() - ear.heard.keys()) for ear in ears),
    )
