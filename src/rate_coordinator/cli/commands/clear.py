"""``clear``: lift limits now, for everyone."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rate_coordinator.cli import FAILED, fields, texts
from rate_coordinator.cli.options import Chosen, Json, Model, Namespace, Url, chosen
from rate_coordinator.cli.output import complain, is_terminal, say, say_json
from rate_coordinator.cli.session import coordinator, reader, run, unstarted

MOST_SHOWN = 10
"""How many targets are named before asking."""


def clear(
    context: typer.Context,
    backend: Annotated[
        str | None, typer.Argument(metavar="BACKEND", help="Lift its limits and those of its models; all without it.")
    ] = None,
    model: Model = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Lift all limits without asking.")] = False,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Lift limits now.

    Those of BACKEND and of its models, or all of them, for every process. Events are kept, and what is held by hand
    stays held: release ends that.
    """
    choice = chosen(context, url, namespace, as_json)
    if backend is None and model is None and not yes and not _agreed(choice):
        complain("nothing was cleared")
        return FAILED
    return run(_clear(choice, backend, model))


async def _clear(chosen: Chosen, backend: str | None, model: str | None) -> int:
    async with unstarted(coordinator(chosen)) as clearer:
        cleared = await clearer.clear_limits(backend, model=model)
        held = fields.still_held(clearer.limits, backend, model)
    if chosen.as_json:
        say_json(fields.of_clear(backend, model, cleared, held))
        return 0
    if cleared:
        say(f"cleared {cleared} limit{'s' if cleared > 1 else ''}")
    elif not held:
        say("nothing was limited")
    for limit in held:
        name = texts.printable(texts.target(limit.backend, limit.model))
        say(f"{name} stays held for {texts.seconds(limit.seconds_remaining)} ({texts.why(limit)}); release ends that")
    return 0


def _agreed(chosen: Chosen) -> bool:
    """Ask, between two short connections, so that none is kept waiting for the answer."""
    if not is_terminal(sys.stdin):
        raise ValueError("clearing every limit needs --yes, because there is no terminal to ask on")
    run(_show(chosen))
    print("Clear all of them, for every process? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


async def _show(chosen: Chosen) -> int:
    async with reader(chosen) as coordinator:
        limits = [limit for limit in coordinator.limits if limit.held_until != limit.resume_at]
        targets = [texts.printable(texts.target(limit.backend, limit.model)) for limit in limits]
        where = f"namespace {texts.printable(chosen.namespace)} on {texts.printable(coordinator.address)}"
    shown = ", ".join(targets[:MOST_SHOWN]) + (", …" if len(targets) > MOST_SHOWN else "")
    count = f"{len(targets)} active limit{'' if len(targets) == 1 else 's'}"
    print(f"{count} in {where}{': ' if targets else ''}{shown}", file=sys.stderr, flush=True)
    return 0
