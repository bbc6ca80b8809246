"""Judges what a Redis tells of itself: each function looks at one thing and says what it means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rate_coordinator.keys import Keys
from rate_coordinator.store import OLDEST_VERSION

SLOW_SECONDS = 0.2
"""From this on a round trip or a notice counts as slow."""
CLOCKS_APART_SECONDS = 2.0
"""From this on the clocks of the server and of this host count as different."""

_PLACE_IN_SCRIPT = re.compile(r"^@[^:]*: \d+: ")
_TO_THE_PRIMARY = "Point the URL at the primary, which takes the writes."
_ADVICE_BY_CODE = {
    "READONLY": _TO_THE_PRIMARY,
    "OOM": "Give the server more memory (maxmemory), or remove what fills it.",
    "MISCONF": "Find out why the server cannot write to its disk (see its log).",
}

_PASSING_CODES = frozenset({"READONLY", "OOM", "MISCONF", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "BUSY"})


class Finding(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    name: str
    """What was looked at: ``reachable``, ``version``, ``role``, ``rights``, …"""
    status: Literal["ok", "wrong", "unknown"]
    """``unknown``: it could not be found out, which is no fault."""
    summary: str
    """What was found, in a sentence."""
    advice: str | None = None
    """What to do about it, in a sentence; None unless something is wrong."""


def ok(name: str, summary: str) -> Finding:
    """Return that a thing is as it should be."""
    return Finding(name=name, status="ok", summary=summary)


def unknown(name: str, summary: str) -> Finding:
    """Return that a thing could not be found out."""
    return Finding(name=name, status="unknown", summary=summary)


def wrong(name: str, summary: str, advice: str) -> Finding:
    """Return that a thing is not as it should be."""
    return Finding(name=name, status="wrong", summary=summary, advice=advice)


def passes_by_itself(words: str) -> bool:
    """Tell whether a server that refuses in such words may take the same command later, when it has recovered."""
    return _code(words) in _PASSING_CODES


def _code(words: str) -> str:
    """Return the first word of an error reply: the part of it that is meant for programs.

    Redis 6.2 puts the place in the script before that of a command that failed inside one.
    """
    return _PLACE_IN_SCRIPT.sub("", words).lstrip("-").partition(" ")[0]


def product_and_version(info: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return ``"redis"`` or ``"valkey"`` and its version, each None where the server did not tell."""
    if version := info.get("valkey_version"):
        return "valkey", version
    version = info.get("redis_version")
    return ("redis", version) if version else (None, None)


def judge_version(info: Mapping[str, str]) -> Finding:
    """Judge whether the server is new enough. ``info`` has the fields of the server's answer to ``INFO``."""
    product, version = product_and_version(info)
    if version is None:
        return unknown("version", "the server does not tell its version (INFO)")
    # Valkey tells in redis_version which Redis it is compatible with.
    number = tuple(int(part) for part in info.get("redis_version", version).split(".")[:2] if part.isdecimal())
    if number < OLDEST_VERSION:
        return wrong("version", f"{product} {version} is too old", "Use Redis 6.2 or newer, or Valkey.")
    return ok("version", f"{product} {version}")


def judge_role(info: Mapping[str, str]) -> Finding:
    """Judge whether the server takes writes."""
    role = info.get("role")
    if role is None:
        return unknown("role", "the server does not tell whether it is a primary (INFO)")
    if role != "master":
        return wrong("role", "this server is a replica", _TO_THE_PRIMARY)
    return ok("role", "primary")


def judge_rights(info: Mapping[str, str], refused: Mapping[str, str], keys: Keys) -> Finding:
    """Judge whether everything that is needed may be done.

    Args:
        info: See ``judge_version``.
        refused: Each command that the server refused, with the server's words.
        keys: Of the namespace.
    """
    if not refused:
        return ok("rights", "every command that is used may be used on the namespace's keys and channel")
    codes = {_code(words) for words in refused.values()}
    if judge_role(info).status == "wrong":
        advice = _TO_THE_PRIMARY
    else:
        known = [advice for code, advice in _ADVICE_BY_CODE.items() if code in codes]
        rights = f"on the keys ~{keys.prefix}:* and the channel &{keys.notices}"
        advice = known[0] if known else f"Let the user of the URL do this (ACL SETUSER), {rights}."
    by_words: dict[str, list[str]] = {}
    for command, words in refused.items():
        by_words.setdefault(words, []).append(command)
    summary = "; ".join(f"{', '.join(commands)} ({words})" for words, commands in by_words.items())
    return wrong("rights", f"refused: {summary}", advice)


def judge_eviction(info: Mapping[str, str]) -> Finding:
    """Judge whether the server throws limits away when its memory is full."""
    policy = info.get("maxmemory_policy")
    if policy is None:
        return unknown("eviction", "the server does not tell its maxmemory-policy (INFO)")
    if policy == "noeviction":
        return ok("eviction", "noeviction: nothing is thrown away when memory is full")
    if info.get("maxmemory", "0") == "0":
        return ok("eviction", f"{policy}, but without a maxmemory nothing is ever thrown away")
    return wrong(
        "eviction",
        f"with {policy} the server throws limits and events away when its memory is full",
        "Set maxmemory-policy to noeviction, or use a server of its own for this.",
    )


def judge_persistence(info: Mapping[str, str], snapshots: str | None) -> Finding:
    """Judge whether limits outlive a restart of the server.

    Args:
        info: See ``judge_version``.
        snapshots: The server's setting ``save``, ``""`` for none; None where it may not be asked.
    """
    if "aof_enabled" not in info:
        return unknown("persistence", "the server does not tell whether it persists (INFO)")
    if "err" in (info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status")):
        return wrong("persistence", "the last attempt to write to disk failed", _ADVICE_BY_CODE["MISCONF"])
    if info["aof_enabled"] == "1":
        return ok("persistence", "append-only file: limits outlive a restart of the server")
    if snapshots is None:
        return unknown("persistence", "no append-only file; whether there are snapshots may not be asked (CONFIG)")
    if snapshots:
        return ok("persistence", "snapshots: a crash loses the limits since the last one")
    return wrong(
        "persistence",
        "a restart of the server forgets every limit and every event",
        "Turn the append-only file on (appendonly yes).",
    )


def judge_delay(name: str, summary: str, seconds: float) -> Finding:
    """Judge a delay that was measured."""
    summary = f"{summary} {seconds * 1000:.1f} ms"
    return (
        wrong(name, summary, "Use a server that is nearer or less busy.")
        if seconds >= SLOW_SECONDS
        else ok(name, summary)
    )


def judge_clock(ahead_seconds: float) -> Finding:
    """Judge how far the server's wall clock is ahead of this host's."""
    summary = f"the server's clock is {abs(ahead_seconds):.3f} s {'ahead of' if ahead_seconds > 0 else 'behind'} ours"
    if abs(ahead_seconds) < CLOCKS_APART_SECONDS:
        return ok("clock", summary)
    return wrong(
        "clock",
        summary,
        "Waits are right all the same, but times are shown by the server's clock: synchronise both (NTP).",
    )
