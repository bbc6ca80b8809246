"""Reads how much of each limit is left, from the headers or the body of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rate_coordinator.answers.look import Look
from rate_coordinator.answers.quantities import read_number, read_seconds
from rate_coordinator.answers.rules import Level, ReadLevels, Window

MOST_LEVELS = 32

# Some write the kind of a policy before its name: "fixed window";"api";q=500;w=300.
_ITEM = re.compile(
    r'\s*(?:"[^"]{0,64}"\s*;\s*(?="))?(?:"([^"\\]{0,64})"|([A-Za-z*][\w.*/:-]{0,63}))\s*((?:;[^,]{0,256})?)'
)
_PARAMETER = re.compile(r";\s*([a-z]+)\s*=\s*\"?([0-9]+(?:\.[0-9]+)?)")
_OLD_FIELD = re.compile(r"\b(limit|remaining|reset)\s*=\s*\"?([0-9]+(?:\.[0-9]+)?)")


def read_levels(look: Look, windows: Iterable[Window | ReadLevels]) -> list[Level]:
    """Return every level that an answer tells. What one window has read, no later one reads again."""
    levels: list[Level] = []
    claimed: set[str] = set()
    for window in windows:
        found = _read(look, window, claimed) if isinstance(window, Window) else window(look)
        levels += list(found)[: MOST_LEVELS - len(levels)]
    return levels


def read_ratelimit_fields(look: Look) -> list[Level]:
    """Read ``RateLimit`` and ``RateLimit-Policy``, as of the IETF's draft.

    ``"default";r=50;t=30`` has been written since its eighth version, ``limit=100, remaining=50, reset=30`` before.
    https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
    """
    quotas = {
        name: parameters["q"]
        for value in look.texts("ratelimit-policy")
        for name, parameters in _items(value)
        if "q" in parameters
    }
    levels = []
    for value in look.texts("ratelimit"):
        items = [(name, parameters) for name, parameters in _items(value) if "r" in parameters]
        if not items and (fields := dict(_OLD_FIELD.findall(value))):
            old = {"r": read_number(fields.get("remaining")), "t": read_number(fields.get("reset"))}
            levels.append(_level(look, None, old["r"], read_number(fields.get("limit")), old["t"]))
        levels += [
            _level(look, name, parameters["r"], quotas.get(name), parameters.get("t")) for name, parameters in items
        ]
    return levels


def tightest(levels: list[Level]) -> Level | None:
    """Return the level that will be hit first, as far as can be told; None where there is none.

    What is used up comes first, then limits on calls before limits on anything else, because calls can be counted
    beforehand; then what has the smallest part left.
    """
    return min(levels, key=_tightness, default=None)


def _tightness(level: Level) -> tuple[bool, bool, bool, float]:
    part = level.remaining / level.limit if level.remaining is not None and level.limit else 1.0
    counts_calls = level.scope is None or not re.search("token|byte|cost|neuron|audio", level.scope)
    return level.spent is not True, level.remaining is None, not counts_calls, part


def _read(look: Look, window: Window, claimed: set[str]) -> Iterator[Level]:
    if "{scope}" not in window.place:
        yield from _read_one(look, window, window.scope, claimed)
        return
    # One header tells the reset of another family: it is no limit by the name of "after".
    scope = "(?P<scope>(?!after$).+)"
    pattern = re.escape(window.place).replace(r"\{scope\}", scope, 1).replace(r"\{part\}", "(?:remaining|reset)")
    found = (re.fullmatch(pattern, name) for name in look.headers)
    for name in dict.fromkeys(match["scope"] for match in found if match):
        yield from _read_one(look, window, name, claimed)


def _read_one(look: Look, window: Window, scope: str | None, claimed: set[str]) -> Iterator[Level]:
    def place(part: str) -> str:
        named = window.place.replace("{scope}", scope or "")
        return named.replace("{part}", part).replace("{Part}", part.title())

    remaining_place, reset_place = place("remaining"), window.reset or place("reset")
    if remaining_place in claimed:
        return
    remaining = look.number(remaining_place)
    waits = [read_seconds(value, window.unit, look.clock) for value in look.values(reset_place)]
    reset_seconds = max((wait for wait in waits if wait is not None), default=None)
    if reset_seconds is None and (remaining is None or window.reset):
        return
    claimed.add(remaining_place)
    state = next(iter(look.texts(window.state.replace("{scope}", scope or ""))), None) if window.state else None
    # Reddit tells fractions; a call needs one.
    spent = remaining < 1 if remaining is not None else state == "rejected" if state is not None else None
    told = next(iter(look.texts(window.scope_from)), None) if window.scope_from else None
    decided = reset_place if reset_seconds is not None else remaining_place
    yield Level(told or scope, remaining, look.number(place("limit")), reset_seconds, decided, spent)


def _items(value: str) -> list[tuple[str, dict[str, float]]]:
    items = []
    for found in _ITEM.finditer(value):
        numbers = {name: read_number(number) for name, number in _PARAMETER.findall(found[3])}
        items.append((found[1] or found[2], {name: number for name, number in numbers.items() if number is not None}))
    return items[:MOST_LEVELS]


def _level(look: Look, scope: str | None, remaining: float | None, limit: float | None, reset: float | None) -> Level:
    reset_seconds = read_seconds(reset, "s", look.clock)
    return Level(scope, remaining, limit, reset_seconds, "ratelimit", None if remaining is None else remaining < 1)
