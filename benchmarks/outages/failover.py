"""The master dies with writes that it acknowledged and had not passed on: which limits does the next master lack?

Both sides write without a pause to the same master. Its replicas are stopped, their connections closed, and a moment
later it is killed: what it acknowledged in that moment is nowhere else. Then the replicas go on, and one takes over.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from benchmarks.harness import Options
from benchmarks.outages.coordinated import OurListener, OurWriter, coordinator_of
from benchmarks.outages.plain import PlainWriter, master_of
from benchmarks.outages.sides import LOOK_SECONDS, Desk, in_background, now
from benchmarks.outages.takeover import heir, lacking
from tests.servers import RedisServer
from tests.topologies import SentinelTrio

WRITERS = 4
"""Of each side, each with one write under way."""
LATER_SECONDS = 5.0
"""So long after the fail-over it is counted what the new master lacks."""
LONGEST_SECONDS = 15.0
"""So long after the fail-over nobody waits any more for limits to come back, or for a write to be acknowledged."""


@dataclass(frozen=True)
class Loss:
    """What one side lost."""

    acknowledged: int
    """Writes that were acknowledged before the master was killed."""
    held_back: int
    """Those of them that were acknowledged while no replica was told."""
    silent_seconds: float
    """From the kill until a write was acknowledged again; infinity if none was."""
    lacking_at_once: int
    """How many of their limits the new master lacked when it was first looked at."""
    lacking_later: int
    """The same, so many seconds later."""
    lacking_in_the_end: int
    """The same when the experiment ended, with everything else that was acknowledged, or kept and promised."""
    back_seconds: float
    """From the fail-over until it lacked none of them; infinity if that never came."""
    kept: int
    """Writes that were kept while there was no master, to be done when there is one."""
    unmirrored: int | None = None
    """How many of all these limits another process does not know of in the end; None where none was kept up to date."""


@dataclass(frozen=True)
class FailOver:
    """What a fail-over cost."""

    takeover_seconds: float
    """From the kill until all Sentinels agreed on a new master that thought so too."""
    later_seconds: float
    plain: Loss
    ours: Loss


async def fail_over(options: Options, trio: SentinelTrio) -> FailOver:
    """Let both sides live through it.

    Args:
        options: How long to write.
        trio: Of its own; its first node is the master, and is killed.
    """
    async with (
        master_of(trio) as client,
        coordinator_of(trio.url) as coordinator,
        OurListener.of(trio.url) as other,
    ):
        plain, ours = Desk(PlainWriter(client)), Desk(OurWriter(coordinator))
        async with in_background(*(desk.write_on() for desk in (plain, ours) * WRITERS)):
            await asyncio.sleep(options.pick(500, 200) / 1000)
            held_at, killed_at = await _kill(trio, options.pick(300, 100) / 1000)
            plain.stops_after = ours.stops_after = killed_at
            master = await heir(trio, trio.nodes[0])
            taken_over_at = now()
            searches = [_Search(desk, master, killed_at) for desk in (plain, ours)]
            while (passed := now() - taken_over_at) < LONGEST_SECONDS:
                for search in searches:
                    await search.look(now() - taken_over_at)
                lacked_by_us = searches[1].in_the_end or ours.promised - other.mirrored
                if passed > LATER_SECONDS and not lacked_by_us and ours.silent_after(killed_at) < math.inf:
                    break
                await asyncio.sleep(LOOK_SECONDS)
        return FailOver(
            taken_over_at - killed_at,
            LATER_SECONDS,
            plain=searches[0].loss(held_at),
            ours=searches[1].loss(held_at, len(ours.promised - other.mirrored)),
        )


async def _kill(trio: SentinelTrio, held_seconds: float) -> tuple[float, float]:
    """Hold replication back and kill the master so much later; return when each of the two was done."""
    master, *replicas = trio.nodes
    for replica in replicas:
        replica.pause()
    try:
        # Without this, what is written now would wait in the buffers of their sockets, and outlive the master.
        await asyncio.to_thread(master.admin.client_kill_filter, _type="replica")
        held_at = now()
        await asyncio.sleep(held_seconds)
        await asyncio.to_thread(master.stop)
        killed_at = now()
    finally:
        for replica in replicas:
            replica.resume()
    return held_at, killed_at


class _Search:
    """Looks for the limits of one side in a new master, again and again."""

    def __init__(self, desk: Desk, master: RedisServer, killed_at: float) -> None:
        self.in_the_end = 0
        self._desk = desk
        self._master = master
        self._killed_at = killed_at
        self._before = {number for number in desk.acknowledged if desk.begun[number] <= killed_at}
        self._at_once: int | None = None
        self._later = 0
        self._back_seconds = math.inf

    async def look(self, passed: float) -> None:
        """Look once, so many seconds after the fail-over."""
        lacks = len(await lacking(self._master, self._desk.writer, self._before))
        if self._at_once is None:
            self._at_once = lacks
        if passed <= LATER_SECONDS:
            self._later = lacks
        if not lacks:
            self._back_seconds = min(self._back_seconds, passed)
        self.in_the_end = len(await lacking(self._master, self._desk.writer, self._desk.promised))

    def loss(self, held_at: float, unmirrored: int | None = None) -> Loss:
        """Sum up."""
        return Loss(
            acknowledged=len(self._before),
            held_back=sum(self._desk.acknowledged[number] > held_at for number in self._before),
            silent_seconds=self._desk.silent_after(self._killed_at),
            lacking_at_once=self._at_once or 0,
            lacking_later=self._later,
            lacking_in_the_end=self.in_the_end,
            back_seconds=self._back_seconds,
            kept=len(self._desk.kept),
            unmirrored=unmirrored,
        )
