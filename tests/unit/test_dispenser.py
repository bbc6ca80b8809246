"""Turns as one process hands them out; what Redis would answer is said by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from rate_coordinator import CoordinatorClosed, CoordinatorUnavailable, LimitWaitTimeout, clock
from rate_coordinator.dispenser import Dispenser
from rate_coordinator.mirror import Mirror
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from rate_coordinator.turns import Paces, Turn, TurnRequest, Turns
from tests.servers import eventually

OPENAI = Target("openai")
FOR_LONG = 1000.0


def turns(granted: int, first: float = 0.0, spacing: float = 0.0, *, epoch: int = 7, processes: int = 1) -> Turns:
    return Turns(epoch, granted, first, spacing, 20.0, 25.0, FOR_LONG, processes)


class Redis:
    """Answers requests for turns: with as many as are wanted, unless the test says otherwise."""

    def __init__(self) -> None:
        self.requests: list[TurnRequest] = []
        self.answers: list[Turns | Exception | None] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def take_turns(self, target: Target, request: TurnRequest) -> Turns | None:
        self.requests.append(request)
        await self.hold.wait()
        answer = self.answers.pop(0) if self.answers else turns(request.wanted, first=0.001 if request.wanted else 60.0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Given:
    """A dispenser for a target whose pace is remembered."""

    def __init__(self) -> None:
        self.redis = Redis()
        self.mirror = Mirror()
        self.paces = Paces()
        self.paces.limited(OPENAI, clock.now() + FOR_LONG)
        self.away = False
        self.dispenser = Dispenser(cast(Store, self.redis), self.paces, self.mirror, lambda: self.away)
        self.order = iter(range(1000))
        self.done: list[str] = []

    def call(self, name: str, priority: float = 0, timeout: float | None = None) -> asyncio.Task[int]:
        """Begin to wait for a turn, and return its epoch."""
        order = next(self.order)

        async def wait() -> int:
            gives_up_at = None if timeout is None else clock.now() + timeout
            turn = await self.dispenser.turn(OPENAI, priority, order, gives_up_at)
            self.done.append(name)
            return turn.epoch

        return asyncio.create_task(wait())


@pytest.fixture
async def given() -> AsyncIterator[Given]:
    given = Given()
    running = asyncio.create_task(given.dispenser.run())
    await asyncio.sleep(0)
    yield given
    running.cancel()
    await asyncio.wait([running])


async def test_a_batch_of_turns_costs_one_request_and_carries_its_epoch(given: Given) -> None:
    given.redis.hold.clear()
    calls = [given.call(str(number)) for number in range(5)]
    await eventually(lambda: given.redis.requests)
    given.redis.hold.set()

    assert await asyncio.gather(*calls) == [7] * 5
    assert [request.wanted for request in given.redis.requests] == [1, 4] or len(given.redis.requests) == 1
    pace = given.paces.get(OPENAI)
    assert pace
    assert (pace.rate, pace.ceiling, pace.epoch) == (20.0, 25.0, 7)


async def test_who_came_first_goes_first_and_a_lower_priority_before_that(given: Given) -> None:
    given.redis.hold.clear()
    calls = [given.call("one"), given.call("two"), given.call("urgent", priority=-1), given.call("three")]
    await eventually(lambda: given.redis.requests)
    given.redis.hold.set()
    await asyncio.gather(*calls)

    assert given.done == ["urgent", "one", "two", "three"]


async def test_no_turn_is_handed_out_before_it_is_due(given: Given) -> None:
    given.redis.answers = [turns(3, first=0.1, spacing=0.05)]
    began = clock.now()
    given.redis.hold.clear()
    calls = [given.call(str(number)) for number in range(3)]
    await asyncio.sleep(0)
    given.redis.hold.set()
    for number, call in enumerate(calls):
        await call
        assert clock.now() - began >= 0.1 + 0.05 * number


async def test_the_turn_of_a_cancelled_call_goes_to_the_next(given: Given) -> None:
    given.redis.answers = [turns(1, first=0.05), turns(0, first=60.0)]
    given.redis.hold.clear()
    one, two = given.call("one"), given.call("two")
    await eventually(lambda: given.redis.requests)
    one.cancel()
    given.redis.hold.set()
    await two

    assert given.done == ["two"]
    assert len(given.redis.requests) == 1


async def test_a_turn_that_was_handed_to_a_call_that_is_cancelled_in_that_moment_is_not_lost(given: Given) -> None:
    given.redis.answers = [turns(0, first=60.0)]
    one, two = given.call("one"), given.call("two")
    await eventually(lambda: given.redis.requests)
    given.dispenser.give_back(OPENAI, Turn(7))
    one.cancel()
    await two

    assert given.done == ["two"]


async def test_a_turn_that_nobody_wants_any_more_goes_back_to_redis(given: Given) -> None:
    given.redis.answers = [turns(1, first=0.05)]
    one = given.call("one")
    await eventually(lambda: given.redis.requests)
    one.cancel()

    await eventually(lambda: len(given.redis.requests) == 2)
    assert given.redis.requests[1] == TurnRequest(wanted=0, unused=1, unused_epoch=7)


async def test_what_is_left_of_a_batch_when_a_refusal_is_heard_is_not_used(given: Given) -> None:
    given.redis.answers = [turns(3, first=0.0, spacing=30.0), turns(2, first=0.0, epoch=8)]
    calls = [given.call(str(number)) for number in range(3)]
    await calls[0]
    given.dispenser.limited(OPENAI)

    assert await asyncio.gather(*calls[1:]) == [8, 8]
    assert given.redis.requests[-1] == TurnRequest(wanted=2, unused=2, unused_epoch=7)


async def test_with_none_granted_it_is_asked_again_when_that_is_worth_it(given: Given) -> None:
    given.redis.answers = [turns(0, first=0.1)]
    began = clock.now()
    await given.call("one")

    assert len(given.redis.requests) == 2
    assert clock.now() - began >= 0.1


async def test_a_pace_that_is_forgotten_lets_everybody_go(given: Given) -> None:
    given.redis.answers = [None]
    given.redis.hold.clear()
    calls = [given.call(str(number)) for number in range(4)]
    await eventually(lambda: given.redis.requests)
    given.redis.hold.set()
    await asyncio.gather(*calls)

    assert not given.paces.remembered(OPENAI, clock.now())


async def test_a_call_gives_up_when_no_turn_comes_in_time(given: Given) -> None:
    given.redis.answers = [turns(0, first=60.0)]
    began = clock.now()
    with pytest.raises(LimitWaitTimeout, match="openai"):
        await given.call("one", timeout=0.1)
    assert clock.now() - began >= 0.1
    assert given.dispenser.waiting(OPENAI) == 0


async def test_what_was_served_is_told_when_the_target_is_limited(given: Given) -> None:
    for _ in range(30):
        given.dispenser.served(OPENAI)
    given.dispenser.limited(OPENAI)

    await eventually(lambda: given.redis.requests)
    (request,) = given.redis.requests
    assert (request.wanted, request.served) == (0, 30)
    await given.call("one")
    assert given.redis.requests[-1].served == 0, "once"


async def test_alone_a_process_goes_on_at_its_share_of_the_last_known_pace(given: Given) -> None:
    given.redis.answers = [turns(1, processes=2)]
    await given.call("known")
    given.away = True
    began = clock.now()
    await asyncio.gather(*(given.call(str(number)) for number in range(4)))

    assert len(given.redis.requests) == 1
    assert given.dispenser.alone(OPENAI)
    # 20 a second for both: 10 for this one, the first at once.
    assert clock.now() - began >= 0.3
    given.away = False
    await given.call("again")
    assert not given.dispenser.alone(OPENAI)


async def test_a_request_that_fails_does_not_hold_anybody_up(given: Given) -> None:
    given.redis.answers = [CoordinatorUnavailable("away"), CoordinatorUnavailable("away")]
    given.paces.learn(OPENAI, turns(1), clock.now())
    assert await given.call("one") == 7
    assert given.dispenser.alone(OPENAI)


async def test_closing_releases_everyone_who_waits(given: Given) -> None:
    given.redis.answers = [turns(0, first=60.0)]
    calls = [given.call(str(number)) for number in range(3)]
    await eventually(lambda: given.redis.requests)
    given.dispenser.abandon(lambda: CoordinatorClosed("closed"))
    for call in calls:
        with pytest.raises(CoordinatorClosed):
            await call


async def test_an_error_that_nobody_foresaw_holds_up_nobody(given: Given, caplog: pytest.LogCaptureFixture) -> None:
    given.redis.answers = [ValueError("nonsense"), ValueError("nonsense")]
    given.paces.learn(OPENAI, turns(1), clock.now())
    assert await given.call("one") == 7
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_of_many_targets_those_are_forgotten_that_nobody_calls_at_a_pace(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P43."""
    monkeypatch.setattr("rate_coordinator.dispenser.MOST_LANES", 10)
    monkeypatch.setattr("rate_coordinator.turns.MOST_PACES", 10)
    given.dispenser.served(OPENAI)
    for number in range(100):
        target = Target(f"b{number}")
        given.dispenser.served(target)
        given.paces.limited(target, clock.now() + FOR_LONG)
        given.paces.forget(target)
    assert len(given.dispenser._lanes) <= 11
    assert len(given.paces.forgotten_at) <= 11
    assert OPENAI in given.dispenser._lanes
    assert given.paces.remembered(OPENAI, clock.now())


def test_paces_that_are_being_told_may_change_meanwhile() -> None:
    paces = Paces()
    for name in ("openai", "gemini"):
        paces.limited(Target(name), 10.0)
    told = paces.active(0.0)
    first = next(told)

    paces.limited(Target("github"), 10.0)

    assert [target.backend for target, _ in (first, *told)] == ["openai", "gemini"]
