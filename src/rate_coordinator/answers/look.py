"""One answer to be looked at: its status, headers, body and clocks, and what stands at a named place in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property

from rate_coordinator.answers.quantities import LONGEST_TEXT, Clock, read_moment, read_number, split_list

LONGEST_BODY = 64 * 1024
"""Bytes or characters of a body that are looked at. No refusal is longer; what is, is not parsed."""

MOST_HEADERS = 256
MOST_ITEMS = 32
"""Items of a list in a body that are looked at."""

# An answer that sat in a cache for longer than this tells nothing about now.
_OLDEST_SECONDS = 24 * 3600.0

Headers = Mapping[str, object] | Mapping[bytes, object] | Iterable[tuple[str | bytes, str | bytes]] | None
"""Headers as HTTP clients hand them out: a mapping, or pairs, with names in any case, as text or bytes."""
Body = bytes | str | Mapping[str, object] | list[object] | None
"""A body: bytes, text, or parsed JSON."""


def read_headers(headers: object) -> dict[str, list[str]]:
    """Return the values of each header by its name in lower case. What is no header is left out."""
    found: dict[str, list[str]] = {}
    try:
        # Also what is no mapping can have items: those of http.client are a message.
        items = getattr(headers, "items", lambda: headers)()
        for count, pair in enumerate(items if isinstance(items, Iterable) else ()):
            if count >= MOST_HEADERS:
                break
            if not isinstance(pair, Sequence) or isinstance(pair, (str, bytes)) or len(pair) != 2:
                continue
            name, values = pair
            for value in values[:MOST_ITEMS] if isinstance(values, (list, tuple)) else [values]:
                key, text = _text(name), _text(value)
                if key is not None and text is not None:
                    # gRPC sends bytes under such a name.
                    found.setdefault(key.strip().lower(), []).append(text if key.endswith("-bin") else text.strip())
    except Exception:
        # Foreign mappings can fail in any way while they are walked through.
        return found
    return found


class Look:
    """An answer, and what stands where in it.

    A place is the name of a header, or ``$`` for the whole body as text, or ``$.path.to.field`` for a field of a JSON
    body, with ``*`` for every item of a list.

    Args:
        status: The HTTP status.
        headers: As in ``read_headers``.
        body: Bytes, text or parsed JSON.
        now: What time it is here; aware.
    """

    def __init__(self, status: object, headers: object, body: object, now: datetime) -> None:
        self.status = status if isinstance(status, int) and not isinstance(status, bool) else 0
        self.headers = read_headers(headers)
        self._body = body
        self.now = now

    @cached_property
    def clock(self) -> Clock:
        """What time it is here, and there: by ``Date`` (RFC 9110, 6.6.1) and, in a cache, ``Age`` (RFC 9111, 5.1)."""
        date = next(iter(self.headers.get("date", ())), None)
        moment = read_moment(date) if date else None
        age = next((read_number(value) for value in self.headers.get("age", ())), 0.0) or 0.0
        if moment is None or age > _OLDEST_SECONDS:
            return Clock(self.now, self.now)
        try:
            return Clock(self.now, moment + timedelta(seconds=age))
        except OverflowError:
            return Clock(self.now, self.now)

    @cached_property
    def text(self) -> str:
        """The body as text, as far as it is looked at; empty where it came parsed."""
        body = self._body
        if isinstance(body, (bytes, bytearray, memoryview)):
            return bytes(body[:LONGEST_BODY]).decode("utf-8", "replace").lstrip("\ufeff")
        return body[:LONGEST_BODY] if isinstance(body, str) else ""

    @cached_property
    def json(self) -> object:
        """The body as JSON; None where it is none. Of a stream of server-sent events, the error that ended it."""
        if isinstance(self._body, (Mapping, list)):
            return _only_item(self._body)
        size = len(self._body) if isinstance(self._body, (str, bytes, bytearray, memoryview)) else 0
        text = self.text.strip()
        if size <= LONGEST_BODY and text[:1] in {"{", "["}:
            return _only_item(parse_json(text))
        if text.startswith(("event:", "data:", ":")):
            data = text.rpartition("event: error")[2].strip() if "event: error" in text else ""
            return parse_json(data[5:].strip()) if data.startswith("data:") else None
        return None

    def texts(self, place: str) -> list[str]:
        """Return what stands at a place, as text; one item per value. Too long a value is left out."""
        if place == "$":
            return [self.text] if self.text else []
        if not place.startswith("$."):
            return [value for value in self.headers.get(place, ()) if len(value) <= LONGEST_TEXT]
        return [text for text in map(_plain_text, self._fields(place)) if text is not None]

    def values(self, place: str) -> list[object]:
        """Return the numbers and texts at a place. Headers that were joined with commas are taken apart."""
        if place.startswith("$"):
            return [value for value in self._fields(place) if isinstance(value, (int, float, str))]
        return [part for value in self.texts(place) for part in split_list(value)]

    def number(self, place: str) -> float | None:
        """Return the smallest number at a place; None where there is none."""
        return min((number for value in self.values(place) if (number := read_number(value)) is not None), default=None)

    def _fields(self, place: str) -> Iterator[object]:
        found: list[object] = [self.json]
        for step in place.split(".")[1:]:
            found = [item for value in found for item in _step(value, step)][:MOST_ITEMS]
        yield from found


def parse_json(text: str) -> object:
    """Return what the JSON at the beginning of a text says; None where there is none. What follows it is left alone."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _step(value: object, step: str) -> Iterator[object]:
    if step == "*":
        if isinstance(value, (list, tuple)):
            yield from value[:MOST_ITEMS]
    elif isinstance(value, Mapping):
        try:
            if step in value:
                yield value[step]
        except Exception:
            # A body that came parsed can be any mapping.
            return
    elif isinstance(value, (list, tuple)) and step.isdecimal() and int(step) < len(value):
        yield value[int(step)]


def _only_item(value: object) -> object:
    # Some upstreams wrap the error of a stream into a list.
    return value[0] if isinstance(value, list) and value else value


def _plain_text(value: object) -> str | None:
    if isinstance(value, str):
        return value[:LONGEST_BODY]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        # Very large integers have no text in decimal.
        return None if isinstance(value, int) and value.bit_length() > 256 else str(value)
    return None


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    # Fakes and gateways hand out numbers.
    return _plain_text(value) if not isinstance(value, bool) else None
