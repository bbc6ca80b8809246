"""Ratios against named baselines, both measured in one run; see README.md beside this file."""

from __future__ import annotations

import os
import sys

PARSER_VARIABLE = "RATE_COORDINATOR_BENCHMARKS_PARSER"


def choose_parser() -> None:
    """Hide hiredis from redis-py if that is asked for; processes that are started inherit the choice.

    It has to happen before redis-py is imported, which decides for one of its two parsers then.
    """
    if os.environ.get(PARSER_VARIABLE) == "python":
        sys.modules["hiredis"] = None  # type: ignore[assignment]


choose_parser()
