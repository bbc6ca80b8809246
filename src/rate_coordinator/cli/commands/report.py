"""``report``: tell everyone that an upstream refused."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from rate_coordinator import MAX_WAIT_SECONDS, CoordinatorUnavailable, Reason, ReportResult
from rate_coordinator.cli import fields, texts
from rate_coordinator.cli.options import Backend, Chosen, Json, Model, Namespace, Url, chosen
from rate_coordinator.cli.output import say, say_json
from rate_coordinator.cli.session import coordinator, run, unstarted
from rate_coordinator.cli.values import read_seconds


def report(
    context: typer.Context,
    backend: Backend,
    seconds: Annotated[
        str, typer.Argument(metavar="SECONDS", help="How long to leave it alone: 30, 1.5, 10m, 2h.", show_default=False)
    ],
    model: Model = None,
    job_id: Annotated[str | None, typer.Option("--job-id", metavar="ID", help="Whose work was refused.")] = None,
    sheet: Annotated[int | None, typer.Option("--sheet", metavar="NUMBER", help="Which part of it.")] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="REASON", help="rate_limit, overloaded or quota.")
    ] = "rate_limit",
    max_wait: Annotated[
        str, typer.Option("--max-wait", metavar="SECONDS", help="Longer waits count as this.")
    ] = f"{MAX_WAIT_SECONDS:g}",
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Report that BACKEND refused.

    No process of the namespace calls it for SECONDS. A limit is only ever extended by this.
    """
    wait_seconds, cap = read_seconds("SECONDS", seconds), read_seconds("--max-wait", max_wait)
    return run(
        _report(
            chosen(context, url, namespace, as_json),
            backend,
            model,
            wait_seconds,
            cap,
            job_id,
            sheet,
            cast(Reason, reason),
        )
    )


async def _report(
    chosen: Chosen,
    backend: str,
    model: str | None,
    wait_seconds: float,
    cap: float,
    job_id: str | None,
    sheet: int | None,
    reason: Reason,
) -> int:
    async with unstarted(coordinator(chosen, max_wait_seconds=cap)) as reporter:
        result = await reporter.report_rate_limit(backend, wait_seconds, job_id, sheet, model=model, reason=reason)
        if not result.delivered:
            raise CoordinatorUnavailable(f"{reporter.health.last_error}; it is not known whether the report arrived")
    if chosen.as_json:
        say_json({**fields.of_target(backend, model), **fields.of_result(wait_seconds, result)})
    else:
        say(_text(texts.printable(texts.target(backend, model)), wait_seconds, result))
    return 0


def _text(target: str, asked_seconds: float, result: ReportResult) -> str:
    clamped = f" ({texts.exact(asked_seconds)} is above the cap of {texts.exact(result.wait_seconds)})"
    told = clamped if result.clamped else ""
    if result.resume_at is None:
        return f"{target} is not limited; the report is recorded{told}"
    until = f"for {texts.seconds(result.seconds_remaining)}, until {texts.clock_time(result.resume_at)}"
    return f"{target} is limited {until}{told}" if result.extended else f"{target} stays limited {until}{told}"
