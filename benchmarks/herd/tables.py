"""How runs are printed."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import tabulate
from benchmarks.herd.runs import Run
from benchmarks.herd.strategies import ORACLE, OURS

GOAL_TO_ORACLE = 1.15
GOAL_LATE_SHARE = 0.02
HEAD = (
    "strategy",
    "calls made",
    "requests",
    "429s, first wave",
    "429s, late",
    "late of all",
    "time",
    "to ideal",
    "to oracle",
    "p99 of a call",
)
UNKNOWN = "-"
"""Where the oracle was not run, or a bound was hit before the time was known."""


def table(runs: Sequence[Run], *, markdown: bool) -> str:
    """Return the runs of one upstream, side by side, and below it what they say about our goals."""
    oracle = next((run for run in runs if run.strategy == ORACLE and run.stopped_by is None), None)
    rows = [_row(run, oracle) for run in runs]
    lines = [tabulate([HEAD, *rows], right=range(1, len(HEAD)), markdown=markdown)]
    ours = next((run for run in runs if run.strategy == OURS), None)
    if ours is not None and oracle is not None:
        lines += ["", _verdict(ours, oracle)]
    return "\n".join(lines)


def _row(run: Run, oracle: Run | None) -> list[str]:
    comparable = run.stopped_by is None
    return [
        run.strategy,
        f"{run.made:,} of {run.wanted:,}",
        f"{len(run.requests):,}",
        f"{run.first_wave:,}",
        f"{run.late:,}",
        f"{run.late_share:.1%}",
        f"{run.wall_seconds:.1f} s" if comparable else f"stopped at {run.wall_seconds:.0f} s ({run.stopped_by})",
        f"{run.to_ideal:.2f}" if comparable else UNKNOWN,
        f"{run.wall_seconds / oracle.wall_seconds:.2f}" if comparable and oracle is not None else UNKNOWN,
        f"{run.p99_seconds:.1f} s" if comparable else UNKNOWN,
    ]


def _verdict(ours: Run, oracle: Run) -> str:
    ratio = ours.wall_seconds / oracle.wall_seconds
    in_time = ours.stopped_by is None and ratio <= GOAL_TO_ORACLE
    return (
        f"{OURS}: {ratio:.2f} of the oracle's time (≤ {GOAL_TO_ORACLE:g} {_met(in_time)}), "
        f"{ours.late_share:.1%} late 429s (≤ {GOAL_LATE_SHARE:.0%} {_met(ours.late_share <= GOAL_LATE_SHARE)})"
    )


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"
