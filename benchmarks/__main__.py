"""Measure: ``python -m benchmarks [FIGURE …] [--quick]``."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from importlib.util import find_spec

from benchmarks import PARSER_VARIABLE, choose_parser

FIGURES = {
    "reads": "is_rate_limited against a lock around a dictionary",
    "notices": "from a report to a callback in another process, against bare pub/sub",
    "reports": "a report against a bare EVALSHA, alone and in a storm",
    "waiters": "10,000 tasks that wait for one backend",
    "listeners": "from a report to the last of many coordinators",
    "imports": "import rate_coordinator against the import of redis and pydantic",
}
LONG_FIGURES = {"outages": "what redis-py and the library lose in a fail-over, and how long they are deaf"}
"""Only measured when they are named: no ratios, and most of their time is spent on waiting."""


def main() -> int:
    """Run as a command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the library against named baselines in the same run.",
        epilog="\n".join(
            [
                *(f"  {name:<10} {about}" for name, about in FIGURES.items()),
                "only when named, about a minute:",
                *(f"  {name:<10} {about}" for name, about in LONG_FIGURES.items()),
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "figures", nargs="*", metavar="FIGURE", help="which to measure; all but outages if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds: shows that it runs, proves nothing")
    parser.add_argument("--uvloop", action="store_true", help="run all processes on uvloop instead of asyncio's loop")
    parser.add_argument("--no-hiredis", action="store_true", help="use redis-py's parser in Python, on both sides")
    parser.add_argument(
        "--pace",
        type=float,
        default=3.0,
        help="milliseconds between two messages of `notices`; %(default)g if left out",
    )
    parser.add_argument("--server", help="redis-server or valkey-server to start; the machine's own if left out")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    arguments = parser.parse_args()
    known = FIGURES | LONG_FIGURES
    if unknown := [name for name in arguments.figures if name not in known]:
        parser.error(f"no figure is called {', '.join(unknown)}; there are {', '.join(known)}")
    if not 0 <= arguments.pace <= 20:
        parser.error("--pace must be 0 to 20 milliseconds")
    if arguments.uvloop and find_spec("uvloop") is None:
        parser.error("uvloop is not installed: it comes with the extra 'speed'")
    if arguments.no_hiredis:
        os.environ[PARSER_VARIABLE] = "python"
        choose_parser()

    # Not before the parser is chosen: these import redis-py.
    from benchmarks.harness import Options, describe_machine, show, started_server

    with started_server(arguments.server) as server:
        options = Options(server.url, server.binary, arguments.quick, arguments.uvloop, arguments.pace / 1000)
        print(describe_machine(options, server), flush=True)
        for name in arguments.figures or FIGURES:
            print(f"\n{name}: {known[name]}", flush=True)
            module = import_module(f"benchmarks.{name}")
            shown = module.show if name in LONG_FIGURES else show
            print(shown(module.measure(options), markdown=arguments.markdown), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
