"""How the results of the experiments are printed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.harness import tabulate
from benchmarks.outages.cut import Cut, Noticing
from benchmarks.outages.failover import FailOver
from benchmarks.outages.woken import Woken

PLAIN, PINGING, OURS = "redis-py", "redis-py, own ping", "rate_coordinator"
NOTHING = "-"
"""Where a side has no such thing."""


def tables(fail_over: FailOver, woken: Woken, cut: Cut, *, markdown: bool) -> str:
    """Return a table of each experiment under its name."""
    named = {
        "a master dies with writes that no replica has": _fail_over(fail_over),
        "a master stands still, is replaced, and wakes up": _woken(woken),
        "a listener's link swallows everything": _cut(cut),
    }
    return "\n\n".join(
        f"{f'#### {name}' if markdown else name}\n\n{tabulate(rows, right=range(1, len(rows[0])), markdown=markdown)}"
        for name, rows in named.items()
    )


def _fail_over(result: FailOver) -> list[list[str]]:
    sides = (result.plain, result.ours)
    mirrors = [NOTHING if side.unmirrored is None else _count(side.unmirrored) for side in sides]
    return [
        ["figure", PLAIN, OURS],
        ["writes acknowledged before the master died", *(_count(side.acknowledged) for side in sides)],
        ["of them while no replica was told", *(_count(side.held_back) for side in sides)],
        ["kill to another master", *[_seconds(result.takeover_seconds)] * 2],
        ["kill to the next acknowledged write", *(_seconds(side.silent_seconds) for side in sides)],
        ["writes that were kept meanwhile, to be done later", NOTHING, _count(result.ours.kept)],
        ["limits that the new master lacked at first", *(_count(side.lacking_at_once) for side in sides)],
        [
            f"limits that it lacked {result.later_seconds:g} s after the fail-over",
            *(_count(side.lacking_later) for side in sides),
        ],
        ["fail-over until all were back", *(_seconds(side.back_seconds, "never") for side in sides)],
        ["limits that it lacked in the end", *(_count(side.lacking_in_the_end) for side in sides)],
        ["limits that another process did not know of in the end", *mirrors],
    ]


def _woken(result: Woken) -> list[list[str]]:
    listeners = (result.plain, result.pinging, result.ours)
    never = _more_than(result.observed_seconds)
    # There was nothing to hear before another master took over.
    still_deaf = _more_than(result.observed_seconds - result.takeover_seconds)
    silent = (result.plain_silent_seconds, result.plain_silent_seconds, result.our_silent_seconds)
    mirrors = [NOTHING if one.unmirrored is None else _count(one.unmirrored) for one in listeners]
    return [
        ["figure", PLAIN, PINGING, OURS],
        ["stop to another master", *[_seconds(result.takeover_seconds)] * 3],
        ["stop to waking", *[_seconds(result.woken_seconds)] * 3],
        [
            "stop to the next acknowledged write of one who wrote before",
            *(_seconds(seconds, never) for seconds in silent),
        ],
        [
            "longest time that the listener heard nothing",
            *(_seconds(one.deaf_seconds, still_deaf) for one in listeners),
        ],
        ["writes that were kept meanwhile, to be done later", NOTHING, NOTHING, _count(result.kept)],
        ["acknowledged notices", *(_count(told) for told in (result.plain_told, result.plain_told, result.our_told))],
        ["of them never learned of", *(_count(one.never_heard) for one in listeners)],
        ["of them learned of from a snapshot", NOTHING, NOTHING, _count(result.ours.recovered)],
        ["limits that the listener did not know of in the end", *mirrors],
    ]


def _cut(result: Cut) -> list[list[str]]:
    kinds: tuple[Noticing, ...] = (result.checking, result.pinging, result.ours)
    never = _more_than(result.observed_seconds)
    return [
        [f"figure, of {len(result.ours.deaf_seconds)} listeners", f"{PLAIN}, health check", PINGING, OURS],
        ["cut until it was noticed", *(_range(one.noticed_seconds, never) for one in kinds)],
        ["longest time that it heard nothing", *(_range(one.deaf_seconds, never) for one in kinds)],
        ["acknowledged notices never learned of", *(_counts(one.never_heard) for one in kinds)],
        ["limits that one did not know of in the end", NOTHING, NOTHING, _counts(result.our_lacks)],
    ]


def _count(number: int) -> str:
    return f"{number:,}"


def _counts(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return _count(low) if low == high else f"{_count(low)} to {_count(high)}"


def _seconds(seconds: float, never: str = "never") -> str:
    return never if math.isinf(seconds) else f"{seconds:.1f} s"


def _more_than(seconds: float) -> str:
    return f"> {math.floor(seconds)} s"


def _range(seconds: Sequence[float], never: str) -> str:
    low, high = _seconds(min(seconds), never), _seconds(max(seconds), never)
    return low if low == high else f"{low.removesuffix(' s')} to {high}"
