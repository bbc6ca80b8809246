"""Lives through one fault with a coordinator and checks everything that is promised for bad days.

A test says what goes wrong (``happens``), what ends it (``passes``) and what is special about it (``Expect``). The rest
is the same for every fault, and ``Trial.survive`` does it:

(a) no read ever blocks or raises, and the event loop is never held up;
(b) every call that is awaited meanwhile ends within its timeout;
(c) the listener is deaf no longer than promised once the fault has passed, and then the mirror equals Redis;
(d) no report that was accepted meanwhile is lost, each is one event, shortened by the time that passed;
(e) ``health`` and the log tell the truth before, during and after, and tell it once.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

import redis

from rate_coordinator import (
    CoordinatorUnavailable,
    LimitWaitTimeout,
    RateLimitCoordinator,
    ReportResult,
    ServerUnsuitable,
)
from rate_coordinator.keys import Keys
from tests.metronome import Metronome
from tests.servers import RedisServer, eventually

NAMESPACE = "test"
SECRET = "s3cret-pass"
QUICK: dict[str, Any] = {"connect_timeout": 1.0, "command_timeout": 0.5, "ping_interval": 0.2, "ping_timeout": 0.5}
"""The same mechanisms as with the defaults, in a tenth of the time."""

DEAF_SECONDS = 5.0
"""After the server or the network is back, a listener hears again within this."""
READ_SECONDS = 0.1
STALL_SECONDS = 0.25
"""Anything that waited would take longer; what the machine itself stood still is not counted, see ``Metronome``."""
GRACE_SECONDS = 0.5
"""So much later than its timeout a call may end, likewise."""
CLOCK_SECONDS = 0.2
"""Within this, and the one call that it is on its way, a delivered report counts from when it was made."""

Step = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Expect:
    """What is special about a fault."""

    degraded: bool = True
    """Whether it is one that health has to show while it lasts."""
    within: float = 3.0
    """Health has to show it within so many seconds."""
    says: str = ""
    """What ``health.last_error`` has to say then, as a regular expression."""
    lasts: float = 1.0
    """Seconds from the moment that it shows until it passes: more than a report that was not shortened may be late."""
    keeps_data: bool = True
    """Whether what Redis held before is still there afterwards."""
    deaf: float = DEAF_SECONDS
    """The listener hears again within so many seconds after it has passed."""
    stalls: float = 0.0
    """A call on its way may be carried out so much later, unshortened: the server had it and slept on it."""
    heals: bool = False
    """Whether the coordinator gets over it before anything else happens."""
    brief: bool = False
    """Whether it passes by itself, perhaps before the test looks whether it lasts."""
    warnings: int | None = None
    """How many warnings there are at most; exactly one if health shows it and none otherwise, if left out."""
    relapses: int = 0
    """How many more times the connection may be lost after it has passed, as when a woken server steps back."""


@dataclass
class Made:
    """A report that was made during the fault."""

    number: int
    wait_seconds: float
    made_at: float
    result: ReportResult


@dataclass
class Outcome:
    """What was measured."""

    fault: str
    shown_after: float = 0.0
    """From the fault to ``degraded``, in seconds."""
    longest_call: float = 0.0
    hears_after: float = 0.0
    """From the end of the fault until the listener heard of a change that somebody made then."""
    delivers_after: float = 0.0
    """From the end of the fault until everything that was kept is delivered."""
    longest_read: float = 0.0
    longest_stall: float = 0.0
    reads: int = 0
    reports: int = 0
    kept: int = 0

    def __str__(self) -> str:
        return (
            f"{self.fault:<58} shown {self.shown_after:5.2f} s  hears {self.hears_after:5.2f} s  delivers "
            f"{self.delivers_after:5.2f} s  longest call {self.longest_call:4.2f} s  kept {self.kept}/{self.reports}  "
            f"read {self.longest_read * 1e3:5.1f} ms  stall {self.longest_stall * 1e3:5.1f} ms of {self.reads}"
        )


_elsewhere: ContextVar[bool] = ContextVar("elsewhere", default=False)
"""Whether the present task is that of another process, as it were, whose log is none of ours."""


class Records(logging.Handler):
    """Everything that the library logs for the coordinator of the trial."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not _elsewhere.get():
            self.records.append(record)

    def at_least(self, level: int) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= level]

    def everything(self) -> str:
        return "\n".join(repr(vars(record)) for record in self.records)


@dataclass
class Reader:
    """Reads without a pause, and keeps the longest read and the longest time that the event loop was held up."""

    coordinator: RateLimitCoordinator
    longest_read: float = 0.0
    longest_stall: float = 0.0
    reads: int = 0
    failures: list[Exception] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                await self.coordinator.is_rate_limited("before")
                await self.coordinator.is_rate_limited("unknown", f"m{self.reads % 50}")
                _ = self.coordinator.active_limits, self.coordinator.health
            except Exception as error:
                self.failures.append(error)
            ended = time.perf_counter()
            self.longest_read = max(self.longest_read, ended - began)
            self.reads += 1
            await asyncio.sleep(0.002)
            self.longest_stall = max(self.longest_stall, time.perf_counter() - ended - 0.002)


class Trial:
    """A coordinator, a server, and a fault between or in them.

    Args:
        server: Where the limits are.
        url: Where the coordinator connects: a proxy, a name; the server itself if left out.
        direct: Where another process connects: past a proxy. The server itself if left out.
        settings: Of the coordinator; ``QUICK`` if left out.
    """

    def __init__(
        self,
        server: RedisServer,
        url: str | None = None,
        direct: str | None = None,
        **settings: Any,
    ) -> None:
        self.server = server
        """Where the limits are now; a test replaces it when another one takes over."""
        self.settings = settings or QUICK
        self.records = Records()
        self.made: list[Made] = []
        self.subject = RateLimitCoordinator.from_url(url or server.url, NAMESPACE, **self.settings)
        self.reader = Reader(self.subject)
        self._metronome = Metronome()
        self._url = url or server.url
        self._direct = direct or self._past_any_proxy()
        self._keys = Keys(NAMESPACE)
        self._changes = 0
        self._numbers = iter(range(10**6))

    @property
    def admin(self) -> redis.Redis:
        """A client for looking behind the library's back."""
        return self.server.admin

    async def __aenter__(self) -> Self:
        self._logger = logging.getLogger("rate_coordinator")
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self.records)
        # A machine that stands still for a moment is no fault of theirs.
        await eventually(self._started)
        await self.subject.report_rate_limit("before", 600.0)
        await self.subject.hold("held", 600.0, "by hand")
        await self._change_when_possible()
        await eventually(lambda: self.mirror() == self.in_redis())
        self._metronome.__enter__()
        self._reading = asyncio.create_task(self.reader.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        began = time.monotonic()
        await self.subject.aclose()
        closed_within = time.monotonic() - began
        self._logger.removeHandler(self.records)
        self._logger.setLevel(self._level)
        self._metronome.__exit__()
        assert closed_within < self._longest("command_timeout") + self._grace

    async def survive(self, fault: str, happens: Step, passes: Step, expect: Expect | None = None) -> Outcome:
        """Live through a fault.

        Args:
            fault: Its name, for the table of what was measured.
            happens: Makes it happen.
            passes: Makes it pass.
            expect: What is special about it.
        """
        expect = expect or Expect()
        outcome = Outcome(fault)
        self._check_calm()
        before = self.mirror()
        began = time.monotonic()
        await happens()
        # All at once: what the first finds out, the others do not have to wait for.
        first, outcome.shown_after, outcome.longest_call = await asyncio.gather(
            self._report(), self._shown(began, expect), self._try_every_call()
        )
        self.made += [first, *[await self._report() for _ in range(3)]]
        await asyncio.sleep(expect.lasts)
        self._check_health(expect, time.monotonic() - began)
        assert expect.keeps_data is False or set(before) <= set(self.subject.active_limits)
        outcome.kept = self.subject.health.reports_buffered

        await passes()
        back = time.monotonic()
        change = f"change{self._changes + 1}"
        changing = asyncio.create_task(self._change_when_possible())
        try:
            (outcome.hears_after, outcome.delivers_after) = await asyncio.gather(
                self._until(back, lambda: change in self.mirror(), expect),
                self._until(back, lambda: not self.subject.health.reports_buffered, expect),
            )
            await eventually(lambda: self.subject.health.state == "connected")
            await eventually(lambda: self.mirror() == self.in_redis())
        finally:
            changing.cancel()
            await asyncio.wait([changing])
        if expect.keeps_data:
            assert before.items() <= self.mirror().items()
            assert [limit.note for limit in self.subject.limits if limit.held_until == limit.resume_at] == ["by hand"]
        self._check_reports(expect, stood_still=back - began)
        self._check_after(expect)
        outcome.longest_read, outcome.longest_stall = self.reader.longest_read, self.reader.longest_stall
        outcome.reads, outcome.reports = self.reader.reads, len(self.made)
        print(f"\n{outcome}", end="")
        assert self.reader.failures == []
        assert outcome.longest_read < READ_SECONDS + self._metronome.longest_stall
        assert outcome.longest_stall < STALL_SECONDS + self._metronome.longest_stall
        return outcome

    async def _started(self) -> bool:
        try:
            await self.subject.start()
        except CoordinatorUnavailable:
            return False
        return True

    async def change(self) -> None:
        """Limit another target, as another process would."""
        token = _elsewhere.set(True)
        try:
            async with RateLimitCoordinator.from_url(self._direct, NAMESPACE, **QUICK) as other:
                if (await other.report_rate_limit(f"change{self._changes + 1}", 600.0)).delivered:
                    self._changes += 1
        finally:
            _elsewhere.reset(token)

    async def _shown(self, began: float, expect: Expect) -> float:
        if not expect.degraded:
            return 0.0
        await eventually(lambda: self.subject.health.state == "degraded", within=expect.within)
        return time.monotonic() - began

    def mirror(self) -> dict[str, int]:
        """Return what the coordinator holds, in milliseconds of the server's clock."""
        return {str(limit.target): round(limit.resume_at.timestamp() * 1000) for limit in self.subject.limits}

    def in_redis(self) -> dict[str, int]:
        """Return what Redis holds."""
        now_seconds, microseconds = self.admin.time()
        now_ms = now_seconds * 1000 + microseconds // 1000
        active: Any = self.admin.zrangebyscore(self._keys.active, now_ms, "+inf", withscores=True)
        return {target: int(resume_at_ms) for target, resume_at_ms in active}

    def _past_any_proxy(self) -> str:
        password = self.admin.connection_pool.connection_kwargs.get("password")
        login = f":{password}@" if password else ""
        return f"redis://{login}127.0.0.1:{self.server.port}"

    async def _change_when_possible(self) -> None:
        changes = self._changes
        while self._changes == changes:
            try:
                await self.change()
            except (CoordinatorUnavailable, ServerUnsuitable):
                await asyncio.sleep(0.01)

    async def _until(self, back: float, condition: Callable[[], object], expect: Expect) -> float:
        await eventually(condition, within=expect.deaf)
        return time.monotonic() - back

    def _longest(self, name: str) -> float:
        return float(self.settings.get(name, 5.0))

    @property
    def _grace(self) -> float:
        return GRACE_SECONDS + self._metronome.longest_stall

    def _check_calm(self) -> None:
        health = self.subject.health
        assert (health.state, health.last_error, health.degraded_seconds) == ("connected", None, 0.0)
        assert (health.reports_buffered, health.reports_dropped) == (0, 0)
        assert self.records.at_least(logging.WARNING) == []
        self.records.records.clear()

    async def _report(self) -> Made:
        number = next(self._numbers)
        wait_seconds = 60.0 + number
        made_at = time.time()
        began = time.monotonic()
        result = await self.subject.report_rate_limit(f"during{number}", wait_seconds, sheet_num=number)
        assert time.monotonic() - began < self._longest("command_timeout") + self._grace
        assert (await self.subject.is_rate_limited(f"during{number}"))[0], "read your writes, delivered or not"
        return Made(number, wait_seconds, made_at, result)

    async def _try_every_call(self) -> float:
        subject = self.subject
        within = self._longest("command_timeout")

        async def start() -> None:
            _elsewhere.set(True)
            other = RateLimitCoordinator.from_url(self._url, NAMESPACE, **self.settings)
            try:
                await other.start()
            finally:
                await other.aclose()

        async def listen() -> None:
            async with subject.notices() as notices, asyncio.timeout(0.1):
                await anext(notices)

        calls: dict[str, tuple[Awaitable[object], float]] = {
            "start": (start(), self._longest("connect_timeout")),
            "clear": (subject.clear_limits("nothing of that name"), within),
            "refresh": (subject.refresh(), within),
            "events": (subject.events(count=5), within),
            "prune": (subject.prune_stale(), within),
            "explain": (subject.explain("before"), within),
            "wait": (subject.wait_until_clear("before", timeout=0.1), 0.1),
            "wait any": (subject.wait_until_any_clear(["before", "clear"]), 0.1),
            "listen": (listen(), 0.1),
        }
        # Each in a task and so in a context of its own.
        took = await asyncio.gather(*(self._timed(name, call, most) for name, (call, most) in calls.items()))
        return max(took)

    async def _timed(self, name: str, call: Awaitable[object], within: float) -> float:
        began = time.monotonic()
        # Nothing else may come out; what it is, health tells.
        with suppress(CoordinatorUnavailable, ServerUnsuitable, LimitWaitTimeout, TimeoutError):
            await call
        took = time.monotonic() - began
        assert took < within + self._grace, f"{name} took {took:.2f} s"
        return took

    def _check_health(self, expect: Expect, since: float) -> None:
        health = self.subject.health
        undelivered = [made for made in self.made if not made.result.delivered]
        if expect.heals:
            assert undelivered == []
        elif expect.degraded and expect.brief and health.state == "connected":
            assert health.degraded_seconds == 0.0
        elif expect.degraded:
            assert health.state == "degraded"
            assert expect.lasts - 0.1 <= health.degraded_seconds <= since
            assert re.search(expect.says, health.last_error or ""), health.last_error
            assert health.reports_buffered <= len(undelivered)
        else:
            assert undelivered == []
            assert (health.state, health.degraded_seconds) == ("connected", 0.0)
        assert health.reports_dropped == 0

    def _check_reports(self, expect: Expect, stood_still: float) -> None:
        """Each is one event, none is lost, and its limit ends when it was to end when it was made.

        What a server that stood still carried out when it was woken is put back after it has stepped back: beside the
        report itself, which went to its successor as well, or in its place. It counts from when it was carried out.
        """
        entries: Any = self.admin.xrange(self._keys.events)
        latest = CLOCK_SECONDS + self._longest("command_timeout") + self._metronome.longest_stall + expect.stalls
        for made in self.made:
            events = [
                (_lifts_at(entry_id, fields), '"restores"' in fields["details"])
                for entry_id, fields in entries
                if fields["kind"] == "report" and f'"sheet_num":{made.number},' in fields["details"]
            ]
            put_back = sum(restores for _, restores in events)
            reported = len(events) - put_back
            said = f"report {made.number} of {len(self.made)} is {reported} events and was put back {put_back} times"
            assert reported == 1 or (reported, put_back) == (0, 1), said
            for lifts_at, restores in events:
                late = lifts_at - (made.made_at + made.wait_seconds)
                allowed = latest + (stood_still if restores else 0.0)
                assert -0.01 < late < allowed, f"report {made.number} ends {late:.2f} s late"
        health = self.subject.health
        assert (health.reports_buffered, health.reports_dropped) == (0, 0)

    def _check_after(self, expect: Expect) -> None:
        health = self.subject.health
        assert (health.state, health.degraded_seconds) == ("connected", 0.0)
        warnings = self.records.at_least(logging.WARNING)
        if expect.warnings is None:
            assert len(warnings) == int(expect.degraded), warnings
        else:
            assert len(warnings) <= expect.warnings + expect.relapses, warnings
        recovered = [said for said in self.records.at_least(logging.INFO) if said == "Redis is heard and written again"]
        assert 0 <= len(recovered) - int(expect.degraded) <= expect.relapses
        said = self.records.at_least(logging.INFO)
        assert len(said) <= 3 + 2 * expect.relapses, said
        assert SECRET not in self.records.everything() + repr(health)


def _lifts_at(entry_id: str, fields: dict[str, str]) -> float:
    return (int(entry_id.partition("-")[0]) + int(fields["wait_ms"])) / 1000


@asynccontextmanager
async def trial(
    server: RedisServer, url: str | None = None, direct: str | None = None, **settings: Any
) -> AsyncIterator[Trial]:
    """Give a trial that has begun."""
    async with Trial(server, url, direct, **settings) as begun:
        yield begun
