"""``status``: which limits are active."""

from __future__ import annotations

import typer

from rate_coordinator.cli import fields, texts
from rate_coordinator.cli.options import Chosen, Json, Namespace, Url, chosen
from rate_coordinator.cli.output import say, say_json
from rate_coordinator.cli.session import reader, run


def status(context: typer.Context, url: Url = None, namespace: Namespace = None, as_json: Json = False) -> int:
    """Show the active limits, and the paces that are kept.

    For each limit: how long it lasts, when it lifts (local time), who reported it last and why.
    """
    return run(_status(chosen(context, url, namespace, as_json)))


async def _status(chosen: Chosen) -> int:
    async with reader(chosen) as coordinator:
        limits, address = coordinator.limits, coordinator.address
        asked = [await coordinator.pace(pace.backend, pace.model) for pace in coordinator.health.paces]
    paces = [pace for pace in asked if pace is not None]
    if chosen.as_json:
        say_json(
            {
                "address": address,
                "namespace": chosen.namespace,
                "limits": [fields.of_limit(limit) for limit in limits],
                "paces": [fields.of_pace(pace) for pace in paces],
            }
        )
    elif not limits:
        say("nothing is limited")
    else:
        from rate_coordinator.cli.tables import console, limits_table

        console().print(limits_table(limits))
    if not chosen.as_json:
        for pace in paces:
            say(texts.pace_line(pace))
    return 0
