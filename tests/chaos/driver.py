"""The driver: starts everything, lets things go wrong, and at every quiet point checks what must hold."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.keys import Keys
from rate_coordinator.targets import Target
from tests.chaos.model import STALL_SECONDS, Event, Model
from tests.chaos.processes import Crew
from tests.chaos.scene import Scene, in_thread
from tests.chaos.single import Single
from tests.chaos.successions import BehindSentinels, InCluster
from tests.chaos.worker import LONGEST_WAIT_SECONDS, SETTINGS
from tests.servers import RedisServer

NAMESPACE = "chaos"
CALM_SECONDS = 10.0
"""After the last fault all have to be connected, to have delivered everything and to agree within this: a listener is
deaf for at most 5 s, what was kept is delivered after that, and a snapshot follows within 2.5 s more."""
ENDS_SOON_SECONDS = 0.1
"""Limits that lift so soon are not compared: they are gone for one and not yet for the other."""
FAULTS_PER_ROUND = (2, 5)
SCENES: dict[str, type[Scene]] = {"single": Single, "sentinel": BehindSentinels, "cluster": InCluster}
HISTORY_SECONDS = 30.0


class Violated(AssertionError):
    """Something does not hold that must."""


@dataclass
class Outcome:
    """What happened in a run."""

    place: str
    seed: int
    seconds: float = 0.0
    quiet_points: int = 0
    longest_until_quiet: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    reports: int = 0
    acknowledged: int = 0
    kept: int = 0
    clears: int = 0
    reads: int = 0
    waits: int = 0
    longest_read: float = 0.0
    longest_call: float = 0.0
    events: int = 0
    losses: int = 0

    def __str__(self) -> str:
        lines = [f"{count:>7}  {name}" for name, count in sorted(self.faults.items()) if count]
        return "\n".join(
            [
                *lines,
                f"{sum(self.faults.values()):>7}  faults in {self.seconds:.0f} s ({self.place}), seed {self.seed}; "
                f"data were lost {self.losses} times",
                f"{self.reports:>7}  reports: {self.acknowledged} acknowledged at once, "
                f"{self.kept} kept and delivered later",
                f"{self.clears:>7}  clears",
                f"{self.waits:>7}  waits",
                f"{self.reads:>7}  reads, the longest {self.longest_read * 1000:.1f} ms; longest call "
                f"{self.longest_call:.2f} s with a timeout of {SETTINGS['command_timeout']:g} s",
                f"{self.quiet_points:>7}  quiet points, reached within {self.longest_until_quiet:.1f} s of the "
                "last fault",
                "nothing was lost: every report is in the stream as long as the server kept its data, no limit was "
                "shortened, all mirrors agreed",
            ]
        )


class Chaos:
    """One run.

    Args:
        seconds: How long faults go on; it ends a little later, after a quiet point.
        seed: Of the schedule and of what the processes do. What happens when is still up to the machine.
        processes: How many.
        place: Which of ``SCENES``.
    """

    def __init__(self, seconds: float, seed: int, processes: int, place: str = "single") -> None:
        self._seconds = seconds
        self._place = place
        self._chance = random.Random(seed)
        self._model = Model()
        self._keys = Keys(NAMESPACE)
        self._log: deque[tuple[float, str]] = deque(maxlen=200)
        self._states: list[dict[str, Any]] = []
        self._count = processes
        self.outcome = Outcome(place, seed)

    async def run(self) -> Outcome:
        """Live through it.

        Raises:
            Violated: Something does not hold that must.
        """
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            crew = Crew(self._model.take)
            chance = random.Random(self._chance.random())
            scene = SCENES[self._place](crew, self._keys, self._model, chance, self._note)
            await stack.enter_async_context(scene)
            stack.push_async_callback(crew.end)
            longest = self._seconds + 4 * scene.round_seconds
            await crew.start(self._count, lambda number: self._arguments(scene, number, longest))
            await self._quiet_point(scene)
            while time.monotonic() - began < self._seconds:
                await crew.all("resume")
                await self._round(scene)
                await self._quiet_point(scene)
            self._sum_up(scene, time.monotonic() - began)
        return self.outcome

    def _arguments(self, scene: Scene, number: int, longest: float) -> list[str]:
        return [scene.url, NAMESPACE, str(number), str(self.outcome.seed), str(longest)]

    async def _round(self, scene: Scene) -> None:
        names = [scene.choose() for _ in range(self._chance.randint(*FAULTS_PER_ROUND))]
        await asyncio.sleep(self._chance.uniform(0.2, 0.8))
        async with asyncio.timeout(scene.round_seconds), asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(scene.happen(name))
                await asyncio.sleep(self._chance.uniform(0.0, 1.0))

    async def _quiet_point(self, scene: Scene) -> None:
        self._note("quiet …")
        began = time.monotonic()
        try:
            await scene.crew.all("pause")
        except TimeoutError:
            self._violate(["a call did not end"])
        server = await in_thread(scene.server)
        while True:
            self._states = await scene.crew.all("state")
            limits, at = await in_thread(lambda: self._in_redis(server))
            differences = list(self._differences(limits, at))
            took = time.monotonic() - began
            if not differences:
                break
            if took > CALM_SECONDS:
                self._violate([f"not calm after {took:.1f} s: {difference}" for difference in differences])
            await asyncio.sleep(0.05)
        self._note(f"quiet after {took:.1f} s")
        self.outcome.quiet_points += 1
        self.outcome.longest_until_quiet = max(self.outcome.longest_until_quiet, took)
        await self._check_newcomer(scene.url, server)
        events = await in_thread(lambda: self._events(server))
        limits, at = await in_thread(lambda: self._in_redis(server))
        self._model.settle(time.time())
        self._violate([*self._violations(events, limits, at)])

    def _violations(self, events: list[Event], limits: dict[str, int], at: float) -> Iterator[str]:
        model = self._model
        self.outcome.events = len(events)
        yield from model.violations()
        yield from model.check_events(events)
        yield from model.check_limits({Target.decode(name): ms / 1000 for name, ms in limits.items()}, at)
        # What was limited by events that are gone cannot be told from the rest.
        if all(at - until > LONGEST_WAIT_SECONDS + STALL_SECONDS for _, until in model.losses_of_events):
            yield from model.check_replay(events, limits, at)

    def _differences(self, limits: dict[str, int], at: float) -> Iterator[str]:
        """Return how the mirrors differ from Redis, or from a calm state."""
        soon_ms = int((at + ENDS_SOON_SECONDS) * 1000)
        expected = {target: ms for target, ms in limits.items() if ms > soon_ms}
        for number, state in enumerate(self._states):
            if (state["state"], state["buffered"], state["held"]) != ("connected", 0, []):
                told = {name: state[name] for name in ("state", "buffered", "held", "error")}
                yield f"process {number} is {told}"
            if state["dropped"]:
                yield f"process {number} has dropped {state['dropped']} reports"
            known = {target: ms for target, ms in state["limits"].items() if ms > soon_ms}
            if known != expected:
                odd = known.items() ^ expected.items()
                told_apart = sorted(known.items() & odd), sorted(expected.items() & odd)
                yield f"process {number} and Redis differ: {told_apart[0]}, {told_apart[1]}"

    async def _check_newcomer(self, url: str, server: RedisServer) -> None:
        patient = SETTINGS | {"connect_timeout": CALM_SECONDS, "command_timeout": CALM_SECONDS}
        async with RateLimitCoordinator.from_url(url, NAMESPACE, **patient) as newcomer:
            known = {str(limit.target): round(limit.resume_at.timestamp() * 1000) for limit in newcomer.limits}
        limits, at = await in_thread(lambda: self._in_redis(server))
        soon_ms = int((at + ENDS_SOON_SECONDS) * 1000)
        odd = {(target, ms) for target, ms in known.items() ^ limits.items() if ms > soon_ms}
        if odd:
            self._violate([f"a newcomer and Redis differ: {sorted(odd)}"])

    def _in_redis(self, server: RedisServer) -> tuple[dict[str, int], float]:
        """Return what Redis holds, and when: in the index, and for each a key that says the same."""
        at = time.time()
        active: Any = server.admin.zrangebyscore(self._keys.active, int(at * 1000), "+inf", withscores=True)
        return {target: int(resume_at_ms) for target, resume_at_ms in active}, at

    def _events(self, server: RedisServer) -> list[Event]:
        entries: Any = server.admin.xrange(self._keys.events)
        return [Event.of(entry_id, fields) for entry_id, fields in entries]

    def _sum_up(self, scene: Scene, seconds: float) -> None:
        outcome, model = self.outcome, self._model
        counters = [state["counters"] for state in self._states]
        outcome.seconds = seconds
        outcome.faults = scene.counts
        outcome.reports = len(model.reports)
        outcome.acknowledged = sum(report.event is not None for report in model.reports.values())
        outcome.kept = sum(report.event is None and report.promised for report in model.reports.values())
        outcome.clears = len(model.clears) - len(model.flushes)
        outcome.losses = len(model.losses) + len(model.flushes)
        outcome.reads = sum(each["reads"] for each in counters)
        outcome.waits = sum(each["waits"] for each in counters)
        outcome.longest_read = max(each["longest_read"] for each in counters)
        outcome.longest_call = model.longest_call

    def _note(self, what: str) -> None:
        self._log.append((time.time(), what))

    def _violate(self, violations: list[str]) -> None:
        if not violations:
            return
        since = time.time() - HISTORY_SECONDS
        history = sorted([*(line for line in self._log if line[0] >= since), *self._model.history(since)])
        seed, count = self.outcome.seed, self._count
        raise Violated(
            "\n".join(
                [
                    *(f"{at:.3f}  {what}" for at, what in history),
                    f"VIOLATED after {self.outcome.quiet_points} quiet points; above, the last {HISTORY_SECONDS:g} s",
                    *violations[:50],
                    f"again: python -m tests.chaos {self._place} --seed {seed} --processes {count} "
                    f"--seconds {self._seconds:g}",
                ]
            )
        )
