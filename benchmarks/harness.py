"""What all figures share: a server, processes, event loops, rounds and their statistics."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import platform
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import redis.utils
from redis.asyncio import Redis

from tests.servers import RedisServer

T = TypeVar("T")

LONGEST_SECONDS = 300.0
"""No process of a benchmark lives longer than this."""
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Options:
    """How to measure."""

    url: str
    binary: str | None = None
    """The server program, for those who start more of them; the machine's own if left out."""
    quick: bool = False
    uvloop: bool = False
    pace_seconds: float = 0.003
    """Mean pause between two messages of ``notices``; 0 sends the next as soon as the last is acknowledged."""

    def pick(self, full: int, quick: int) -> int:
        """Return a number of rounds, calls or the like."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """One line of a table: what the library takes, what the baseline takes, and how often the one is the other."""

    name: str
    ours: float
    baseline: float
    unit: str
    ratios: Sequence[float]
    """Ours to the baseline's, of each round."""
    goal: float | None = None
    """At most this ratio."""
    ratio: float | None = None
    """Ours to the baseline's over all rounds together; the median of ``ratios`` if left out."""

    @classmethod
    def of_rounds(
        cls,
        name: str,
        ours: Sequence[float],
        baseline: Sequence[float],
        unit: str,
        *,
        scale: float = 1.0,
        goal: float | None = None,
    ) -> Figure:
        """Summarise rounds in which both sides took turns: medians, and the ratio of each round.

        Args:
            name: What was measured, and against what.
            ours: One number per round.
            baseline: The number of the same round.
            unit: Of the numbers as they are shown.
            scale: What to multiply the numbers by for that.
            goal: The highest ratio that is wanted.
        """
        ratios = [one / other for one, other in zip(ours, baseline, strict=True)]
        return cls(name, statistics.median(ours) * scale, statistics.median(baseline) * scale, unit, ratios, goal)

    @property
    def overall(self) -> float:
        """The ratio that counts."""
        return statistics.median(self.ratios) if self.ratio is None else self.ratio


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(figures: Sequence[Figure], *, markdown: bool) -> str:
    """Return a table of figures."""
    head = ("figure", "ours", "baseline", "unit", "ratio", "rounds", "goal")
    rows = [
        (
            figure.name,
            _number(figure.ours),
            _number(figure.baseline),
            figure.unit,
            _ratio(figure.overall),
            f"{_ratio(min(figure.ratios))} to {_ratio(max(figure.ratios))}" if len(figure.ratios) > 1 else "",
            "" if figure.goal is None else f"≤ {figure.goal:g} {'met' if figure.overall <= figure.goal else 'MISSED'}",
        )
        for figure in figures
    ]
    return tabulate([head, *rows], right={1, 2, 4}, markdown=markdown)


def tabulate(rows: Sequence[Sequence[str]], *, right: Container[int], markdown: bool) -> str:
    """Return rows of cells as a table.

    Args:
        rows: The first is the head.
        right: Numbers of the columns that are aligned at the right.
        markdown: Whether it is to be one of Markdown.
    """
    if markdown:
        rule = ["--:" if column in right else "---" for column in range(len(rows[0]))]
        return "\n".join(f"| {' | '.join(line)} |" for line in [rows[0], rule, *rows[1:]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def describe_machine(options: Options, server: RedisServer) -> str:
    """Return a line about what the figures depend on."""
    info: Any = server.admin.info("server")
    product = "Valkey" if "valkey_version" in info else "Redis"
    return ", ".join(
        [
            f"{os.cpu_count()} cores ({platform.machine()})",
            f"Python {platform.python_version()}",
            "uvloop" if options.uvloop else "asyncio's loop",
            f"redis-py {redis.__version__} {'with' if redis.utils.HIREDIS_AVAILABLE else 'without'} hiredis",
            f"{product} {info.get('valkey_version', info['redis_version'])} over TCP on loopback",
            f"load {os.getloadavg()[0]:.1f}",
        ]
    )


@contextmanager
def started_server(binary: str | None) -> Iterator[RedisServer]:
    """Run a Redis of our own on a free port of the loopback interface."""
    with RedisServer(binary) as server:
        yield server


def bare_client(url: str, **options: Any) -> Redis:
    """Return a client of redis-py as the baselines use it: the protocol that the library speaks, nothing else set."""
    return Redis.from_url(url, protocol=2, **options)


def run(options: Options, main: Callable[[], Coroutine[Any, Any, T]], factory: Callable[..., Any] | None = None) -> T:
    """Run a coroutine on the event loop that was chosen, within the bound of time.

    Args:
        options: Say which loop.
        main: Makes the coroutine.
        factory: Makes another event loop instead.
    """
    if factory is None and options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop

    async def bounded() -> T:
        async with asyncio.timeout(LONGEST_SECONDS):
            return await main()

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(bounded())


ChildMain = Callable[..., Coroutine[Any, Any, None]]
"""What a child process runs: an async function of the options, its end of a pipe, and more arguments."""


@contextmanager
def child(options: Options, main: ChildMain, *arguments: Any) -> Iterator[Connection]:
    """Start a process, a new interpreter that inherits nothing, and make sure that it is gone afterwards.

    Yields:
        Our end of a pipe to it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_child, args=(options, main, theirs, arguments))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join(STOP_SECONDS)


async def receive(pipe: Connection, within: float = 60.0) -> Any:
    """Wait for what the other process sends, at most so many seconds.

    Raises:
        TimeoutError: It sent nothing.
        EOFError: It is gone.
    """
    if not await asyncio.to_thread(pipe.poll, within):
        raise TimeoutError(f"a process said nothing for {within:g} s")
    return pipe.recv()


async def pause(seconds: float) -> None:
    """Wait about so long: evenly paced calls could fall into step with a timer of either side."""
    await asyncio.sleep(seconds * random.uniform(0.5, 1.5))


async def taking_turns(*sides: Callable[[], Awaitable[T]], rounds: int) -> list[list[T]]:
    """Let all sides measure once in each round, each time in another order, and return what each measured."""
    measured: list[list[T]] = [[] for _ in sides]
    for number in range(rounds):
        for step in range(len(sides)):
            side = (number + step) % len(sides)
            measured[side].append(await sides[side]())
    return measured


def monotonic_ns() -> int:
    """Return a clock that all processes of a machine share (``CLOCK_MONOTONIC`` on Linux)."""
    return time.monotonic_ns()


def _run_child(options: Options, main: ChildMain, pipe: Connection, arguments: tuple[Any, ...]) -> None:
    run(options, lambda: main(options, pipe, *arguments))


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
