"""``pace``: what was learned of an upstream's rate."""

from __future__ import annotations

from typing import Annotated

import typer

from rate_coordinator.cli import fields, texts
from rate_coordinator.cli.options import Chosen, Json, Model, Namespace, Url, chosen
from rate_coordinator.cli.output import say, say_json
from rate_coordinator.cli.session import coordinator, run, unstarted


def pace(
    context: typer.Context,
    backend: Annotated[str, typer.Argument(metavar="BACKEND", help="The upstream.")],
    model: Model = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget it, for every process; limits stay.")] = False,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Show the pace that was learned of BACKEND.

    How many calls per second the whole fleet may make now, and where it was refused last.
    """
    return run(_pace(chosen(context, url, namespace, as_json), backend, model, forget))


async def _pace(chosen: Chosen, backend: str, model: str | None, forget: bool) -> int:
    name = texts.printable(texts.target(backend, model))
    async with unstarted(coordinator(chosen)) as asked:
        if forget:
            forgotten = await asked.forget_pace(backend, model)
            if chosen.as_json:
                say_json({**fields.of_target(backend, model), "forgotten": forgotten})
            else:
                say(f"{name}: {'forgotten' if forgotten else 'no pace is remembered'}")
            return 0
        told = await asked.pace(backend, model)
    if chosen.as_json:
        say_json({**fields.of_target(backend, model), "pace": fields.of_pace(told) if told else None})
    elif told is None:
        say(f"{name}: no pace is remembered: every call may go at once")
    else:
        say(texts.pace_line(told))
    return 0
