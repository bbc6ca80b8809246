"""``events``: what was reported and cleared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Annotated

import typer

from rate_coordinator import CoordinatorUnavailable, Notice, RateLimitCoordinator, RateLimitEvent
from rate_coordinator.cli import fields, texts
from rate_coordinator.cli.options import Chosen, Json, Namespace, Url, chosen
from rate_coordinator.cli.output import complain, say, say_json
from rate_coordinator.cli.session import reader, run
from rate_coordinator.cli.values import read_since

USUAL_COUNT = 20
POLL_SECONDS = 0.5
"""How often ``--follow`` looks for events that no notice tells of: reports that change nothing."""
FIRST_ID = "0-0"


def events(
    context: typer.Context,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", "-n", min=0, metavar="NUMBER", help=f"Only the newest. Without --since: {USUAL_COUNT}."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Seconds or a duration back (90, 10m, 2h), a time (2026-01-31T18:00:00Z), or after an event's ID.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new ones as they come.")] = False,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Print reports and clears.

    The newest come last. With --json, each is one object on a line.
    """
    begin = None if since is None else read_since(since)
    if since is None and count is None:
        count = USUAL_COUNT
    job = _events(chosen(context, url, namespace, as_json), begin, count, follow)
    return run(job, endless=follow)


async def _events(chosen: Chosen, since: datetime | float | str | None, count: int | None, follow: bool) -> int:
    async with reader(chosen) as coordinator:
        past = await coordinator.events(since, count)
        _print(past, chosen.as_json)
        if follow:
            # Not what was printed last: with --count 0 nothing was, and what is older is not new.
            newest = past or await coordinator.events(count=1)
            await _follow(coordinator, newest[0].id if newest else FIRST_ID, chosen.as_json)
    return 0


async def _follow(coordinator: RateLimitCoordinator, last_id: str, as_json: bool) -> None:
    """Print what comes after an event, for ever."""
    noticed = asyncio.Event()
    epoch: str | None = None
    away = False

    def hear(notice: Notice) -> None:
        nonlocal epoch, last_id
        if epoch is not None and notice.epoch != epoch:
            # Redis lost its events and began anew, perhaps with lower IDs.
            last_id = _just_before(notice.id)
        epoch = notice.epoch
        noticed.set()

    coordinator.on_notice(hear)
    while True:
        try:
            new = await coordinator.events(last_id)
        except CoordinatorUnavailable as error:
            if not away:
                complain(f"{error}; going on when it is back")
            away = True
        else:
            away = False
            _print(new, as_json)
            last_id = new[0].id if new else last_id
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await noticed.wait()
        noticed.clear()


def _print(newest_first: Iterable[RateLimitEvent], as_json: bool) -> None:
    for event in reversed(list(newest_first)):
        if as_json:
            say_json(fields.of_event(event))
        else:
            say(texts.event_line(event))


def _just_before(entry_id: str) -> str:
    milliseconds, _, sequence = entry_id.partition("-")
    if int(sequence) > 0:
        return f"{milliseconds}-{int(sequence) - 1}"
    return f"{max(0, int(milliseconds) - 1)}-{2**64 - 1}"
