"""``explain``: where does a limit come from?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from rate_coordinator import Explanation, RateLimitEvent
from rate_coordinator.cli import fields, texts
from rate_coordinator.cli.options import Backend, Chosen, Json, Model, Namespace, Url, chosen
from rate_coordinator.cli.output import say, say_json
from rate_coordinator.cli.session import reader, run, unstarted


def explain(
    context: typer.Context,
    backend: Backend,
    model: Model = None,
    count: Annotated[
        int, typer.Option("--count", min=0, metavar="NUMBER", help="How many earlier events to show.")
    ] = 10,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Tell where a limit comes from.

    Which report or hold set the present resume time of BACKEND: who, when, what was asked, what of it counts, what came
    before and since.
    """
    return run(_explain(chosen(context, url, namespace, as_json), backend, model, count))


async def _explain(chosen: Chosen, backend: str, model: str | None, count: int) -> int:
    async with unstarted(reader(chosen)) as coordinator:
        explanation = await coordinator.explain(backend, model)
    since, before = explanation.since[:count], explanation.before[:count]
    if chosen.as_json:
        say_json(
            {
                **fields.of_target(backend, model),
                "limited": explanation.limited,
                "seconds_remaining": explanation.seconds_remaining,
                "resume_at": fields.moment(explanation.resume_at),
                "held_until": fields.moment(explanation.held_until),
                "note": explanation.note,
                "cause": None if explanation.cause is None else fields.of_event(explanation.cause),
                "since": [fields.of_event(event) for event in since],
                "before": [fields.of_event(event) for event in before],
            }
        )
        return 0
    for line in _lines(explanation, since, before):
        say(line)
    return 0


def _lines(explanation: Explanation, since: Sequence[RateLimitEvent], before: Sequence[RateLimitEvent]) -> list[str]:
    target = texts.printable(texts.target(explanation.backend, explanation.model))
    if not explanation.limited:
        lines = [f"{target} is not limited"]
    else:
        until = f", until {texts.clock_time(explanation.resume_at)}" if explanation.resume_at else ""
        lines = [f"{target} is limited for {texts.seconds(explanation.seconds_remaining)}{until}"]
        if explanation.held_until:
            note = f": {texts.printable(explanation.note)}" if explanation.note else ""
            lines += [f"  held      by hand, until {texts.clock_time(explanation.held_until)}{note}"]
        lines += (
            _cause(explanation.cause, explanation.model)
            if explanation.cause
            else ["  its report is no longer recorded"]
        )
    for heading, events in (("since then:", since), ("before that:" if explanation.cause else "earlier:", before)):
        if events:
            lines += [heading, *(f"  {texts.event_line(event)}" for event in events)]
    return lines


def _cause(cause: RateLimitEvent, model: str | None) -> list[str]:
    lines = [
        f"  set by    {texts.who(cause)}",
        f"  {'ordered ' if cause.kind == 'hold' else 'reported'}  {texts.log_time(cause.detected_at)}",
        f"  asked     {texts.asked(cause)}",
        f"  reason    {texts.printable(cause.reason)}",
        f"  event     {cause.id}",
    ]
    if cause.model is None and model is not None:
        lines.append(f"  applies   to every model of {texts.printable(cause.backend_type)}")
    if cause.late_ms:
        lines.append(f"  delivered {texts.exact(cause.late_ms / 1000)} late, because Redis was away")
    return lines
