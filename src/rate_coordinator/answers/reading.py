"""Reads an upstream's answer: is it a refusal, of which limit, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from rate_coordinator.answers.answer import Answer
from rate_coordinator.answers.generic import GENERIC
from rate_coordinator.answers.levels import read_levels, tightest
from rate_coordinator.answers.look import Body, Headers, Look
from rate_coordinator.answers.quantities import LONGEST_WAIT_SECONDS, read_seconds
from rate_coordinator.answers.registry import candidates
from rate_coordinator.answers.rules import Level, Provider, Verdict, Wait


def read_answer(
    status: int,
    headers: Headers,
    body: Body = None,
    *,
    provider: str | None = None,
    now: datetime | None = None,
) -> Answer:
    """Tell what an HTTP answer says about the upstream's limits.

    Without ``provider``, what is common to many upstreams counts, and what is known of those that can be told from
    all others by their headers or bodies. Of several waits the longest counts that is one of the limit that was hit.
    Moments are held against the answer's own ``Date``, so that a wrong clock here does no harm. Whatever an answer
    contains, nothing is raised, and no wait is made up.

    Args:
        status: The HTTP status.
        headers: A mapping, or pairs; names in any case, text or bytes, each as often as it was sent.
        body: Bytes, text or parsed JSON. No more than the first 64 KiB are looked at.
        provider: Who answered, as registered: ``"openai"``, ``"github"``, …; see ``providers``.
        now: What time it is, timezone-aware; the real time if left out.

    Raises:
        ValueError: ``provider`` is not registered, or ``now`` tells no time zone.
    """
    known = candidates(provider)
    look = Look(status, headers, body, read_now(now))
    if provider is None:
        known = [candidate for candidate in known if any(sign.holds(look) for sign in candidate.signs)]
    return judge(look, [*known, GENERIC])


def read_now(now: datetime | None) -> datetime:
    """Return the time that counts as the present.

    Raises:
        ValueError: It tells no time zone.
    """
    if now is None:
        return datetime.now().astimezone()
    if now.utcoffset() is None:
        raise ValueError(f"now must tell its time zone, but {now!r} does not")
    return now


def judge(look: Look, providers: list[Provider]) -> Answer:
    """Return what an answer says by the rules of some providers, the most particular ones first."""
    levels = read_levels(look, (window for provider in providers for window in provider.windows))
    verdict = next((verdict for provider in providers for verdict in provider.verdicts if verdict.fits(look)), None)
    if verdict is None or verdict.reason is None:
        level = tightest(levels)
        return Answer(
            scope=level.scope if level else None,
            remaining=level.remaining if level else None,
            reset_seconds=level.reset_seconds if level else None,
            source=level.place if level else None,
        )
    return _refusal(look, verdict, providers, levels)


class _Told(NamedTuple):
    seconds: float
    place: str
    level: Level | None = None


def _refusal(look: Look, verdict: Verdict, providers: list[Provider], levels: list[Level]) -> Answer:
    told_scopes = look.texts(verdict.scope_from) if verdict.scope_from else []
    scope = next((text.strip()[:100] for text in told_scopes if text.strip()), verdict.scope)
    waits = _waits(look, providers) if verdict.heed_waits else []
    hit = _levels_hit(levels, scope, bool(waits)) if verdict.heed_waits else []
    waits += [_Told(level.reset_seconds, level.place, level) for level in hit if level.reset_seconds is not None]
    longest = max(waits, key=lambda told: told.seconds, default=None)
    level = (longest.level if longest else None) or tightest(hit)
    return Answer(
        limited=True,
        wait_seconds=longest.seconds if longest else None,
        reason=verdict.reason,
        scope=scope or (level.scope if level else None),
        remaining=level.remaining if level else None,
        reset_seconds=level.reset_seconds if level else None,
        source=longest.place if longest else (verdict.clues[0].place if verdict.clues else "status"),
    )


def _levels_hit(levels: list[Level], scope: str | None, wait_told: bool) -> list[Level]:
    """Return the levels whose reset a refusal has to wait for."""
    same = [level for level in levels if scope is not None and level.scope == scope]
    spent = [level for level in same or levels if level.spent]
    if spent or wait_told:
        return spent
    # Less was left than the call needed, or nothing tells how much was left.
    return same or [level for level in levels if level.spent is None]


def _waits(look: Look, providers: Iterable[Provider]) -> list[_Told]:
    """Return every wait that is told outright."""
    waits: list[_Told] = []
    for rule in (rule for provider in providers for rule in provider.waits):
        if isinstance(rule, Wait):
            for value in rule.told(look):
                seconds = read_seconds(value, rule.unit, look.clock)
                if seconds is not None:
                    waits.append(_Told(seconds, rule.place))
        elif (told := rule(look)) is not None and 0 <= told[0] <= LONGEST_WAIT_SECONDS:
            waits.append(_Told(*told))
    return [wait for wait in waits if not _is_rounded(wait, waits)]


def _is_rounded(wait: _Told, waits: list[_Told]) -> bool:
    """Tell whether a wait of whole seconds is another one, told exactly elsewhere, rounded up."""
    return wait.seconds.is_integer() and any(0 < wait.seconds - other.seconds < 1 for other in waits)
