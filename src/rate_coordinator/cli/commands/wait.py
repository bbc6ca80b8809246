"""``wait``: until a backend may be called again."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.cli import fields, texts
from rate_coordinator.cli.commands.check import LIMITED
from rate_coordinator.cli.countdown import counting_down
from rate_coordinator.cli.options import Backend, Chosen, Json, Model, Namespace, Url, chosen
from rate_coordinator.cli.output import complain, is_terminal, say_json
from rate_coordinator.cli.session import reader, run, unstarted
from rate_coordinator.cli.values import read_seconds


def wait(
    context: typer.Context,
    backend: Backend,
    model: Model = None,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="SECONDS", help="Give up when the limit outlasts this: 30, 10m, 2h."),
    ] = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Wait until BACKEND may be called.

    Exits with 0 then, with 75 when the limit outlasts the timeout: at once where that is known already.
    Made for a shell: rate-coordinator wait claude && claude …
    """
    seconds = None if timeout is None else read_seconds("--timeout", timeout)
    return run(_wait(chosen(context, url, namespace, as_json), backend, model, seconds))


async def _wait(chosen: Chosen, backend: str, model: str | None, timeout: float | None) -> int:
    target = texts.printable(texts.target(backend, model))
    began = time.monotonic()
    async with unstarted(reader(chosen)) as coordinator:
        try:
            async with counting_down(coordinator, backend, model):
                waited, remaining = await coordinator.wait_until_clear(backend, model, timeout), 0.0
        except LimitWaitTimeout:
            waited = time.monotonic() - began
            _, remaining = await coordinator.is_rate_limited(backend, model)
    if chosen.as_json:
        outcome = {"clear": remaining == 0, "waited_seconds": waited, "seconds_remaining": remaining}
        say_json({**fields.of_target(backend, model), **outcome})
    if remaining:
        complain(f"{target} is limited for {texts.seconds(remaining)} more, longer than the timeout")
        return LIMITED
    if waited and is_terminal(sys.stderr):
        print(f"{target} is clear after {texts.seconds(waited)}", file=sys.stderr, flush=True)
    return 0
