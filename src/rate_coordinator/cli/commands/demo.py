"""``demo``: see it work."""

from __future__ import annotations

from typing import Annotated

import typer

from rate_coordinator.cli.options import Json, chosen


def demo(
    context: typer.Context,
    plain: Annotated[bool, typer.Option("--plain", help="Print plain lines, also on a terminal.")] = False,
    as_json: Json = False,
) -> int:
    """See four processes share a limit.

    On a Redis of its own, which ends with it; takes less than 30 seconds.
    """
    # Only here: it brings a server and processes of its own, which no other command needs.
    from rate_coordinator.demo import run_demo

    return run_demo(seconds=None, plain=plain, as_json=chosen(context, None, None, as_json).as_json)
