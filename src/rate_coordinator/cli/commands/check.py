"""``check``: may a backend be called now?"""

from __future__ import annotations

import math

import typer

from rate_coordinator.cli import fields
from rate_coordinator.cli.options import Backend, Chosen, Json, Model, Namespace, Url, chosen
from rate_coordinator.cli.output import say, say_json
from rate_coordinator.cli.session import reader, run, unstarted

LIMITED = 75
"""Exit code for a backend that is limited: EX_TEMPFAIL of sysexits.h, "try again later"."""


def check(
    context: typer.Context,
    backend: Backend,
    model: Model = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Tell whether BACKEND may be called.

    Prints the seconds that are left. Exits with 0 when it is clear, with 75 when it is limited.
    """
    return run(_check(chosen(context, url, namespace, as_json), backend, model))


async def _check(chosen: Chosen, backend: str, model: str | None) -> int:
    async with unstarted(reader(chosen)) as coordinator:
        limited, remaining = await coordinator.is_rate_limited(backend, model)
    if chosen.as_json:
        say_json({**fields.of_target(backend, model), "limited": limited, "seconds_remaining": remaining})
    else:
        # Rounded up: who sleeps for so long must not be early.
        say(f"{math.ceil(remaining * 1000) / 1000:.3f}")
    return LIMITED if limited else 0
