"""What ``import rate_coordinator`` costs, against the import of the two packages that it depends on."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.harness import Figure, Options, run, taking_turns

OURS = "import rate_coordinator"
DEPENDENCIES = "import redis.asyncio; from pydantic import BaseModel"
"""The baseline: what a program loads anyway that uses both. pydantic loads its parts only when they are asked for."""

TIMED = "from time import perf_counter; began = perf_counter(); {}; print(perf_counter() - began)"


def measure(options: Options) -> list[Figure]:
    """Measure in fresh processes, whose own start is left out."""
    return run(options, lambda: _measure(options))


async def _measure(options: Options) -> list[Figure]:
    for statement in (OURS, DEPENDENCIES):
        # The first one writes or reads the compiled modules from the disk.
        await _time(statement)
    ours, baseline = await taking_turns(lambda: _time(OURS), lambda: _time(DEPENDENCIES), rounds=options.pick(20, 2))
    return [Figure.of_rounds("import in a fresh process", ours, baseline, "ms", scale=1e3)]


async def _time(statement: str) -> float:
    """Return how many seconds a statement takes in a process of its own."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return float(said)
