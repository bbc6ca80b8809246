"""Reads the numbers and times that are typed. Pure."""

from __future__ import annotations

import math
import re
from datetime import datetime

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Narrower than float(), which takes "nan", "1_000" and the digits of every script.
_DURATION = re.compile(r"(?P<number>([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?)\s*(?P<unit>ms|[smhd]?)", re.IGNORECASE)
_DURATION_IN_PARTS = re.compile(r"(?:[0-9]+(?:ms|[smhd]))+", re.IGNORECASE)
_PART = re.compile(r"([0-9]+)(ms|[smhd])", re.IGNORECASE)
_ENTRY_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


def read_seconds(name: str, text: str) -> float:
    """Return a duration in seconds: ``30``, ``1.5``, ``500ms``, ``10m``, ``2h``, ``1h30m``, ``1d``.

    Args:
        name: What it is for, for the error message.
        text: As typed.

    Raises:
        ValueError: It is not a finite number of at least 0.
    """
    value = _seconds(text.strip())
    if not math.isfinite(value):
        raise ValueError(
            f"{name} must be a finite number of seconds of at least 0, like 30, 1.5, 10m or 1h30m, not {text!r:.80}"
        )
    return value


def read_since(text: str) -> datetime | float | str:
    """Return where to begin in the events: a time, seconds back, or the ID of an event.

    Raises:
        ValueError: It is none of them.
    """
    if match := _ENTRY_ID.fullmatch(text):
        if all(int(part) < 2**64 for part in match.groups()):
            return text
    elif not math.isnan(_seconds(text.strip())):
        return read_seconds("--since", text)
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is None:
            raise ValueError(f"--since must tell the time zone, like {text}Z or {text}+02:00")
        if moment is not None:
            return moment
    raise ValueError(
        f"--since must be seconds (90), a duration (10m, 2h), a time (2026-01-31T18:00:00Z) "
        f"or an event's ID (1526919030474-55), not {text!r:.80}"
    )


def _seconds(text: str) -> float:
    """Return a duration in seconds, infinite for one that no number holds; NaN for a text that is none."""
    if match := _DURATION.fullmatch(text):
        return float(match["number"]) * _UNITS[match["unit"].lower()]
    if _DURATION_IN_PARTS.fullmatch(text):
        return sum(float(number) * _UNITS[unit.lower()] for number, unit in _PART.findall(text))
    return math.nan
