"""tenacity, as it is installed, retries at the resume time that a whole fleet shares."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

import httpx
import pytest
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    RetryError,
    Retrying,
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    wait_fixed,
)

from rate_coordinator import CoordinatorMisuse, LimitWaitTimeout, RateLimitCoordinator, RateLimited, sync
from rate_coordinator.answers import Answer
from rate_coordinator.integrations.tenacity import (
    read_outcome,
    retry_if_limited,
    stop_not_counting_limits,
    wait_coordinated,
)
from rate_coordinator.testing import RateLimits, SyncRateLimits
from tests.conftest import Make, Place
from tests.integrations.upstream import Upstream, refused
from tests.servers import eventually

pytest_plugins = ["rate_coordinator.testing"]


@dataclass
class Calls:
    """Raises or returns one outcome after the other, and then "done"."""

    outcomes: list[object] = field(default_factory=list)
    made: int = 0

    def make(self) -> object:
        self.made += 1
        outcome = self.outcomes.pop(0) if self.outcomes else "done"
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def amake(self) -> object:
        return self.make()


def response(status: int, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, request=httpx.Request("GET", "http://upstream"))


def error(status: int, **headers: str) -> httpx.HTTPStatusError:
    answered = response(status, **headers)
    return httpx.HTTPStatusError("refused", request=answered.request, response=answered)


# What is tried again.


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (error(429, retry_after="7"), True),
        (error(503, retry_after="7"), True),
        (response(429), True),
        (RateLimited(7), True),
        (error(500), False),
        (error(403), False),
        (OSError("refused"), False),
        (response(200), False),
        ({"status": 429}, False),
        (None, False),
    ],
    ids=repr,
)
async def test_only_what_was_refused_because_of_a_limit_is_tried_again(outcome: object, again: bool) -> None:
    calls = Calls([outcome])
    trying = AsyncRetrying(retry=retry_if_limited(), reraise=True)
    result: object
    try:
        result = await trying(calls.amake)
    except Exception as raised:
        result = raised
    assert (calls.made, result) == ((2, "done") if again else (1, outcome))


async def test_a_cancelled_attempt_is_not_tried_again(rate_limits: RateLimits) -> None:
    calls = Calls([asyncio.CancelledError()])
    wait = wait_coordinated(rate_limits.coordinator, "openai")
    with pytest.raises(asyncio.CancelledError):
        await AsyncRetrying(retry=retry_if_limited(), wait=wait)(calls.amake)
    assert calls.made == 1
    assert rate_limits.coordinator.active_limits == {}


def test_a_function_may_say_what_a_refusal_is() -> None:
    def read(outcome: object) -> Answer:
        return Answer(limited=outcome == "busy")

    calls = Calls(["busy", "busy"])
    assert Retrying(retry=retry_if_limited(read=read))(calls.make) == "done"
    assert calls.made == 3
    assert not read_outcome("busy").limited


# Async.


async def test_a_refusal_is_reported_and_tried_again_when_the_limit_lifts(rate_limits: RateLimits) -> None:
    calls = Calls([error(429, retry_after="30")])
    wait = wait_coordinated(rate_limits.coordinator, "openai")

    @retry(retry=retry_if_limited(), wait=wait, sleep=wait.sleep)
    async def call() -> object:
        return await calls.amake()

    calling: asyncio.Task[object] = asyncio.create_task(call())
    await rate_limits.advance(29)
    assert rate_limits.coordinator.active_limits == {"openai": 1.0}
    assert calls.made == 1
    await rate_limits.advance(1)
    assert await calling == "done"
    assert [event.suggested_wait_seconds for event in await rate_limits.coordinator.events()] == [30.0]


async def test_the_sleep_is_longer_when_the_limit_is_extended_and_over_when_it_is_cleared(
    rate_limits: RateLimits,
) -> None:
    calls = Calls([error(429, retry_after="30"), error(429, retry_after="1000")])
    wait = wait_coordinated(rate_limits.coordinator, "openai")
    trying = AsyncRetrying(retry=retry_if_limited(), wait=wait, sleep=wait.sleep)
    calling: asyncio.Task[object] = asyncio.create_task(trying(calls.amake))
    await rate_limits.advance(20)
    await rate_limits.limit("openai", 60)
    await rate_limits.advance(59)
    assert calls.made == 1
    await rate_limits.advance(1)
    assert calls.made == 2
    await rate_limits.clear("openai")
    await rate_limits.advance(0)
    assert await calling == "done"


async def test_before_holds_the_first_attempt_of_whoever_comes_while_the_backend_is_limited(
    rate_limits: RateLimits,
) -> None:
    calls = Calls()
    await rate_limits.limit("openai", 30)
    wait = wait_coordinated(rate_limits.coordinator, "openai")
    calling: asyncio.Task[object] = asyncio.create_task(AsyncRetrying(wait=wait, before=wait.before)(calls.amake))
    await rate_limits.advance(29)
    assert calls.made == 0
    await rate_limits.advance(1)
    assert await calling == "done"

    await rate_limits.limit("openai", 30)
    impatient = wait_coordinated(rate_limits.coordinator, "openai", timeout=5)
    with pytest.raises(LimitWaitTimeout):
        await AsyncRetrying(wait=impatient, before=impatient.before)(calls.amake)


async def test_what_failed_for_another_reason_waits_as_the_fallback_says_and_reports_nothing(
    rate_limits: RateLimits,
) -> None:
    waits: list[float] = []
    calls = Calls([OSError(), error(429, retry_after="0"), OSError()])
    wait = wait_coordinated(rate_limits.coordinator, "openai", fallback=wait_fixed(0.02))
    trying = AsyncRetrying(
        retry=retry_if_limited() | retry_if_exception_type(OSError),
        wait=wait,
        sleep=wait.sleep,
        before_sleep=lambda state: waits.append(state.upcoming_sleep),
    )
    assert await trying(calls.amake) == "done"
    assert waits == [0.02, 0.0, 0.02]
    assert len(await rate_limits.coordinator.events()) == 1


async def test_the_last_refusal_is_reported_as_well_and_not_waited_for(rate_limits: RateLimits) -> None:
    calls = Calls([error(429, retry_after="30")])
    wait = wait_coordinated(rate_limits.coordinator, "openai")
    trying = AsyncRetrying(retry=retry_if_limited(), wait=wait, sleep=wait.sleep, stop=stop_after_attempt(1))
    with pytest.raises(RetryError):
        await asyncio.wait_for(trying(calls.amake), 20)
    assert rate_limits.coordinator.active_limits == {"openai": 30.0}


async def test_a_strategy_that_stops_before_a_wait_knows_how_long_it_is(rate_limits: RateLimits) -> None:
    calls = Calls([error(429, retry_after="30")])
    wait = wait_coordinated(rate_limits.coordinator, "openai")
    trying = AsyncRetrying(
        retry=retry_if_limited(), wait=wait, sleep=wait.sleep, stop=stop_before_delay(29), reraise=True
    )
    with pytest.raises(httpx.HTTPStatusError):
        await asyncio.wait_for(trying(calls.amake), 20)
    assert calls.made == 1


async def test_a_refusal_that_tells_no_wait_is_waited_for_as_long_as_is_guessed(rate_limits: RateLimits) -> None:
    calls = Calls([error(429)])
    wait = wait_coordinated(rate_limits.coordinator, "openai", guess_seconds=12)
    calling: asyncio.Task[object] = asyncio.create_task(
        AsyncRetrying(retry=retry_if_limited(), wait=wait, sleep=wait.sleep)(calls.amake)
    )
    await rate_limits.advance(0)
    assert rate_limits.coordinator.active_limits == {"openai": 12.0}
    await rate_limits.advance(12)
    assert await calling == "done"


async def test_who_is_admitted_reports_by_himself_and_each_refusal_is_one_event(rate_limits: RateLimits) -> None:
    calls = Calls([RateLimited(30)])
    coordinator = rate_limits.coordinator
    wait = wait_coordinated(coordinator, "openai", report=False)

    @retry(retry=retry_if_limited(), wait=wait, sleep=wait.sleep)
    async def call() -> object:
        async with coordinator.admit("openai"):
            return await calls.amake()

    calling: asyncio.Task[object] = asyncio.create_task(call())
    await rate_limits.advance(29)
    assert calls.made == 1
    await rate_limits.advance(1.5)
    assert await calling == "done"
    assert len(coordinator.recent_events) == 1


async def test_the_backend_may_depend_on_the_call_and_calls_do_not_mix(rate_limits: RateLimits) -> None:
    def backend(state: RetryCallState) -> tuple[str, str]:
        return "openai", str(state.args[0])

    wait = wait_coordinated(rate_limits.coordinator, backend)
    answers: dict[str, list[object]] = {"mini": [error(429, retry_after="10")], "large": [error(429, retry_after="50")]}

    @retry(retry=retry_if_limited(), wait=wait, sleep=wait.sleep)
    async def call(model: str) -> str:
        if answers[model]:
            raise answers[model].pop()  # type: ignore[misc]
        return model

    calling = [asyncio.create_task(call(model)) for model in answers]
    await rate_limits.advance(10)
    assert rate_limits.coordinator.active_limits == {"openai/large": 40.0}
    assert [task.done() for task in calling] == [True, False]
    await rate_limits.advance(40)
    assert [await task for task in calling] == ["mini", "large"]


async def test_a_task_that_is_cancelled_while_it_sleeps_makes_no_more_attempts(rate_limits: RateLimits) -> None:
    calls = Calls([error(429, retry_after="30")])
    wait = wait_coordinated(rate_limits.coordinator, "openai")
    calling: asyncio.Task[object] = asyncio.create_task(
        AsyncRetrying(retry=retry_if_limited(), wait=wait, sleep=wait.sleep)(calls.amake)
    )
    await rate_limits.advance(1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await rate_limits.advance(60)
    assert calls.made == 1


async def test_tenacitys_own_sleep_is_as_long_as_the_limit_was_known_to_last(make: Make, real: Place) -> None:
    coordinator, other = await make(), await make()
    calls = Calls([error(429, retry_after="0.3")])
    wait = wait_coordinated(coordinator, "openai")
    began = time.monotonic()
    async for attempt in AsyncRetrying(retry=retry_if_limited(), wait=wait):
        with attempt:
            await calls.amake()
    assert time.monotonic() - began >= 0.29
    assert calls.made == 2
    assert [event.suggested_wait_seconds for event in await other.events()] == [0.3]


# What is counted.


STOPS: list[tuple[Callable[[], object], bool]] = [
    (lambda: stop_not_counting_limits(stop_after_attempt(3)), True),
    (lambda: stop_after_attempt(3), False),
]


@pytest.mark.parametrize(("make_stop", "goes_on"), STOPS, ids=["not counting limits", "counting all"])
async def test_refused_attempts_are_no_failed_ones_where_that_is_wanted(
    rate_limits: RateLimits, make_stop: Callable[[], stop_after_attempt], goes_on: bool
) -> None:
    """P53: tenacity counts every attempt; a strategy that does not count refused ones is one word more."""
    refusals = [error(429, retry_after="0") for _ in range(5)]
    calls = Calls([OSError(), *refusals, OSError()])
    trying = AsyncRetrying(
        retry=retry_if_limited() | retry_if_exception_type(OSError),
        wait=wait_coordinated(rate_limits.coordinator, "openai"),
        stop=make_stop(),
    )
    if goes_on:
        assert await trying(calls.amake) == "done"
        assert calls.made == 8
        calls.outcomes = [OSError(), *[error(429, retry_after="0")] * 5, OSError(), OSError()]
    with pytest.raises(RetryError):
        await trying(calls.amake)
    assert calls.made == (16 if goes_on else 3)


async def test_refusals_without_end_can_be_bounded_by_time() -> None:
    calls = Calls([error(429) for _ in range(1000)])
    stop = stop_not_counting_limits(stop_after_attempt(3)) | stop_after_delay(0.05)
    with pytest.raises(RetryError):
        await AsyncRetrying(retry=retry_if_limited(), wait=wait_fixed(0.005), stop=stop)(calls.amake)
    assert 3 < calls.made < 1000


# Sync.


def test_threads_retry_at_the_resume_time_that_they_share(sync_rate_limits: SyncRateLimits) -> None:
    calls = Calls([error(429, retry_after="30")])
    wait = wait_coordinated(sync_rate_limits.coordinator, "openai")

    @retry(retry=retry_if_limited(), wait=wait, sleep=wait.sleep, before=wait.before)
    def call() -> object:
        return calls.make()

    async def in_a_thread() -> object:
        calling: asyncio.Task[object] = asyncio.create_task(asyncio.to_thread(call))
        await eventually(lambda: sync_rate_limits.clock._timers)
        await asyncio.to_thread(sync_rate_limits.advance, 29)
        assert calls.made == 1
        assert sync_rate_limits.coordinator.active_limits == {"openai": 1.0}
        await asyncio.to_thread(sync_rate_limits.advance, 1)
        return await asyncio.wait_for(calling, 20)

    assert asyncio.run(in_a_thread()) == "done"


def test_without_await_it_is_the_same_on_a_real_server(real: Place) -> None:
    calls = Calls([OSError(), error(429, retry_after="0.3"), response(429, retry_after="0.3")])
    with sync.RateLimitCoordinator.from_url(real.url, real.namespace) as coordinator:
        wait = wait_coordinated(coordinator, "openai", fallback=wait_fixed(0.1))
        trying = Retrying(retry=retry_if_limited() | retry_if_exception_type(OSError), wait=wait, sleep=wait.sleep)
        began = time.monotonic()
        assert trying(calls.make) == "done"
        assert time.monotonic() - began >= 0.69
        assert [event.suggested_wait_seconds for event in coordinator.events()] == [0.3, 0.3]


async def test_a_sync_coordinator_is_not_let_into_an_event_loop() -> None:
    """P56: its report would hold up every other task."""
    calls = Calls([error(429)])
    with sync.RateLimitCoordinator.from_url(f"memory://{uuid4()}") as coordinator:
        wait = wait_coordinated(coordinator, "openai")
        for trying in (
            AsyncRetrying(retry=retry_if_limited(), wait=wait),
            AsyncRetrying(retry=retry_if_limited(), before=wait.before),
        ):
            with pytest.raises(CoordinatorMisuse, match="async coordinator"):
                await trying(calls.amake)


# The whole of it.


async def test_two_clients_of_an_upstream_share_its_refusal(make: Make, real: Place) -> None:
    one, two = await make(), await make()

    async def call(coordinator: RateLimitCoordinator, client: httpx.AsyncClient) -> int:
        wait = wait_coordinated(coordinator, "upstream")
        async for attempt in AsyncRetrying(
            retry=retry_if_limited(), wait=wait, sleep=wait.sleep, before=wait.before, reraise=True
        ):
            with attempt:
                return (await client.get(upstream.url)).raise_for_status().status_code
        raise AssertionError("unreachable")

    with Upstream() as upstream:
        upstream.replies.append(refused(1))
        async with httpx.AsyncClient() as client:
            first = asyncio.create_task(call(one, client))
            await eventually(lambda: two.active_limits)
            assert await call(two, client) == 200
            assert await first == 200
    assert len(upstream.asked) == 3
    assert all(again.at - upstream.asked[0].at >= 0.95 for again in upstream.asked[1:])


# What cannot be used.


@pytest.mark.parametrize("backend", ["", None, 7])
def test_a_backend_without_a_name_is_refused(backend: object) -> None:
    with (
        sync.RateLimitCoordinator.from_url("memory://") as coordinator,
        pytest.raises(ValueError, match="backend must be a name"),
    ):
        wait_coordinated(coordinator, backend)  # type: ignore[call-overload]


def test_something_else_than_a_coordinator_is_refused() -> None:
    with pytest.raises(ValueError, match="coordinator must be"):
        wait_coordinated("redis://localhost", "openai")  # type: ignore[call-overload]


def test_without_the_extra_it_says_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rate_coordinator.integrations.tenacity")
    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(ModuleNotFoundError, match=r"rate-coordinator\[tenacity\]"):
        __import__("rate_coordinator.integrations.tenacity")
