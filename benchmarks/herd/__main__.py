"""Measure: ``python -m benchmarks.herd [--upstream NAME …] [--strategy NAME …]``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from benchmarks.harness import Options, describe_machine, started_server
from benchmarks.herd.plan import FULL, QUICK, Plan
from benchmarks.herd.runs import Run, measure
from benchmarks.herd.strategies import STRATEGIES
from benchmarks.herd.svg import draw
from benchmarks.herd.tables import table


def main() -> int:
    """Run as a command; return the exit code."""
    arguments = _read_arguments()
    plan = QUICK if arguments.quick else FULL
    # That a server is of a kind that could lose limits is no news here.
    logging.getLogger("rate_coordinator").setLevel(logging.ERROR)
    with started_server(arguments.server) as server:
        options = Options(server.url, server.binary, arguments.quick)
        print(describe_machine(options, server), flush=True)
        print(plan.about, flush=True)
        for number, upstream in enumerate(arguments.upstream):
            policy = plan.upstreams[upstream]
            print(f"\n{upstream}: {policy.about}, at best {policy.ideal_seconds(plan.calls):.1f} s\n", flush=True)
            runs = [_measure(options, plan, upstream, strategy) for strategy in arguments.strategy]
            print(table(runs, markdown=arguments.markdown), flush=True)
            if arguments.svg is not None and number == 0:
                for path in draw(runs, arguments.svg):
                    print(f"drawn: {path}", flush=True)
    return 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.herd",
        description="Let a fleet of processes make more calls than an upstream serves, in several ways.",
        epilog="\n".join(
            [
                "upstreams:",
                *(f"  {name:<18} {policy.about}" for name, policy in FULL.upstreams.items()),
                "strategies:",
                *(f"  {name:<18} {(one.__doc__ or '').splitlines()[0]}" for name, one in STRATEGIES.items()),
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds: shows that it runs, proves nothing")
    for option, names in (("upstream", list(FULL.upstreams)), ("strategy", list(STRATEGIES))):
        parser.add_argument(
            f"--{option}",
            nargs="+",
            choices=names,
            default=names,
            metavar="NAME",
            help="one or more of those below; all if left out",
        )
    parser.add_argument("--server", help="redis-server or valkey-server to start; the machine's own if left out")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="draw what the first upstream got, over time")
    return parser.parse_args()


def _measure(options: Options, plan: Plan, upstream: str, strategy: str) -> Run:
    """Measure, and tell whoever watches a terminal that it takes a while."""
    watched = sys.stderr.isatty()
    if watched:
        print(f"  {strategy} …", end="\r", file=sys.stderr, flush=True)
    run = measure(options, plan, upstream, strategy)
    if watched:
        print("\x1b[2K", end="", file=sys.stderr, flush=True)
    return run


if __name__ == "__main__":
    sys.exit(main())
