"""``hold`` and ``release``: leave an upstream alone by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from rate_coordinator.cli import fields, texts
from rate_coordinator.cli.options import Backend, Chosen, Json, Model, Namespace, Url, chosen
from rate_coordinator.cli.output import say, say_json
from rate_coordinator.cli.session import coordinator, run, unstarted
from rate_coordinator.cli.values import read_seconds


def hold(
    context: typer.Context,
    backend: Backend,
    length: Annotated[
        str, typer.Option("--for", metavar="SECONDS", help="How long, from now on: 45, 90m, 2h, 1h30m, 3d.")
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever asks.")] = "",
    model: Model = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Hold BACKEND: nobody calls it until then, whatever is reported or cleared.

    Holding again replaces the hold, so that this can also shorten it; release ends it.
    """
    seconds = read_seconds("--for", length)
    return run(_hold(chosen(context, url, namespace, as_json), backend, model, seconds, reason))


def release(
    context: typer.Context,
    backend: Backend,
    model: Model = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """End a hold of BACKEND now.

    What was reported meanwhile still counts, until its own end.
    """
    return run(_release(chosen(context, url, namespace, as_json), backend, model))


async def _hold(chosen: Chosen, backend: str, model: str | None, seconds: float, reason: str) -> int:
    async with unstarted(coordinator(chosen)) as holder:
        result = await holder.hold(backend, seconds, reason, model=model)
    if chosen.as_json:
        say_json(fields.of_hold(backend, model, reason, result))
        return 0
    until = f", until {texts.clock_time(result.resume_at)}" if result.resume_at else ""
    text = f"{texts.printable(texts.target(backend, model))} is held for {texts.exact(seconds)}"
    longer = result.seconds_remaining > result.wait_seconds
    say(f"{text}; what was reported limits it longer{until}" if longer else f"{text}{until}")
    return 0


async def _release(chosen: Chosen, backend: str, model: str | None) -> int:
    async with unstarted(coordinator(chosen)) as releaser:
        released = await releaser.release(backend, model)
        limited, remaining = await releaser.is_rate_limited(backend, model)
    if chosen.as_json:
        say_json(fields.of_release(backend, model, released, remaining))
        return 0
    name = texts.printable(texts.target(backend, model))
    still = f"; it stays limited for {texts.seconds(remaining)}" if limited else ""
    say(f"{name} {'is released' if released else 'was not held'}{still}")
    return 0
