"""The reports of the last hour, as this process knows them. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from rate_coordinator.models import EntryId, RateLimitEvent

MakeEvent = Callable[[], RateLimitEvent]
"""Makes an event later: those who wait for a notice or a result should not have to wait for that."""

RECENT_SECONDS = 3600.0
"""How far back ``recent_events`` reaches."""


class EventLog:
    """Reports in the order of their IDs, each once, bounded.

    Args:
        size: How many are kept; the oldest go first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: list[EntryId] = []
        self._events: list[RateLimitEvent | MakeEvent] = []

    def add(self, entry_id: EntryId, event: RateLimitEvent | MakeEvent) -> None:
        """Take in a report, or a function that makes it when somebody looks; what is known is passed over."""
        # Nearly always the newest, so that this is an append.
        place = len(self._ids) if not self._ids or entry_id > self._ids[-1] else bisect_left(self._ids, entry_id)
        if place < len(self._ids) and self._ids[place] == entry_id:
            return
        self._ids.insert(place, entry_id)
        self._events.insert(place, event)
        # Cut in chunks: removing from the front of a list costs its length.
        if len(self._ids) > self._size + self._size // 8 + 1:
            del self._ids[: -self._size], self._events[: -self._size]

    def recent(self, now_ms: int | None) -> list[RateLimitEvent]:
        """Return the reports of the last hour before a moment of the server's clock, newest first."""
        oldest = 0 if now_ms is None else bisect_left(self._ids, EntryId(now_ms - int(RECENT_SECONDS * 1000), 0))
        wanted = range(max(oldest, len(self._events) - self._size), len(self._events))
        return [self._event(place) for place in reversed(wanted)]

    def _event(self, place: int) -> RateLimitEvent:
        event = self._events[place]
        if not isinstance(event, RateLimitEvent):
            event = self._events[place] = event()
        return event

    def prune(self, now_ms: int) -> None:
        """Forget what is older than the last hour."""
        oldest = bisect_left(self._ids, EntryId(now_ms - int(RECENT_SECONDS * 1000), 0))
        del self._ids[:oldest], self._events[:oldest]

    def clear(self) -> None:
        """Forget everything: another epoch began."""
        self._ids.clear()
        self._events.clear()
