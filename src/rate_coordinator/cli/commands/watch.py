"""``watch``: the active limits, live."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from datetime import datetime

import typer

from rate_coordinator import ActiveLimit, RateLimitCoordinator
from rate_coordinator.cli.changes import as_fields, changes, line
from rate_coordinator.cli.fields import moment
from rate_coordinator.cli.options import Chosen, Json, Namespace, Url, chosen
from rate_coordinator.cli.output import is_terminal, say, say_json
from rate_coordinator.cli.session import reader, run
from rate_coordinator.cli.texts import log_time, pace_line, printable

REDRAW_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 1.0
A_LITTLE_LATER_SECONDS = 0.001
"""After a limit's deadline, so that it is seen to be gone."""


def watch(context: typer.Context, url: Url = None, namespace: Namespace = None, as_json: Json = False) -> int:
    """Show the active limits live.

    Without a terminal, or with --json, prints a line for each change.
    """
    return run(_watch(chosen(context, url, namespace, as_json)), endless=True)


async def _watch(chosen: Chosen) -> int:
    coordinator = reader(chosen)
    changed = asyncio.Event()
    coordinator.on_notice(lambda _: changed.set())
    async with coordinator:
        if chosen.as_json or not is_terminal(sys.stdout):
            await _print_changes(coordinator, changed, chosen.as_json)
        else:
            await _draw(coordinator, changed, chosen)
    return 0


async def _print_changes(coordinator: RateLimitCoordinator, changed: asyncio.Event, as_json: bool) -> None:
    before: tuple[ActiveLimit, ...] = ()
    seen_at = time.monotonic()
    while True:
        now, after = time.monotonic(), coordinator.limits
        for change in changes(before, after, now - seen_at):
            at = datetime.now().astimezone()
            if as_json:
                say_json({"time": moment(at), **as_fields(change)})
            else:
                say(f"{log_time(at)}  {line(change)}")
        before, seen_at = after, now
        next_lift = min((limit.seconds_remaining for limit in after), default=LONGEST_PAUSE_SECONDS)
        await _pause(changed, min(next_lift, LONGEST_PAUSE_SECONDS) + A_LITTLE_LATER_SECONDS)


async def _draw(coordinator: RateLimitCoordinator, changed: asyncio.Event, chosen: Chosen) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from rate_coordinator.cli.tables import console, limits_table

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            limits, health = coordinator.limits, coordinator.health
            title = f"{printable(chosen.namespace)} on {printable(coordinator.address)}, {health.state}"
            if health.state == "degraded":
                title += f" for {health.degraded_seconds:.0f} s: {printable(health.last_error or '')}"
            body = limits_table(limits) if limits else Text("nothing is limited")
            paces = [Text(pace_line(pace)) for pace in health.paces]
            live.update(Group(Text(title, style="dim"), body, *paces), refresh=True)
            await _pause(changed, REDRAW_SECONDS)


async def _pause(changed: asyncio.Event, seconds: float) -> None:
    """Wait for the next notice, at most so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()
    changed.clear()
