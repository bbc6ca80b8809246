"""``python -m rate_coordinator.demo``: the demo without the command line's extra."""

from __future__ import annotations

import argparse
import sys

from rate_coordinator.demo import run_demo


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(
        prog="python -m rate_coordinator.demo", description="See four processes share one rate limit."
    )
    parser.add_argument("--plain", action="store_true", help="plain lines, also on a terminal")
    parser.add_argument("--json", action="store_true", help="nothing but one JSON document at the end")
    parser.add_argument("--seconds", type=float, help="about how long to take (default: 18)")
    options = parser.parse_args()
    try:
        return run_demo(seconds=options.seconds, plain=options.plain, as_json=options.json)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
