"""Let processes live through random faults: ``python -m tests.chaos [PLACE …] [--seconds 180] [--seed N]``."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from tests.chaos.driver import SCENES, Chaos, Outcome, Violated


async def run(seconds: float, seed: int, processes: int, place: str) -> Outcome:
    """Run it in a task that a signal cancels, so that everything is stopped before the end."""
    running = asyncio.create_task(Chaos(seconds, seed, processes, place).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    return await running


def main() -> int:
    """Run as a command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Let processes live through random faults and check what must hold."
    )
    parser.add_argument("places", nargs="*", metavar="PLACE", help=f"of {', '.join(SCENES)}; all if none is named")
    parser.add_argument("--seconds", type=float, default=180.0, help="how long in all; %(default)g if left out")
    parser.add_argument("--seed", type=int, help="of the schedule; any if left out")
    parser.add_argument("--processes", type=int, default=8, help="how many; %(default)d if left out")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    places = arguments.places or list(SCENES)
    if unknown := [place for place in places if place not in SCENES]:
        parser.error(f"no place is called {', '.join(unknown)}; there are {', '.join(SCENES)}")
    seconds = arguments.seconds / len(places)
    try:
        for place in places:
            print(f"{place}: {arguments.processes} processes, {seconds:g} s, seed {seed}", flush=True)
            print(asyncio.run(run(seconds, seed, arguments.processes, place)), flush=True)
    except Violated as violated:
        print(violated)
        return 1
    except asyncio.CancelledError:
        print("interrupted; everything that was started is stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
