"""One real call finds out for the whole fleet whether a target is open: after every stop, and during long limits."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import pytest

from rate_coordinator import LimitWaitTimeout, Notice, RateLimitCoordinator, RateLimited
from rate_coordinator.pacestate import PROBE_LEASE_MS
from rate_coordinator.targets import Target
from tests.conftest import NEWEST, Make, Place
from tests.servers import RedisServer, eventually
from tests.worker import Worker

OPENAI = Target("openai")
STOP_SECONDS = 0.2
LONG_SECONDS = 600.0
QUIET_SECONDS = 0.3
"""Who is let through although it should not is let through within this."""


@dataclass
class Upstream:
    """Remembers who calls it, and answers when and as the test says."""

    begun: int = 0
    under_way: int = 0
    most: int = 0
    answers: list[str] = field(default_factory=list)
    """What the next calls are told, in order; those after them wait for ``release``."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    served: int = 0
    times: list[float] = field(default_factory=list)
    caller: asyncio.Task[Any] | None = None
    """Who called last."""

    @property
    def pauses(self) -> list[float]:
        """Seconds from each call to the next."""
        return [later - earlier for earlier, later in itertools.pairwise(self.times)]

    @contextmanager
    def called(self) -> Iterator[None]:
        self.begun += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.times.append(time.monotonic())
        self.caller = asyncio.current_task()
        try:
            yield
        finally:
            self.under_way -= 1

    async def call(self, wait_seconds: float = STOP_SECONDS) -> None:
        """Be called."""
        with self.called():
            answer = self.answers.pop(0) if self.answers else ""
            await asyncio.sleep(0)
            if answer == "refused":
                raise RateLimited(wait_seconds)
            if answer == "broken":
                raise ConnectionResetError("nothing to do with limits")
            if not answer:
                await self.released.wait()
            self.served += 1


class Fleet:
    """Calls of several coordinators that all wait to reach one upstream."""

    def __init__(self, *coordinators: RateLimitCoordinator, calls: int = 5, model: str | None = None) -> None:
        self.coordinators = coordinators
        self.calls = calls
        self.model = model
        self.upstream = Upstream()
        self.tasks: list[asyncio.Task[None]] = []

    async def _call(self, coordinator: RateLimitCoordinator) -> None:
        with suppress(ConnectionResetError):
            await coordinator.call("openai", self.upstream.call, model=self.model, attempts=1000)

    async def __aenter__(self) -> Self:
        for coordinator in self.coordinators:
            self.tasks += [asyncio.create_task(self._call(coordinator)) for _ in range(self.calls)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def let_through(self, count: int) -> None:
        """Wait until so many calls were let through, and see that no more are."""
        await eventually(lambda: self.upstream.begun >= count)
        await asyncio.sleep(QUIET_SECONDS)
        assert self.upstream.begun == count

    async def all_served(self) -> None:
        self.upstream.released.set()
        await eventually(lambda: all(task.done() for task in self.tasks), within=20)


async def by_a_refused_call(coordinator: RateLimitCoordinator) -> None:
    for _ in range(20):
        async with coordinator.admit("openai"):
            pass
    async with coordinator.admit("openai") as call:
        await call.limited(STOP_SECONDS)


async def by_a_report(coordinator: RateLimitCoordinator) -> None:
    await coordinator.report_rate_limit("openai", STOP_SECONDS)


async def by_a_quota(coordinator: RateLimitCoordinator) -> None:
    await coordinator.report_rate_limit("openai", STOP_SECONDS, reason="quota")


async def by_a_quota_where_a_pace_is_kept(coordinator: RateLimitCoordinator) -> None:
    await by_a_refused_call(coordinator)
    await coordinator.wait_until_clear("openai")
    async with coordinator.admit("openai"):
        pass
    await by_a_quota(coordinator)


Stop = Callable[[RateLimitCoordinator], Awaitable[None]]
each_stop = pytest.mark.parametrize(
    "stop",
    [by_a_refused_call, by_a_report, by_a_quota, by_a_quota_where_a_pace_is_kept],
    ids=lambda stop: stop.__name__,
)


def is_limited(coordinator: RateLimitCoordinator, name: str) -> bool:
    return name in coordinator.active_limits


def is_clear(coordinator: RateLimitCoordinator) -> bool:
    return not coordinator.active_limits


def knows_of_it(coordinator: RateLimitCoordinator) -> bool:
    return is_limited(coordinator, "openai") or bool(coordinator.health.paces)


async def stopped(stop: Stop, one: RateLimitCoordinator, *others: RateLimitCoordinator) -> None:
    await stop(one)
    for other in others:
        await eventually(partial(knows_of_it, other))


@each_stop
async def test_after_a_stop_one_call_goes_first_and_the_others_follow_when_it_was_served(
    place: Place, make: Make, stop: Stop
) -> None:
    """P18 P20 P51: nobody trusts that the told time is kept."""
    one, two = await make(), await make()
    await stopped(stop, one, two)
    async with Fleet(one, two) as fleet:
        await fleet.let_through(1)
        await fleet.all_served()

    assert fleet.upstream.served == 10


@each_stop
async def test_if_the_first_call_after_a_stop_is_refused_the_others_are_never_let_go(
    real: Place, make: Make, stop: Stop
) -> None:
    """P18 P24."""
    one, two = await make(), await make()
    await stopped(stop, one, two)
    async with Fleet(one, two) as fleet:
        fleet.upstream.answers = ["refused"] * 3
        await fleet.let_through(4)
        assert fleet.upstream.most == 1
        assert min(fleet.upstream.pauses) >= STOP_SECONDS - 0.05
        await fleet.all_served()


async def test_a_first_call_that_is_cancelled_or_fails_for_another_reason_hands_over_to_the_next(
    real: Place, make: Make
) -> None:
    """P22."""
    one, two = await make(), await make()
    await stopped(by_a_report, one, two)
    async with Fleet(one, two) as fleet:
        fleet.upstream.answers = ["broken"] * 2
        await fleet.let_through(3)
        assert fleet.upstream.most == 1
        assert fleet.upstream.caller
        fleet.upstream.caller.cancel()
        await fleet.let_through(4)
        assert fleet.upstream.most == 1
        await fleet.all_served()


async def test_who_comes_while_the_first_call_is_under_way_waits_as_well(real: Place, make: Make) -> None:
    one = await make()
    await by_a_report(one)
    async with Fleet(one, calls=1) as fleet:
        await fleet.let_through(1)
        late = await make()
        async with Fleet(late) as others:
            await others.let_through(0)
            await fleet.all_served()
            await others.all_served()


async def test_a_call_that_gives_up_while_it_waits_for_the_first_one_changes_nothing(real: Place, make: Make) -> None:
    coordinator = await make()
    await by_a_report(coordinator)
    async with Fleet(coordinator) as fleet:
        await fleet.let_through(1)
        with pytest.raises(LimitWaitTimeout):
            async with coordinator.admit("openai", timeout=0.05):
                raise AssertionError("it must not be admitted")
        await fleet.let_through(1)
        await fleet.all_served()


async def test_a_first_call_that_takes_very_long_and_is_not_refused_holds_nobody_for_ever(
    real: Place, make: Make
) -> None:
    """P25: whoever is not refused for some seconds will not be, and a language model may take minutes."""
    coordinator = await make()
    await by_a_report(coordinator)
    async with Fleet(coordinator, calls=3) as fleet:
        await eventually(lambda: fleet.upstream.begun == 1)
        await eventually(lambda: fleet.upstream.begun == 3, within=15)
        first, second, _ = fleet.upstream.times
        assert second - first > 4.5


# While a limit lasts.

VERIFY_SECONDS = 0.3


async def limited_for_long(
    one: RateLimitCoordinator, *others: RateLimitCoordinator, seconds: float = LONG_SECONDS, model: str | None = None
) -> None:
    assert (await one.report_rate_limit("openai", seconds, model=model)).delivered
    name = str(Target("openai", model))
    for other in others:
        await eventually(partial(is_limited, other, name))


@pytest.mark.parametrize("clamped", [False, True], ids=["long", "clamped"])
async def test_a_long_limit_is_tried_by_one_call_at_a_time_until_one_is_served_and_then_lifted_for_all(
    place: Place, make: Make, clamped: bool
) -> None:
    """P05 P25 P51: five hours were told; a cap, or that it came back earlier, does no harm."""
    settings: dict[str, Any] = {"verify_every": VERIFY_SECONDS, "max_wait_seconds": 60.0 if clamped else LONG_SECONDS}
    one, two = await make(**settings), await make(**settings)
    heard: list[Notice] = []
    two.on_notice(heard.append)
    await limited_for_long(one, two, seconds=18_000.0 if clamped else LONG_SECONDS)
    async with Fleet(one, two) as fleet:
        fleet.upstream.answers = ["refused"] * 3 + ["served"]
        fleet.upstream.released.set()
        await eventually(lambda: all(task.done() for task in fleet.tasks), within=20)

    assert fleet.upstream.served == 10
    assert min(fleet.upstream.pauses[:3]) >= VERIFY_SECONDS - 0.02, "at most one call for the whole fleet in that time"
    for coordinator in (one, two):
        await eventually(partial(is_clear, coordinator))
    await eventually(lambda: any(notice.kind == "clear" for notice in heard))
    clear = next(notice for notice in heard if notice.kind == "clear")
    assert (clear.target, clear.probe) == (OPENAI, "served")
    assert [(event.kind, event.probe) for event in await one.events() if event.kind == "clear"] == [("clear", "served")]
    assert one.health.notices_missed == two.health.notices_missed == 0
    (pace,) = (await make()).health.paces
    assert pace.backend == "openai", "it starts at a pace that newcomers keep to as well"


async def test_while_one_call_tries_a_long_limit_nobody_else_does(real: Place, make: Make) -> None:
    """P20."""
    one, two = await make(verify_every=VERIFY_SECONDS), await make(verify_every=VERIFY_SECONDS)
    await limited_for_long(one, two)
    async with Fleet(one, two) as fleet:
        await fleet.let_through(1)
        assert (await one.is_rate_limited("openai"))[0], "for everyone else it is limited as before"
        await asyncio.sleep(4 * VERIFY_SECONDS)
        await fleet.let_through(1)
        await fleet.all_served()


async def test_nobody_tries_a_limit_that_is_not_long_or_where_that_is_off(real: Place, make: Make) -> None:
    """P50."""
    off, patient = await make(verify_every=0), await make(verify_every=LONG_SECONDS)
    await limited_for_long(off, patient)
    async with Fleet(off, patient) as fleet:
        await fleet.let_through(0)
        with pytest.raises(LimitWaitTimeout):
            async with patient.admit("openai", timeout=1.0):
                raise AssertionError("it must not be admitted")
        await off.clear_limits()
        await fleet.all_served()


async def test_a_call_that_may_try_the_limit_does_so_however_short_its_timeout_is(real: Place, make: Make) -> None:
    coordinator = await make(verify_every=VERIFY_SECONDS)
    await limited_for_long(coordinator)
    with pytest.raises(LimitWaitTimeout):
        async with coordinator.admit("openai", timeout=10.0):
            raise AssertionError("it must not be admitted")
    await asyncio.sleep(2 * VERIFY_SECONDS)

    async with coordinator.admit("openai", timeout=10.0):
        assert (await coordinator.is_rate_limited("openai"))[0]

    assert await coordinator.is_rate_limited("openai") == (False, 0.0)


async def test_a_try_that_is_cancelled_or_fails_for_another_reason_leaves_the_limit_and_hands_over(
    real: Place, make: Make
) -> None:
    """P22."""
    one, two = await make(verify_every=VERIFY_SECONDS), await make(verify_every=VERIFY_SECONDS)
    await limited_for_long(one, two)
    async with Fleet(one, two) as fleet:
        fleet.upstream.answers = ["broken"]
        await eventually(lambda: fleet.upstream.begun == 2, within=10)
        assert "openai" in one.active_limits
        assert fleet.upstream.caller
        fleet.upstream.caller.cancel()
        await eventually(lambda: fleet.upstream.begun == 3, within=10)
        assert fleet.upstream.most == 1
        assert "openai" in two.active_limits
        await fleet.all_served()


async def test_a_limit_that_somebody_renewed_meanwhile_is_not_lifted_by_an_older_try(real: Place, make: Make) -> None:
    """P21: the newer knowledge counts."""
    one, two = await make(verify_every=VERIFY_SECONDS), await make(verify_every=0)
    await limited_for_long(one, two)
    async with Fleet(one, calls=1) as fleet:
        await fleet.let_through(1)
        await two.report_rate_limit("openai", 2 * LONG_SECONDS)
        await fleet.all_served()
    limited, seconds = await two.is_rate_limited("openai")

    assert limited
    assert seconds > LONG_SECONDS


async def test_a_clear_while_a_call_tries_the_limit_opens_it_for_all(real: Place, make: Make) -> None:
    coordinator = await make(verify_every=VERIFY_SECONDS)
    await limited_for_long(coordinator)
    async with Fleet(coordinator) as fleet:
        await fleet.let_through(1)
        assert await coordinator.clear_limits("openai") == 1
        await eventually(lambda: fleet.upstream.begun == 5)
        await fleet.all_served()
    assert await coordinator.is_rate_limited("openai") == (False, 0.0)


@pytest.mark.parametrize("limited", [("gpt",), (None,), (None, "gpt")], ids=["model", "backend", "both"])
async def test_a_models_call_tries_its_own_limit_and_that_of_its_backend(
    real: Place, make: Make, limited: tuple[str | None, ...]
) -> None:
    one, two = await make(verify_every=VERIFY_SECONDS), await make(verify_every=VERIFY_SECONDS)
    for model in limited:
        await limited_for_long(one, two, model=model)
    async with Fleet(one, two, model="gpt") as fleet:
        await fleet.let_through(1)
        assert len(two.active_limits) == len(limited)
        await fleet.all_served()
    await eventually(lambda: not two.active_limits)


async def test_a_model_of_which_the_backends_limit_is_not_long_is_not_tried(real: Place, make: Make) -> None:
    coordinator = await make(verify_every=5.0)
    await limited_for_long(coordinator, model="gpt", seconds=6.0)
    await coordinator.report_rate_limit("openai", 4.0)
    async with Fleet(coordinator, model="gpt") as fleet:
        await fleet.let_through(0)
        await coordinator.clear_limits("openai")
        await fleet.all_served()


# Who dies.


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(NEWEST.path) as server:
        yield server


async def test_when_the_process_that_makes_the_first_call_is_killed_the_next_goes_after_the_lease(
    server: RedisServer,
) -> None:
    """P19."""
    async with (
        Worker(server.url, "test", verify_every=VERIFY_SECONDS) as doomed,
        RateLimitCoordinator.from_url(server.url, "test", verify_every=VERIFY_SECONDS) as coordinator,
    ):
        await limited_for_long(coordinator)
        await doomed.do("limited", "openai")
        await doomed.do("hold_a_call", "openai")
        async with Fleet(coordinator) as fleet:
            await asyncio.sleep(2 * PROBE_LEASE_MS / 1000)
            assert fleet.upstream.begun == 0, "it lives, however long its call takes"
            doomed.signal(signal.SIGKILL)
            killed_at = time.monotonic()
            await eventually(lambda: fleet.upstream.begun == 1, within=10)
            assert time.monotonic() - killed_at < PROBE_LEASE_MS / 1000 + 2
            await fleet.let_through(1)
            await fleet.all_served()


async def test_whatever_becomes_of_them_two_calls_never_try_a_limit_at_once(server: RedisServer) -> None:
    """P20 P22: eight coordinators, tries that are refused, break, are cancelled and come to nothing."""
    rng = random.Random(20)
    async with AsyncExitStack() as stack:
        fleet = [
            await stack.enter_async_context(
                RateLimitCoordinator.from_url(server.url, "test", verify_every=0.02, reporter=f"c{number}")
            )
            for number in range(8)
        ]
        await limited_for_long(*fleet)
        upstream = Upstream()
        until = time.monotonic() + 5

        async def work(coordinator: RateLimitCoordinator) -> None:
            while time.monotonic() < until:
                with suppress(ConnectionResetError, TimeoutError, RateLimited):
                    async with asyncio.timeout(rng.choice([0.01, 0.1, 1.0])), coordinator.admit("openai"):
                        with upstream.called():
                            await asyncio.sleep(rng.random() * 0.02)
                            if rng.random() < 0.1:
                                raise ConnectionResetError
                            raise RateLimited(LONG_SECONDS)

        await asyncio.gather(*(work(coordinator) for coordinator in fleet for _ in range(5)))

        assert upstream.begun >= 5
        assert upstream.most == 1
