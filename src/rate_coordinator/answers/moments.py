"""Reads times of day as programs write them for people: ``3pm (Europe/Berlin)``, ``Apr 10 at 7am``, ``18:00``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from rate_coordinator.answers.quantities import seconds_until

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WHEN = re.compile(
    rf"(?:(?P<month>{'|'.join(_MONTHS)})[a-z]*\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<year>\d{{4}}))?"
    r",? (?:at )?"
    rf"|(?P<weekday>{'|'.join(_DAYS)})[a-z]*,? (?:at )?)?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?(?:\s?(?P<half>[ap])\.?m\b\.?)?(?:\s*\((?P<zone>[^)]{0,64}))?",
    re.ASCII | re.IGNORECASE,
)

# A time of day without a date is that of a window of some hours. Further away it is one that has passed: an upstream
# that refuses all the same did not mean tomorrow.
_TIME_AHEAD = timedelta(hours=12)
_WEEKDAY_AHEAD = timedelta(days=6, hours=12)
_DATE_AHEAD = timedelta(days=62)


def read_when(text: str, now: datetime, local: tzinfo | None, *, today_only: bool = False) -> float | None:
    """Return how many seconds it is until a time that is written for people.

    Args:
        text: It begins with the time. The name of a time zone may follow in brackets.
        now: What time it is; aware.
        local: The zone of times without one; None for this machine's.
        today_only: Whether a time without a date is always one of today.

    Returns:
        None where there is no such time, where it has passed, and where its time zone is not known. A time of day is
        never taken for one of tomorrow only because it has passed today.
    """
    found = _WHEN.match(" ".join(text[:120].split()))
    if found is None or (found["minute"] is None and found["half"] is None):
        return None
    hour, minute = int(found["hour"]), int(found["minute"] or 0)
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"].lower() == "p" else 0)
    try:
        zone = ZoneInfo(found["zone"]) if found["zone"] is not None else local
        moments = [
            (_at(day, hour, minute, zone, now), ahead) for day, ahead in _days(found, _day_in(now, zone), today_only)
        ]
    except (ValueError, KeyError, OSError, OverflowError):
        # Also a zone that is unknown, or a directory of zones.
        return None
    waits = (seconds_until(moment, now) for moment, ahead in moments if moment - now <= ahead)
    return min((wait for wait in waits if wait is not None), default=None)


def _days(found: re.Match[str], today: date, today_only: bool) -> Iterator[tuple[date, timedelta]]:
    """Yield the days that a text can mean, and how far ahead each is believed to be."""
    if found["month"]:
        month, day = _MONTHS.index(found["month"].lower()) + 1, int(found["day"])
        if found["year"]:
            yield date(int(found["year"]), month, day), timedelta.max
        else:
            for year in (today.year, today.year + 1):
                # The 29th of February is not in every year.
                if (month, day) != (2, 29) or year % 4 == 0:
                    yield date(year, month, day), _DATE_AHEAD
    elif found["weekday"]:
        days = (_DAYS.index(found["weekday"].lower()) - today.weekday()) % 7
        yield today + timedelta(days=days), _WEEKDAY_AHEAD
    elif today_only:
        yield today, timedelta(days=1, hours=1)
    else:
        for days in (0, 1):
            yield today + timedelta(days=days), _TIME_AHEAD


def _day_in(now: datetime, zone: tzinfo | None) -> date:
    return now.astimezone(zone).date()


def _at(day: date, hour: int, minute: int, zone: tzinfo | None, now: datetime) -> datetime:
    moments = []
    for fold in (0, 1):
        local = datetime(day.year, day.month, day.day, hour, minute, fold=fold)
        moments.append((local.replace(tzinfo=zone) if zone is not None else local).astimezone(UTC))
    # In the hour that comes twice when summer ends, the one that is still to come is meant.
    return moments[0] if moments[0] >= now else moments[1]
