"""stamina, as it is installed, retries what was refused when its turn has come."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest
import stamina

from rate_coordinator import LimitWaitTimeout, RateLimited, sync
from rate_coordinator.integrations.stamina import On, retry_coordinated
from rate_coordinator.testing import RateLimits
from tests.conftest import Make, Place
from tests.servers import eventually

pytest_plugins = ["rate_coordinator.testing"]


def error(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://upstream")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, headers=named, request=request))


async def test_a_refused_attempt_is_reported_and_made_again_when_the_limit_lifts(rate_limits: RateLimits) -> None:
    outcomes: list[Exception] = [error(429, retry_after="30"), RateLimited(20)]

    @retry_coordinated(rate_limits.coordinator, "openai", wait_initial=1000, wait_max=1000)
    async def ask(question: str, *, loud: bool) -> str:
        if outcomes:
            raise outcomes.pop(0)
        return question.upper() if loud else question

    asking = asyncio.create_task(ask("why", loud=True))
    await rate_limits.advance(29)
    assert rate_limits.coordinator.active_limits == {"openai": 1.0}
    assert len(outcomes) == 1
    await rate_limits.advance(1)
    assert outcomes == []
    assert rate_limits.coordinator.active_limits == {"openai": 20.0}
    await rate_limits.advance(25)
    assert await asyncio.wait_for(asking, 20) == "WHY"


async def test_every_attempt_waits_for_what_others_have_learned(make: Make, real: Place) -> None:
    coordinator, other = await make(), await make()
    await other.report_rate_limit("openai", 0.5)
    await eventually(lambda: coordinator.active_limits)
    began = time.monotonic()

    @retry_coordinated(coordinator, "openai")
    async def ask() -> float:
        return time.monotonic() - began

    assert await ask() >= 0.4


@pytest.mark.parametrize(
    "on", [OSError, (OSError,), lambda exc: isinstance(exc, OSError)], ids=["type", "tuple", "hook"]
)
async def test_what_failed_for_another_reason_is_staminas_and_reports_nothing(rate_limits: RateLimits, on: On) -> None:
    outcomes: list[Exception] = [OSError(), ZeroDivisionError()]

    @retry_coordinated(rate_limits.coordinator, "openai", on=on, wait_initial=0.001, wait_jitter=0)
    async def ask() -> None:
        raise outcomes.pop(0)

    with pytest.raises(ZeroDivisionError):
        await ask()
    assert outcomes == []
    assert await rate_limits.coordinator.events() == []


async def test_the_last_refusal_is_raised_and_reported_too(rate_limits: RateLimits) -> None:
    @retry_coordinated(rate_limits.coordinator, "openai", "mini", attempts=1, guess_seconds=12)
    async def ask() -> None:
        raise error(429)

    with pytest.raises(httpx.HTTPStatusError):
        await ask()
    assert rate_limits.coordinator.active_limits == {"openai/mini": 12.0}

    @retry_coordinated(rate_limits.coordinator, "openai", "mini", admit_timeout=5)
    async def ask_impatiently() -> None:
        raise AssertionError("must not be called")

    with pytest.raises(LimitWaitTimeout):
        await ask_impatiently()


async def test_a_cancelled_attempt_is_not_made_again(rate_limits: RateLimits) -> None:
    made: list[int] = []

    @retry_coordinated(rate_limits.coordinator, "openai", on=Exception)
    async def ask() -> None:
        made.append(1)
        await asyncio.Event().wait()

    asking = asyncio.create_task(ask())
    await eventually(lambda: made)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert made == [1]


def test_without_await_it_is_the_same_on_a_real_server(real: Place) -> None:
    outcomes: list[Exception] = [error(429, retry_after="0.3"), OSError()]
    with sync.RateLimitCoordinator.from_url(real.url, real.namespace) as coordinator:

        @retry_coordinated(coordinator, "openai", on=OSError, wait_initial=0.001, wait_jitter=0)
        def ask() -> str:
            if outcomes:
                raise outcomes.pop(0)
            return "done"

        began = time.monotonic()
        assert ask() == "done"
        assert time.monotonic() - began >= 0.29
        assert [event.suggested_wait_seconds for event in coordinator.events() if event.suggested_wait_seconds] == [0.3]


async def test_staminas_own_switches_still_work(rate_limits: RateLimits) -> None:
    made: list[int] = []

    @retry_coordinated(rate_limits.coordinator, "openai", on=OSError)
    async def ask() -> None:
        made.append(1)
        raise OSError("no")

    with stamina.set_testing(True, attempts=2), pytest.raises(OSError, match="no"):
        await ask()
    assert len(made) == 2


def test_what_does_not_fit_is_refused() -> None:
    async def waits() -> None:
        pass

    def blocks() -> None:
        pass

    def yields() -> Iterator[int]:
        yield 1

    async def awaits_and_yields() -> AsyncIterator[int]:
        yield 1

    with sync.RateLimitCoordinator.from_url(f"memory://{uuid4()}") as coordinator:
        for function in (waits, yields, awaits_and_yields):
            with pytest.raises(ValueError, match=r"async coordinator|generator"):
                retry_coordinated(coordinator, "openai")(function)
        with pytest.raises(ValueError, match="priority"):
            retry_coordinated(coordinator, "openai", priority=float("nan"))
        retry_coordinated(coordinator, "openai")(blocks)()


def test_without_the_extra_it_says_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rate_coordinator.integrations.stamina")
    monkeypatch.setitem(sys.modules, "stamina", None)
    with pytest.raises(ModuleNotFoundError, match=r"rate-coordinator\[stamina\]"):
        __import__("rate_coordinator.integrations.stamina")
