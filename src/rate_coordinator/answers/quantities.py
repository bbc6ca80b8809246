"""Reads the numbers, durations and times that upstreams write. What cannot be believed is None, never an error."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

Unit = Literal["auto", "s", "ms", "epoch_s", "epoch_ms", "moment"]
"""How a time is written. ``"auto"``: as it looks, a duration, a date, or a number of seconds or since 1970;
``"moment"``: only what names a moment, not a length of time."""

LONGEST_WAIT_SECONDS: float = 366 * 24 * 3600.0
"""What is longer than a year is believed of nobody, in seconds."""

LONGEST_TEXT = 512
"""Characters of a value: what is longer is neither a number nor a time."""

_UNITS = {
    name: seconds
    for seconds, names in (
        (1e-9, "ns nanosecond nanoseconds"),
        (1e-6, "us µs microsecond microseconds"),
        (1e-3, "ms millis millisecond milliseconds"),
        (1.0, "s sec secs second seconds"),
        (60.0, "m min mins minute minutes"),
        (3600.0, "h hr hrs hour hours"),
        (86400.0, "d day days"),
        (604800.0, "w week weeks"),
    )
    for name in names.split()
}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", re.ASCII)
_UNIT = rf"(?:{'|'.join(sorted(_UNITS, key=len, reverse=True))})(?![a-z])"
_DURATION = re.compile(rf"([0-9]+(?:\.[0-9]+)?)\s*({_UNIT})", re.IGNORECASE)
_BETWEEN_PARTS = re.compile(r"(?:[ \t\r\n]|,|and\b)*", re.IGNORECASE)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ]| at )(\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,12}))? ?(?:(Z|UTC)|([+-])(\d\d):?(\d\d))",
    re.ASCII | re.IGNORECASE,
)
_HTTP_DATE = re.compile(r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?,? .{8,40}", re.IGNORECASE)

# Numbers this large are no waits in seconds (31 years), but the present time since 1970, in seconds or milliseconds.
_FIRST_EPOCH_S = 1e9
_FIRST_EPOCH_MS = 1e11

DURATION = rf"(?P<wait>(?:[0-9]+(?:\.[0-9]+)?\s?{_UNIT}[\s,]*)+)"
"""A regular expression for a duration within a sentence, as a group named ``wait``; whatever the case."""


class Clock(NamedTuple):
    """What time it is here and at the upstream."""

    now: datetime
    """Here; aware."""
    server_now: datetime
    """At the upstream, as its answer tells; the same as ``now`` where it does not."""


def read_number(value: object) -> float | None:
    """Return a number that is finite and at least 0; None where ``value`` is something else.

    Takes what is written plainly in decimal: no signs, no exponents, no words.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            return None
    elif isinstance(value, str) and len(value) <= LONGEST_TEXT and _NUMBER.fullmatch(value.strip()):
        number = float(value)
    else:
        return None
    return number + 0.0 if math.isfinite(number) and number >= 0 else None


def read_seconds(value: object, unit: Unit, clock: Clock) -> float | None:
    """Return how many seconds it is from now to what ``value`` says.

    Args:
        value: A number, or text. What is longer than ``LONGEST_TEXT`` characters is not read.
        unit: How it is written.
        clock: What time it is; moments are held against the upstream's own clock.

    Returns:
        0 to ``LONGEST_WAIT_SECONDS``. None for what cannot be read, for waits longer than that, and for moments that
        have passed: an upstream that names one of those and refuses all the same has told nothing.
    """
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return None
    number = read_number(value)
    if number is not None:
        return _believed(_of_number(number, unit, clock))
    if not isinstance(value, str):
        return None
    text = value.strip()
    duration = read_duration(text) if unit != "moment" else None
    if duration is not None:
        return _believed(duration)
    moment = read_moment(text)
    return None if moment is None else seconds_until(moment, clock.server_now)


def seconds_until(moment: datetime, now: datetime) -> float | None:
    """Return the seconds to a moment, both aware; None where it has passed or is too far away to be believed."""
    return _believed((moment - now).total_seconds())


def read_duration(text: str) -> float | None:
    """Return the seconds of a duration in words or Go's way: ``6m0s``, ``20ms``, ``1h2m3.5s``, ``2 days 3 hours``.

    Go's way: https://pkg.go.dev/time#ParseDuration
    """
    seconds, end = scan_duration(text)
    return seconds if end and end == len(text.rstrip(" .")) else None


def scan_duration(text: str, start: int = 0) -> tuple[float, int]:
    """Return the seconds of the duration that begins at ``start``, and where it ends; 0 where none begins there."""
    seconds, end, position = 0.0, 0, start
    for _ in range(8):
        part = _DURATION.match(text, position)
        if part is None:
            break
        seconds += float(part[1]) * _UNITS[part[2].lower()]
        end = part.end()
        between = _BETWEEN_PARTS.match(text, end)
        position = between.end() if between else end
    return seconds, end


def read_moment(text: str) -> datetime | None:
    """Return the moment that a date like RFC 3339's or HTTP's (RFC 9110, 5.6.7) names; None for other texts.

    A date without a time zone names no moment.
    """
    try:
        if found := _RFC3339.fullmatch(text):
            day, time, fraction, utc, sign, hours, minutes = found.groups()
            offset = timedelta() if utc else timedelta(hours=int(hours), minutes=int(minutes))
            zone = timezone(-offset if sign == "-" else offset)
            moment = datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=zone)
            return (moment + timedelta(seconds=float(f"0.{fraction or 0}"))).astimezone(UTC)
        if _HTTP_DATE.fullmatch(text):
            moment = parsedate_to_datetime(text)
            # The older forms of HTTP dates carry no zone; all of them are in UTC.
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        pass
    return None


def split_list(value: str) -> list[str]:
    """Return the values of one header that was sent several times and joined with commas, as many clients do.

    Dates carry a comma of their own (RFC 9110, 5.3).
    """
    parts = [part.strip() for part in value.split(",", 16)[:16]]
    values: list[str] = []
    for part in parts:
        if values and re.fullmatch("[A-Za-z]{3,9}", values[-1]):
            values[-1] = f"{values[-1]}, {part}"
        else:
            values.append(part)
    return values


def _of_number(number: float, unit: Unit, clock: Clock) -> float | None:
    if unit == "s":
        return number
    if unit == "ms":
        return number / 1000
    if unit == "auto" and number < _FIRST_EPOCH_S:
        return number
    if unit in {"auto", "moment"}:
        if number < _FIRST_EPOCH_S:
            return None
        unit = "epoch_ms" if number >= _FIRST_EPOCH_MS else "epoch_s"
    return (number / 1000 if unit == "epoch_ms" else number) - clock.server_now.timestamp()


def _believed(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        return None
    return seconds + 0.0
