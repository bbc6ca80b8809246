"""``notices``: every change as it is broadcast."""

from __future__ import annotations

import typer

from rate_coordinator.cli import fields
from rate_coordinator.cli.options import Chosen, Json, Namespace, Url, chosen
from rate_coordinator.cli.output import complain, say_json
from rate_coordinator.cli.session import reader, run


def notices(context: typer.Context, url: Url = None, namespace: Namespace = None, as_json: Json = False) -> int:
    """Print every change as it is broadcast.

    One JSON object a line, with or without --json.
    """
    return run(_notices(chosen(context, url, namespace, as_json)), endless=True)


async def _notices(chosen: Chosen) -> int:
    coordinator = reader(chosen)
    # Before it starts, so that nothing is missed in between.
    stream = coordinator.notices()
    dropped = 0
    async with coordinator:
        async for notice in stream:
            say_json(fields.of_notice(notice))
            if stream.dropped > dropped:
                complain(f"{stream.dropped - dropped} notices were lost, because their reader was too slow")
                dropped = stream.dropped
    return 0
