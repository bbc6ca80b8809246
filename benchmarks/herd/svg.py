"""Pictures of what the upstream got over time: one small SVG per strategy, all with the same axes.

They need nothing from outside, and follow the reader's choice of light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks.herd.histogram import BIN_SECONDS, Axis, Histogram
from benchmarks.herd.runs import Run
from benchmarks.herd.strategies import OURS, SHARED

HEADINGS = {SHARED: "Released at once", OURS: "Paced"}
"""The strategies that are drawn."""

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 74, 48
"""Margins around the plot."""
FLOOR = HEIGHT - BOTTOM
HEADROOM = 1.06
"""The y axis is so much longer than the highest bar."""

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #57606a }
  .heading { font-size: 17px; font-weight: 600; fill: #1f2328 }
  .end { text-anchor: end } .middle { text-anchor: middle }
  .paper { fill: #fff } .grid { stroke: #d8dee4 } .base { stroke: #57606a }
  .served { fill: #1f6feb } .refused { fill: #e8590c }
  .rate { stroke: #1f2328; stroke-dasharray: 5 4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .heading { fill: #f0f6fc }
    .paper { fill: #0d1117 } .grid { stroke: #2b313a } .base { stroke: #9198a1 }
    .served { fill: #4493f8 } .refused { fill: #f0883e }
    .rate { stroke: #f0f6fc }
  }
"""


def draw(runs: Sequence[Run], directory: Path) -> list[Path]:
    """Draw those runs of one upstream that have a picture, and return where."""
    drawn = [(run, Histogram.of(run)) for run in runs if run.strategy in HEADINGS]
    across = Axis.up_to(one.seconds for _, one in drawn)
    upwards = Axis.up_to(HEADROOM * max(one.sent) for _, one in drawn)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for run, histogram in drawn:
        path = directory / f"herd-{run.strategy}.svg"
        path.write_text(_Picture(run, histogram, across, upwards).text(), encoding="utf-8")
        paths.append(path)
    return paths


class _Picture:
    def __init__(self, run: Run, histogram: Histogram, across: Axis, upwards: Axis) -> None:
        self._run = run
        self._histogram = histogram
        self._across = across
        self._upwards = upwards

    def text(self) -> str:
        """Return it as a whole document."""
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-labelledby="title description">',
            f'<title id="title">{escape(self._heading)}</title>',
            f'<desc id="description">{escape(self._description)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            *self._axes(),
            self._rate(),
            *self._areas(),
            *self._words(),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    @property
    def _heading(self) -> str:
        run = self._run
        return f"{HEADINGS[run.strategy]}: {len(run.requests):,} requests for {run.made:,} calls"

    @property
    def _summary(self) -> str:
        run = self._run
        end = "all calls served" if run.stopped_by is None else "stopped"
        return f"{run.refused:,} refused, {run.late:,} of them late; {end} after {run.wall_seconds:.1f} s"

    @property
    def _description(self) -> str:
        return (
            f"Requests sent over time, in bins of {BIN_SECONDS:g} s, those that were served below those that were "
            f"refused. {self._summary}. The upstream serves {self._run.policy.about}. "
            f"The fullest bin holds {max(self._histogram.sent):,} requests."
        )

    def _x(self, seconds: float) -> str:
        return _short(LEFT + (WIDTH - LEFT - RIGHT) * seconds / self._across.end)

    def _y(self, requests: float) -> str:
        return _short(FLOOR - (FLOOR - TOP) * requests / self._upwards.end)

    def _axes(self) -> list[str]:
        right = WIDTH - RIGHT
        lines = [
            f'<path class="grid" d="M{LEFT} {self._y(at)}H{right}"/>'
            f'<text class="end" x="{LEFT - 8}" y="{self._y(at)}" dy="4">{at:g}</text>'
            for at in self._upwards.ticks
        ]
        lines += [f'<text class="middle" x="{self._x(at)}" y="{FLOOR + 18}">{at:g}</text>' for at in self._across.ticks]
        middle, unit = (TOP + FLOOR) // 2, f"requests per {BIN_SECONDS:g} s"
        return [
            *lines,
            f'<text class="middle" x="{(LEFT + right) // 2}" y="{HEIGHT - 10}">seconds since the start</text>',
            f'<text class="middle" transform="translate(16 {middle}) rotate(-90)">{unit}</text>',
        ]

    def _areas(self) -> list[str]:
        histogram = self._histogram
        nothing = (0,) * len(histogram.sent)
        return [
            f'<path class="refused" d="{self._bars(histogram.served, histogram.sent)}"/>',
            f'<path class="served" d="{self._bars(nothing, histogram.served)}"/>',
            f'<path class="base" d="M{LEFT} {FLOOR}H{WIDTH - RIGHT}"/>',
        ]

    def _bars(self, bottoms: Sequence[int], tops: Sequence[int]) -> str:
        return "".join(
            f"M{self._x(number * BIN_SECONDS)} {self._y(bottom)}V{self._y(top)}"
            f"H{self._x((number + 1) * BIN_SECONDS)}V{self._y(bottom)}z"
            for number, (bottom, top) in enumerate(zip(bottoms, tops, strict=True))
            if top > bottom
        )

    def _rate(self) -> str:
        """Return a line at what the upstream serves in the long run. Bars hide it: it shows where there are none."""
        return f'<path class="rate" d="M{LEFT} {self._y(self._run.policy.rate * BIN_SECONDS)}H{WIDTH - RIGHT}"/>'

    def _words(self) -> list[str]:
        rate = self._run.policy.rate
        legend = [("refused (429)", "refused"), ("served", "served")]
        lines = [
            f'<text class="heading" x="{LEFT}" y="28">{escape(self._heading)}</text>',
            f'<text x="{LEFT}" y="50">{escape(self._summary)}</text>',
        ]
        left = WIDTH - RIGHT - 110
        for number, (word, name) in enumerate(legend):
            y = 18 + 18 * number
            lines.append(f'<rect class="{name}" x="{left}" y="{y}" width="11" height="11" rx="2"/>')
            lines.append(f'<text x="{left + 18}" y="{y + 10}">{word}</text>')
        lines.append(f'<path class="rate" d="M{left - 3} 59h17"/><text x="{left + 18}" y="64">serves {rate:g}/s</text>')
        return lines


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
