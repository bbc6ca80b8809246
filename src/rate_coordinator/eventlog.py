"""The reports of the last hour, as this process knows them. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from operator import attrgetter

from rate_coordinator.models import EntryId, RateLimitEvent

MakeEvent = Callable[[], RateLimitEvent]
"""Makes an event later: those who wait for a notice or a result should not have to wait for that."""

RECENT_SECONDS = 3600.0
"""How far back ``recent_events`` reaches."""


class _Entry:
    __slots__ = ("_event", "id")

    def __init__(self, entry_id: EntryId, event: RateLimitEvent | MakeEvent) -> None:
        self.id = entry_id
        self._event = event

    def event(self) -> RateLimitEvent:
        event = self._event
        if not isinstance(event, RateLimitEvent):
            event = self._event = event()
        return event


_id_of = attrgetter("id")


class EventLog:
    """Reports in the order of their IDs, each once, bounded. Any thread may read it.

    Args:
        size: How many are kept; the oldest go first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: list[_Entry] = []

    def add(self, entry_id: EntryId, event: RateLimitEvent | MakeEvent) -> None:
        """Take in a report, or a function that makes it when somebody looks; what is known is passed over."""
        entries = self._entries
        # Nearly always the newest, so that this is an append.
        newest = not entries or entry_id > entries[-1].id
        place = len(entries) if newest else bisect_left(entries, entry_id, key=_id_of)
        if place < len(entries) and entries[place].id == entry_id:
            return
        entries.insert(place, _Entry(entry_id, event))
        # Cut in chunks: removing from the front of a list costs its length.
        if len(entries) > self._size + self._size // 8 + 1:
            del entries[: -self._size]

    def recent(self, now_ms: int | None) -> list[RateLimitEvent]:
        """Return the reports of the last hour before a moment of the server's clock, newest first."""
        # Copied whole: another thread may be reading.
        entries = self._entries.copy()
        oldest = 0 if now_ms is None else _oldest(entries, now_ms)
        return [entry.event() for entry in reversed(entries[max(oldest, len(entries) - self._size) :])]

    def prune(self, now_ms: int) -> None:
        """Forget what is older than the last hour."""
        del self._entries[: _oldest(self._entries, now_ms)]

    def clear(self) -> None:
        """Forget everything: another epoch began."""
        self._entries.clear()


def _oldest(entries: list[_Entry], now_ms: int) -> int:
    """Return the place of the first that belongs to the last hour."""
    return bisect_left(entries, EntryId(now_ms - int(RECENT_SECONDS * 1000), 0), key=_id_of)
