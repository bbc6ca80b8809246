"""What the page shows: it is looked at again whenever a notice comes, and only what changed is told."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from rate_coordinator import CoordinatorError, Notice, PaceStatus, RateLimitCoordinator, RateLimitEvent
from rate_coordinator.cli import fields
from rate_coordinator.cli.fields import Fields
from rate_coordinator.web.feed import Feed
from rate_coordinator.web.history import PaceHistory
from rate_coordinator.web.looks import Asked, Key, Look, difference, of_health, of_limit

logger = logging.getLogger(__name__)

KEPT_MESSAGES = 256
EVENTS = 50
"""How many of the newest events are shown."""
MOST_ASKED = 10_000
"""Of how many limits it is known at most what was asked for."""
PACES_ASKED = 25
"""How many paces Redis is asked for in one second, while somebody looks."""
LONGEST_PAUSE_SECONDS = 1.0
SHORTEST_PAUSE_SECONDS = 0.1
"""Between two messages, however many notices come."""
A_LITTLE_LATER_SECONDS = 0.002
"""After a limit's end, so that it is seen to be gone."""


class Board:
    """What there is to see, and the feed of its changes. While nobody looks, Redis is not asked for anything.

    Args:
        coordinator: Where it is seen.
        about: What else a page is told when it begins.
    """

    def __init__(self, coordinator: RateLimitCoordinator, about: Mapping[str, object]) -> None:
        self.feed = Feed(KEPT_MESSAGES)
        self._coordinator = coordinator
        self._about = about
        self._history = PaceHistory()
        self._asked: dict[Key, Asked] = {}
        self._events: list[RateLimitEvent] = []
        self._told = Look(0.0, math.inf, {}, {}, {})
        self._viewers = 0
        self._watched = asyncio.Event()
        self._noticed = asyncio.Event()
        self._happened = asyncio.Event()

    @property
    def viewers(self) -> int:
        """How many look."""
        return self._viewers

    def enter(self) -> None:
        """Somebody begins to look."""
        self._viewers += 1
        self._watched.set()
        self._happened.set()

    def leave(self) -> None:
        """Somebody looks no more."""
        self._viewers -= 1
        if not self._viewers:
            self._watched.clear()

    def status(self) -> Fields:
        """Return what ``rate-coordinator status --json`` prints, from memory, and whether Redis can be heard."""
        return self._status(self._look())

    def begin(self) -> tuple[int, bytes]:
        """Return all there is to see, as a message, and the number of the last message that it makes superfluous."""
        # So that the next difference is one to what is returned here.
        self._tell_changes()
        history = self._history.ages(self._told.at)
        told = {
            **self._about,
            **self._status(self._told),
            "events": [fields.of_event(event) for event in self._events],
            "history": [{"backend": key[0], "model": key[1], "points": points} for key, points in history.items()],
        }
        return self.feed.number, message("state", told)

    async def run(self) -> None:
        """Tell the feed of every change, until cancelled."""
        handle = self._coordinator.on_notice(self._hear)
        self._remember(filter(None, map(_asked, self._coordinator.recent_events)))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_limits(), name="rate_coordinator web limits")
                tasks.create_task(self._watch_paces(), name="rate_coordinator web paces")
                tasks.create_task(self._watch_events(), name="rate_coordinator web events")
        except Exception:
            logger.exception("the page is told of no more changes")
        finally:
            handle.cancel()
            self.feed.close()

    async def _watch_limits(self) -> None:
        while True:
            await self._watched.wait()
            began = time.monotonic()
            self._tell_changes()
            # However many limits there are, most of the time is left to others.
            await asyncio.sleep(max(SHORTEST_PAUSE_SECONDS, 9 * (time.monotonic() - began)))
            await _pause(self._noticed, self._told.lifts_at - time.monotonic() + A_LITTLE_LATER_SECONDS)

    async def _watch_paces(self) -> None:
        turn = 0
        while True:
            health = self._coordinator.health
            if self._viewers and health.state == "connected":
                # A notice tells what was learned; what the pace has grown to since then only Redis knows.
                chosen = [health.paces[(turn + place) % len(health.paces)] for place in range(len(health.paces))]
                await self._ask_for(chosen[:PACES_ASKED])
                turn += PACES_ASKED
            self._history.record(self._coordinator.health.paces, time.monotonic())
            await asyncio.sleep(LONGEST_PAUSE_SECONDS)

    async def _ask_for(self, paces: Iterable[PaceStatus]) -> None:
        with suppress(CoordinatorError):
            for pace in paces:
                await self._coordinator.pace(pace.backend, pace.model)

    async def _watch_events(self) -> None:
        while True:
            await self._watched.wait()
            with suppress(CoordinatorError):
                self._tell_events(await self._coordinator.events(count=EVENTS))
            await asyncio.sleep(SHORTEST_PAUSE_SECONDS)
            # Reports that change nothing are events as well, but no notice tells of them.
            await _pause(self._happened, LONGEST_PAUSE_SECONDS)

    def _hear(self, notice: Notice) -> None:
        if notice.kind == "limit":
            self._remember([((notice.backend, notice.model), Asked.of_notice(notice))])
        self._noticed.set()
        self._happened.set()

    def _remember(self, asked: Iterable[tuple[Key, Asked]]) -> None:
        for key, told in asked:
            self._asked.pop(key, None)
            self._asked[key] = told
        for key in list(self._asked)[: max(0, len(self._asked) - MOST_ASKED)]:
            del self._asked[key]

    def _status(self, look: Look) -> Fields:
        health = self._coordinator.health
        return {
            "address": health.address,
            "namespace": health.namespace,
            "health": look.health,
            "limits": list(look.limits.values()),
            "paces": list(look.paces.values()),
        }

    def _look(self) -> Look:
        limits = {(limit.backend, limit.model): limit for limit in self._coordinator.limits}
        health, now = self._coordinator.health, time.monotonic()
        return Look(
            now,
            now + min((limit.seconds_remaining for limit in limits.values()), default=math.inf),
            {key: of_limit(limit, self._asked.get(key)) for key, limit in limits.items()},
            {(pace.backend, pace.model): fields.of_pace(pace) for pace in health.paces},
            of_health(health),
        )

    def _tell_changes(self) -> None:
        before, self._told = self._told, self._look()
        changed = difference(before, self._told)
        if changed:
            self.feed.publish(message("change", changed))

    def _tell_events(self, newest: list[RateLimitEvent]) -> None:
        known = {event.id for event in self._events}
        new = [fields.of_event(event) for event in newest if event.id not in known]
        self._events = newest
        if new:
            self.feed.publish(message("change", {"events": new}))


def message(kind: str, told: Mapping[str, object]) -> bytes:
    """Return a server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    # In ASCII and without line breaks, so that nothing in it can end the message.
    return f"event: {kind}\ndata: {json.dumps(told, allow_nan=False)}\n\n".encode("ascii")


def _asked(event: RateLimitEvent) -> tuple[Key, Asked] | None:
    asked = Asked.of_event(event)
    return None if asked is None else ((event.backend_type, event.model), asked)


async def _pause(happened: asyncio.Event, seconds: float) -> None:
    """Wait until something happened, at most so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, min(seconds, LONGEST_PAUSE_SECONDS))):
            await happened.wait()
    happened.clear()
