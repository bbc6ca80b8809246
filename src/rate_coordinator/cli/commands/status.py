"""``status``: which limits are active."""

from __future__ import annotations

import typer

from rate_coordinator.cli import fields
from rate_coordinator.cli.options import Chosen, Json, Namespace, Url, chosen
from rate_coordinator.cli.output import say, say_json
from rate_coordinator.cli.session import reader, run


def status(context: typer.Context, url: Url = None, namespace: Namespace = None, as_json: Json = False) -> int:
    """Show the active limits.

    For each: how long it lasts, when it lifts (local time), who reported it last and why.
    """
    return run(_status(chosen(context, url, namespace, as_json)))


async def _status(chosen: Chosen) -> int:
    async with reader(chosen) as coordinator:
        limits, address = coordinator.limits, coordinator.address
    if chosen.as_json:
        say_json(
            {
                "address": address,
                "namespace": chosen.namespace,
                "limits": [fields.of_limit(limit) for limit in limits],
            }
        )
    elif not limits:
        say("nothing is limited")
    else:
        from rate_coordinator.cli.tables import console, limits_table

        console().print(limits_table(limits))
    return 0
