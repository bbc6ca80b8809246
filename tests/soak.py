"""Live for a long time and see whether anything grows: ``python -m tests.soak [--minutes 30]``.

Four processes with a coordinator each make 50 reports a second in all on a real server, read, wait, listen and now and
then clear. Every few seconds memory, file descriptors, asyncio tasks and threads of each are noted. What fills up to a
bound (the log of events, the stream) is full by the end of the first quarter of 15 minutes; then everything has to stay
as it is: the medians of the second and of the last quarter are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rate_coordinator import CoordinatorUnavailable, LimitWaitTimeout, Notice, RateLimitCoordinator
from tests.servers import RedisServer

PROCESSES = 4
REPORTS_PER_SECOND = 50
"""Of all processes together."""
MAX_EVENTS = 5_000
"""The log of events is full after 100 seconds."""
BACKENDS = 20
LONGEST_WAIT_SECONDS = 20.0
SLOWEST_START_SECONDS = 30.0

RSS_GROWTH = 1.03
RSS_SLACK_MIB = 1.0
"""Memory may grow by 3 % and 1 MiB between the two quarters: that is the allocator's fragmentation. At 50 reports a
second, all of which every process hears of, a leak of 200 bytes for each would be 4.3 MiB between the middles of these
quarters in 15 minutes.
"""
COUNT_SLACK = 2
"""Tasks and descriptors may differ by so many: a median of what comes and goes, such as those who wait just then."""


@dataclass(frozen=True)
class Sample:
    """What one process had at one moment."""

    at: float
    rss_mib: float
    descriptors: int
    threads: int
    tasks: int
    reports: int


def process_figures(pid: int) -> tuple[float, int, int]:
    """Return memory in MiB, file descriptors and threads of a process.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
    """
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith(("Vm", "Th"))
    )
    rss_mib = int(status["VmRSS"].split()[0]) / 1024
    return rss_mib, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"])


async def work(url: str, number: int, seconds: float, interval: float) -> None:
    """Be one of the processes; print a line of figures now and then."""
    chance = random.Random(number)
    heard = {"callback": 0, "stream": 0}
    made = 0

    def hear(notice: Notice) -> None:
        heard["callback"] += 1

    async with RateLimitCoordinator.from_url(url, "soak", max_events=MAX_EVENTS) as coordinator:

        async def report() -> None:
            nonlocal made
            pause = PROCESSES / REPORTS_PER_SECOND
            began = time.monotonic()
            for turn in range(int(seconds / pause)):
                wait_seconds = chance.uniform(0.01, LONGEST_WAIT_SECONDS)
                model = chance.choice([None, "small", "large"])
                await coordinator.report_rate_limit(
                    f"b{chance.randrange(BACKENDS)}", wait_seconds, "job", turn, model=model
                )
                made += 1
                if chance.random() < 0.01:
                    with suppress(CoordinatorUnavailable):
                        await coordinator.clear_limits(f"b{chance.randrange(BACKENDS)}")
                await asyncio.sleep(max(0.0, began + (turn + 1) * pause - time.monotonic()))

        async def wait() -> None:
            for _ in range(int(seconds * 5)):
                with suppress(LimitWaitTimeout):
                    backends = [f"b{chance.randrange(BACKENDS)}" for _ in range(3)]
                    await coordinator.wait_until_any_clear(backends, timeout=chance.uniform(0.0, 0.5))
                await asyncio.sleep(0.2)

        async def read() -> None:
            for turn in range(int(seconds * 20)):
                await coordinator.is_rate_limited(f"b{chance.randrange(BACKENDS)}", f"m{turn % 1000}")
                _ = coordinator.active_limits, coordinator.health
                await asyncio.sleep(0.05)

        async def listen() -> None:
            async for _ in coordinator.notices():
                heard["stream"] += 1

        async def tell() -> None:
            while True:
                gc.collect()
                print(json.dumps({"tasks": len(asyncio.all_tasks()), "reports": made}), flush=True)
                await asyncio.sleep(interval)

        coordinator.on_notice(hear)
        tasks = [asyncio.create_task(job()) for job in (report, wait, read, listen, tell)]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task.exception() for task in tasks if task.done() and task.exception()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        health = coordinator.health
        assert not failed, failed
        assert (health.state, health.reports_buffered, health.reports_dropped) == ("connected", 0, 0)
        assert min(heard.values()) > 0


class Soak:
    """One run.

    Args:
        seconds: How long.
        interval: Seconds between two samples.
    """

    def __init__(self, seconds: float, interval: float) -> None:
        self.seconds = seconds
        self.interval = interval
        self.samples: dict[str, list[Sample]] = {}
        self.exit_codes: list[int] = []

    async def run(self) -> None:
        """Start everything, watch it, and leave nothing behind."""
        processes: list[asyncio.subprocess.Process] = []
        with RedisServer() as server:
            try:
                for number in range(PROCESSES):
                    arguments = ["--worker", str(number), server.url, str(self.seconds), str(self.interval)]
                    processes.append(
                        await asyncio.create_subprocess_exec(
                            *(sys.executable, "-m", "tests.soak", *arguments), stdout=asyncio.subprocess.PIPE
                        )
                    )
                began = time.monotonic()
                async with asyncio.timeout(self.seconds + SLOWEST_START_SECONDS), asyncio.TaskGroup() as tasks:
                    server_pid = int(server.admin.info("server")["process_id"])
                    watching = tasks.create_task(self._watch_server(server_pid, began))
                    watchers = [
                        tasks.create_task(self._watch(f"process {number}", process, began))
                        for number, process in enumerate(processes)
                    ]
                    await asyncio.wait(watchers)
                    watching.cancel()
            finally:
                for process in processes:
                    if process.returncode is None:
                        process.kill()
                    self.exit_codes.append(await process.wait())

    async def _watch(self, name: str, process: asyncio.subprocess.Process, began: float) -> None:
        assert process.stdout is not None
        samples = self.samples.setdefault(name, [])
        while line := await process.stdout.readline():
            told = json.loads(line)
            with suppress(OSError):
                samples.append(Sample(time.monotonic() - began, *process_figures(process.pid), **told))
            if name == "process 0" and len(samples) % 12 == 1:
                print(
                    f"{samples[-1].at:6.0f} s  {samples[-1].rss_mib:6.1f} MiB  {samples[-1].reports} reports",
                    flush=True,
                )

    async def _watch_server(self, pid: int, began: float) -> None:
        samples = self.samples.setdefault("redis-server", [])
        while True:
            samples.append(Sample(time.monotonic() - began, *process_figures(pid), tasks=0, reports=0))
            await asyncio.sleep(self.interval)

    def table(self) -> tuple[str, bool]:
        """Return the table, and whether all is flat."""
        lines = [f"{'':<14}{'':<13}{'start':>9}{'quarter 2':>11}{'quarter 4':>11}{'highest':>9}"]
        flat = True
        for name, samples in sorted(self.samples.items()):
            for figure, slack in (
                ("rss_mib", None),
                ("descriptors", COUNT_SLACK),
                ("threads", 0),
                ("tasks", COUNT_SLACK),
            ):
                values = [(sample.at, float(getattr(sample, figure))) for sample in samples]
                second, last = self._quarter(values, 1), self._quarter(values, 3)
                highest = second * RSS_GROWTH + RSS_SLACK_MIB if slack is None else second + slack
                grows = last > highest
                flat = flat and not grows
                lines.append(
                    f"{name:<14}{figure:<13}{values[0][1]:>9.1f}{second:>11.1f}{last:>11.1f}"
                    f"{max(value for _, value in values):>9.1f}{'  GROWS' if grows else ''}"
                )
        return "\n".join(lines), flat

    def _quarter(self, values: Sequence[tuple[float, float]], number: int) -> float:
        length = self.seconds / 4
        chosen = [value for at, value in values if number * length <= at < (number + 1) * length]
        return median(chosen or [value for _, value in values])


def main() -> int:
    """Run as a command; return the exit code."""
    if sys.argv[1:2] == ["--worker"]:
        number, url, seconds, interval = sys.argv[2:]
        asyncio.run(work(url, int(number), float(seconds), float(interval)))
        return 0
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="See whether anything grows in a long run."
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long; %(default)g if left out")
    seconds = parser.parse_args().minutes * 60
    soak = Soak(seconds, interval=min(5.0, seconds / 40))
    began = time.monotonic()
    try:
        asyncio.run(soak.run())
    except KeyboardInterrupt:
        print("interrupted; everything that was started is stopped")
        return 130
    table, flat = soak.table()
    reports = sum(samples[-1].reports for name, samples in soak.samples.items() if name.startswith("process"))
    took = time.monotonic() - began
    print(table)
    print(f"{PROCESSES} processes, {took:.0f} s, {reports} reports ({reports / seconds:.1f} a second)")
    print(
        f"{'flat' if flat else 'NOT FLAT'}: median of the last quarter against that of the second; memory within "
        f"{(RSS_GROWTH - 1) * 100:.0f} % and {RSS_SLACK_MIB:g} MiB, descriptors and tasks within {COUNT_SLACK}, "
        "threads the same"
    )
    if any(soak.exit_codes):
        print(f"a process ended badly: {soak.exit_codes}")
    return 0 if flat and not any(soak.exit_codes) else 1


if __name__ == "__main__":
    sys.exit(main())
