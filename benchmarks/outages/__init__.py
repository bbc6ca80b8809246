"""What is lost, and who is deaf for how long, when a master dies, stands still, or a link swallows everything.

Three experiments, each with redis-py as a careful user writes it and with the library, on the same servers and through
the same outage. They count what was lost instead of timing what is fast.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Options, run
from benchmarks.outages.cut import Cut, cut
from benchmarks.outages.failover import FailOver, fail_over
from benchmarks.outages.tables import tables
from benchmarks.outages.woken import Woken, wake
from tests.topologies import SentinelTrio
from tools.find_redis import available, inspect


@dataclass(frozen=True)
class Outages:
    """What came of all experiments."""

    fail_over: FailOver
    woken: Woken
    cut: Cut


def measure(options: Options) -> Outages:
    """Do all experiments; one after the other, or at once if it is to be quick."""
    # That it cannot hear for a while is no news here.
    logging.getLogger("rate_coordinator").setLevel(logging.ERROR)
    server = inspect(Path(options.binary), "named") if options.binary else available()[0]
    with ExitStack() as stack:
        # Not inside the event loop: they are started in a way that blocks, and are gone whatever ends the block.
        trios = [stack.enter_context(SentinelTrio(server)) for _ in range(2)]
        return run(options, lambda: _measure(options, *trios))


async def _measure(options: Options, mortal: SentinelTrio, sleepy: SentinelTrio) -> Outages:
    if not options.quick:
        return Outages(await fail_over(options, mortal), await wake(options, sleepy), await cut(options))
    async with asyncio.TaskGroup() as group:
        tasks = (
            group.create_task(fail_over(options, mortal)),
            group.create_task(wake(options, sleepy)),
            group.create_task(cut(options)),
        )
    return Outages(tasks[0].result(), tasks[1].result(), tasks[2].result())


def show(outages: Outages, *, markdown: bool) -> str:
    """Return a table for each experiment."""
    return tables(outages.fail_over, outages.woken, outages.cut, markdown=markdown)
