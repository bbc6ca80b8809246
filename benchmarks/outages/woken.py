"""The master stands still, another takes over, and the old one wakes up: who still listens to it, and for how long?

A connection to it looks alive: it was never closed, and it answers again. Only, whatever is published from now on is
published elsewhere, until the Sentinels turn the old master into a replica, which closes the connection. On each side
somebody writes all the time, and somebody else from the moment when there is another master.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.harness import Options
from benchmarks.outages.coordinated import OurListener, OurWriter, coordinator_of
from benchmarks.outages.plain import PlainListener, PlainWriter, master_of
from benchmarks.outages.sides import MOST_WRITES, Desk, Ear, in_background, now, wait_until
from benchmarks.outages.takeover import heir
from tests.topologies import SentinelTrio

PAUSE_SECONDS = 0.01
"""Between two writes of the same one, each of which is told to the listeners of the side."""
BEFORE_SECONDS = 1.0
"""How long everything works at first."""
WOKEN_SECONDS = 2.0
"""So long after the fail-over the old master is woken."""


@dataclass(frozen=True)
class Deafness:
    """What one listener heard."""

    deaf_seconds: float
    """See ``Ear.deaf_after``, after the stop."""
    never_heard: int
    """Acknowledged notices that it never learned of."""
    recovered: int
    """Those that it missed and learned of from a snapshot; none in redis-py, which has no such thing."""
    unmirrored: int | None = None
    """Limits that were promised and that its mirror does not hold in the end; None where there is no mirror."""


@dataclass(frozen=True)
class Woken:
    """What an old master that was stopped and woken cost."""

    takeover_seconds: float
    """From the stop until the Sentinels agreed on another master."""
    woken_seconds: float
    """From the stop until the old master went on."""
    observed_seconds: float
    """From the stop until the last write."""
    plain_silent_seconds: float
    """From the stop until a write of redis-py was acknowledged to who had been writing before."""
    our_silent_seconds: float
    """From the stop until a write of ours was acknowledged to who had been writing before."""
    kept: int
    """Writes of ours that were kept while nobody answered, to be done later."""
    plain_told: int
    """Acknowledged notices of redis-py."""
    our_told: int
    """Acknowledged notices of ours."""
    plain: Deafness
    pinging: Deafness
    """The same with a ping of its own."""
    ours: Deafness


async def wake(options: Options, trio: SentinelTrio) -> Woken:
    """Let both sides live through it.

    Args:
        options: How long to wait for listeners that hear nothing.
        trio: Of its own; its first node is the master, and is stopped and woken.
    """
    old = trio.nodes[0]
    async with master_of(trio) as first, master_of(trio) as second, OurListener.of(trio.url) as ours:
        plain, pinging = PlainListener(first), PlainListener(second, own_ping=True)
        async with in_background(plain.run(), pinging.run()):
            for listener in (plain, pinging):
                await listener.listening.wait()
            async with _writing(trio, 1) as before:
                await asyncio.sleep(BEFORE_SECONDS)
                old.pause()
                stopped_at = now()
                try:
                    await heir(trio, old)
                    taken_over_at = now()
                    async with _writing(trio, 1 + MOST_WRITES) as after:
                        await asyncio.sleep(WOKEN_SECONDS)
                        old.resume()
                        woken_at = now()
                        ears = ((plain.ear, after.plain), (pinging.ear, after.plain), (ours.ear, after.ours))
                        await wait_until(
                            lambda: all(ear.hears_since(woken_at, desk) for ear, desk in ears), options.pick(25, 5)
                        )
                finally:
                    old.resume()
            ended_at = now()
            plain_desk, our_desk = before.plain.with_all_of(after.plain), before.ours.with_all_of(after.ours)
            lacks = await ours.settle(our_desk.promised)
        return Woken(
            takeover_seconds=taken_over_at - stopped_at,
            woken_seconds=woken_at - stopped_at,
            observed_seconds=ended_at - stopped_at,
            plain_silent_seconds=before.plain.silent_after(stopped_at),
            our_silent_seconds=before.ours.silent_after(stopped_at),
            kept=len(our_desk.kept),
            plain_told=len(plain_desk.acknowledged),
            our_told=len(our_desk.acknowledged),
            plain=_deafness(plain.ear, plain_desk, stopped_at),
            pinging=_deafness(pinging.ear, plain_desk, stopped_at),
            ours=_deafness(ours.ear, our_desk, stopped_at, len(lacks)),
        )


class _Desks(NamedTuple):
    plain: Desk
    ours: Desk


@asynccontextmanager
async def _writing(trio: SentinelTrio, first_number: int) -> AsyncIterator[_Desks]:
    """Have somebody more on each side who writes to whoever is the master."""
    async with master_of(trio) as client, coordinator_of(trio.url) as coordinator:
        desks = _Desks(Desk(PlainWriter(client), first_number), Desk(OurWriter(coordinator), first_number))
        async with in_background(*(desk.write_on(PAUSE_SECONDS) for desk in desks)):
            yield desks


def _deafness(ear: Ear, desk: Desk, stopped_at: float, unmirrored: int | None = None) -> Deafness:
    return Deafness(
        deaf_seconds=ear.deaf_after(stopped_at, desk),
        never_heard=len(desk.acknowledged.keys() - ear.heard.keys()),
        recovered=len(ear.recovered),
        unmirrored=unmirrored,
    )
