"""How near the pace comes to what anybody could do who knows the upstream's rate: refusals against time.

Where calls take a while to arrive, and each a different one, they do not arrive as evenly as they were sent. A small
bucket then overflows now and then, however well the rate is known, and each refusal stops the fleet for as long as the
upstream asks. So whoever keeps closer to the rate is refused more often. This draws that frontier: the same work in the
same simulated time (``tests/pacing``), at each of many shares of the true rate, which is told beforehand and whose
changes are told in the instant in which they come; and beside it the library's pace, which finds the rate by itself.

    python -m benchmarks.frontier               the figures
    python -m benchmarks.frontier --svg docs    also draw docs/frontier.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from html import escape
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from tests.pacing.scenarios import SCENARIOS, Scenario, run, set_rate
from tests.pacing.simulate import TokenBucket, simulate

NAMES = (
    "bucket 50/s, burst 5",
    "bucket 200/s, burst 20",
    "rises 50 -> 150, burst 5",
    "model 2-20 s, refuses at once, bucket 50/s, burst 5",
    "model 2-20 s, refuses at once, bucket 5/s, burst 5",
    "answers after 0.5-2 s, refuses at once, bucket 50/s, burst 5",
    "model 2-20 s, bucket 20/s, burst 20",
    "model 2-20 s, bucket 50/s, burst 5",
    "model 2-20 s, bucket 5/s, burst 5",
    "answers after 0.5-2 s, bucket 50/s, burst 5",
)
SHARES = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 1.0)
SEEDS = range(100, 106)


class Point(NamedTuple):
    """What one way to go costs: means over the seeds."""

    late: float
    """429s, as a share of all that is sent; the library's without those to the first wave."""
    time: float
    """A multiple of the ideal."""


class Told:
    """Keeps to a share of the true rate, evenly, and stops when it is refused."""

    epoch = 0

    def __init__(self, rate_at: Callable[[float], float], share: float) -> None:
        self._rate_at, self._share = rate_at, share
        self._next_free, self._resume = 0.0, 0.0

    def next_slot(self, now: float) -> float:
        """See ``Shared``."""
        return max(now, self._next_free, self._resume)

    def admit(self, now: float) -> None:
        """See ``Shared``."""
        self._next_free = max(now, self._next_free) + 1 / (self._share * self._rate_at(now))

    def succeeded(self, now: float, epoch: int) -> None:
        """See ``Shared``."""

    def limited(self, now: float, wait: float, epoch: int, age: float) -> None:
        """See ``Shared``."""
        self._resume = max(self._resume, now + wait)


def told(scenario: Scenario, share: float) -> Point:
    """Return what it costs to keep to a share of a bucket's rate."""
    upstream = scenario.upstream()
    assert isinstance(upstream, TokenBucket)
    first = upstream.rate

    def rate_at(now: float) -> float:
        return next((rate for at, rate in reversed(scenario.changes) if now >= at), first)

    outcomes = [
        simulate(
            scenario.upstream(),
            Told(rate_at, share),
            scenario.calls,
            scenario.tasks,
            seed,
            latency=scenario.latency,
            up=scenario.up,
            refusing=scenario.refusing,
            changes=tuple((at, set_rate(rate)) for at, rate in scenario.changes),
        )
        for seed in SEEDS
    ]
    late = fmean((outcome.sent - outcome.done) / outcome.sent for outcome in outcomes)
    return Point(late, fmean(outcome.time for outcome in outcomes) / scenario.ideal_seconds)


def ours(name: str) -> Point:
    """Return what the library's pace costs."""
    outcomes = [run(name, "processes", seed) for seed in SEEDS]
    late = fmean(outcome.late / outcome.sent for outcome in outcomes)
    return Point(late, fmean(outcome.time for outcome in outcomes) / SCENARIOS[name].ideal_seconds)


WIDTH, HEIGHT, COLUMNS = 210, 180, 4
LEFT, TOP, FLOOR = 36, 34, 142
MOST_LATE, MOST_TIME = 0.06, 2.2
STYLE = """
  text { font: 11px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #57606a }
  .heading { font-weight: 600; fill: #1f2328 } .paper { fill: #fff } .grid { stroke: #d8dee4 }
  .told { fill: none; stroke: #57606a } .dot { fill: #57606a } .ours { fill: #1f6feb }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .heading { fill: #f0f6fc } .paper { fill: #0d1117 } .grid { stroke: #2b313a }
    .told { stroke: #9198a1 } .dot { fill: #9198a1 } .ours { fill: #4493f8 }
  }
"""


def draw(figures: dict[str, tuple[Point, list[Point]]]) -> str:
    """Return a picture: one small plot for each upstream."""
    rows = -(-len(figures) // COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 26
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Refusals against time, of a fleet that is told the rate and of one that finds it">',
        f'<style>{STYLE}</style><rect class="paper" width="{width}" height="{height}" rx="6"/>',
    ]
    for number, (name, (own, curve)) in enumerate(figures.items()):
        lines.append(f'<g transform="translate({number % COLUMNS * WIDTH} {number // COLUMNS * HEIGHT})">')
        lines += _plot(name, own, curve)
        lines.append("</g>")
    lines.append(
        f'<text x="{LEFT}" y="{height - 9}">across: refused calls; upwards: time as a multiple of the ideal; '
        "grey: told the rate, at 50 to 100 % of it; blue: the library</text>"
    )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _plot(name: str, own: Point, curve: list[Point]) -> list[str]:
    def x(late: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - 14) * min(late, MOST_LATE) / MOST_LATE:.1f}"

    def y(time: float) -> str:
        return f"{FLOOR - (FLOOR - TOP) * (min(time, MOST_TIME) - 1) / (MOST_TIME - 1):.1f}"

    *kind, rate, burst = name.replace("bucket ", "").split(", ")
    headings = [", ".join(kind).replace("answers after ", "").replace("refuses", "429s"), f"{rate}, {burst}"]
    lines = [f'<text class="heading" x="{LEFT}" y="{13 + 14 * row}">{escape(headings[row])}</text>' for row in (0, 1)]
    for time in (1.0, 1.25, 1.5, 2.0):
        lines.append(
            f'<path class="grid" d="M{LEFT} {y(time)}H{WIDTH - 14}"/><text x="8" y="{y(time)}" dy="4">{time:g}</text>'
        )
    for late in (0.0, 0.02, 0.04, 0.06):
        lines.append(f'<text x="{x(late)}" y="{FLOOR + 16}" text-anchor="middle">{late:.0%}</text>')
    lines.append(f'<polyline class="told" points="{" ".join(f"{x(point.late)},{y(point.time)}" for point in curve)}"/>')
    lines += [f'<circle class="dot" cx="{x(point.late)}" cy="{y(point.time)}" r="2"/>' for point in curve]
    return [*lines, f'<circle class="ours" cx="{x(own.late)}" cy="{y(own.time)}" r="5"/>']


def main() -> None:
    """Print the figures, and draw them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="draw frontier.svg there")
    folder: Path | None = parser.parse_args().svg
    figures: dict[str, tuple[Point, list[Point]]] = {}
    print(
        "| upstream | ours: late | time | told the rate, late at most 1 %: late | time | at its fastest: late | time |"
    )
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for name in NAMES:
        own, curve = ours(name), [told(SCENARIOS[name], share) for share in SHARES]
        figures[name] = own, curve
        sparing = min((point for point in curve if point.late <= 0.01), key=lambda point: point.time, default=None)
        fastest = min(curve, key=lambda point: point.time)
        cells = [f"{point.late:.2%} | {point.time:.2f}" if point else "never | -" for point in (own, sparing, fastest)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "frontier.svg").write_text(draw(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
