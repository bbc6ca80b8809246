"""``doctor``: is this Redis fit for it?"""

from __future__ import annotations

import typer

from rate_coordinator import Diagnosis, diagnose
from rate_coordinator.cli import FAILED
from rate_coordinator.cli.options import Chosen, Json, Namespace, Url, chosen
from rate_coordinator.cli.output import say, say_json
from rate_coordinator.cli.session import run
from rate_coordinator.cli.texts import printable

_MARKS = {"ok": "ok   ", "wrong": "WRONG", "unknown": "?    "}


def doctor(context: typer.Context, url: Url = None, namespace: Namespace = None, as_json: Json = False) -> int:
    """Tell whether Redis is fit for this.

    Is it reachable, new enough, set up well and fast, and does it allow what is needed? Exits with 0 when nothing is
    wrong, else with 1 and a sentence of advice for each thing.
    """
    return run(_doctor(chosen(context, url, namespace, as_json)))


async def _doctor(chosen: Chosen) -> int:
    diagnosis = await diagnose(chosen.url, chosen.namespace)
    if chosen.as_json:
        say_json({"healthy": diagnosis.healthy, **diagnosis.model_dump(mode="json")})
    else:
        _print(diagnosis)
    return 0 if diagnosis.healthy else FAILED


def _print(diagnosis: Diagnosis) -> None:
    say(f"{printable(diagnosis.address)}, namespace {printable(diagnosis.namespace)}")
    for finding in diagnosis.findings:
        say(f"  {_MARKS[finding.status]}  {finding.name:<11}  {printable(finding.summary)}")
        if finding.advice:
            say(f"         {'':<11}  -> {printable(finding.advice)}")
    wrong = sum(finding.status == "wrong" for finding in diagnosis.findings)
    say("all is well" if diagnosis.healthy else f"{wrong} thing{' is' if wrong == 1 else 's are'} wrong")
