"""What is held by hand: neither a report nor a clear nor a call ends it, only its own end and a release."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from rate_coordinator import (
    ActiveLimit,
    CoordinatorUnavailable,
    LimitWaitTimeout,
    Notice,
    RateLimitCoordinator,
    clock,
)
from rate_coordinator.holds import LONGEST_NOTE, HoldOrder
from rate_coordinator.replies import HoldReply, Reply, WireHold
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from tests.conftest import Make, Place
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, eventually

TWO_HOURS = 7200.0
VERIFY_SECONDS = 0.2
QUIET_SECONDS = 0.3
"""Who is let through although it should not is let through within this."""


def left(coordinator: RateLimitCoordinator, name: str = "openai") -> float:
    return coordinator.active_limits.get(name, 0.0)


def limit_of(coordinator: RateLimitCoordinator, name: str = "openai") -> ActiveLimit | None:
    return next((limit for limit in coordinator.limits if str(limit.target) == name), None)


def is_held(coordinator: RateLimitCoordinator, name: str = "openai") -> bool:
    limit = limit_of(coordinator, name)
    return limit is not None and limit.held_until is not None


def about(seconds: float) -> Any:
    """About so long from now: what has passed since is on the server's and on this process's clock."""
    return pytest.approx(seconds, abs=5.0)


# What a hold is.


async def test_a_hold_limits_everyone_and_tells_who_made_it_until_when_and_why(place: Place, make: Make) -> None:
    one, two = await make(reporter="operator"), await make()
    heard: list[Notice] = []
    two.on_notice(heard.append)
    result = await one.hold("openai", TWO_HOURS, "new contract", model="gpt")
    assert (await one.is_rate_limited("openai", "gpt"))[0], "on return, this process's reads show it"
    assert (result.extended, result.delivered, result.clamped) == (True, True, False), "no cap counts"
    assert result.seconds_remaining == about(TWO_HOURS)
    await eventually(lambda: heard)
    late = await make()
    for coordinator in (one, two, late):
        limit = limit_of(coordinator, "openai/gpt")
        assert limit is not None
        assert limit.seconds_remaining == about(TWO_HOURS)
        assert (limit.reason, limit.note, limit.held_by) == ("hold", "new contract", "operator")
        assert limit.held_until == limit.resume_at == result.resume_at
    assert not (await two.is_rate_limited("openai"))[0], "a model's hold is none of its siblings'"
    (notice,) = heard
    assert (notice.kind, notice.event, notice.id) == ("limit", "hold", result.event_id)
    assert notice.hold is not None
    assert (notice.hold.note, notice.hold.until_ms) == ("new contract", notice.resume_at_ms)
    told = await late.explain("openai", "gpt")
    assert told.cause is not None
    assert (told.cause.kind, told.cause.note, told.cause.reporter) == ("hold", "new contract", "operator")
    assert (told.held_until, told.note) == (result.resume_at, "new contract")
    (event,) = await late.events()
    assert (event.kind, event.suggested_wait_seconds, event.extended) == ("hold", TWO_HOURS, True)
    assert late.recent_events == two.recent_events == [], "nobody was refused"


async def test_a_hold_ends_by_itself(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await one.hold("openai", 0.4)
    await eventually(lambda: two.active_limits or not one.active_limits)
    began = time.monotonic()
    await asyncio.gather(one.wait_until_clear("openai"), two.wait_until_clear("openai", "gpt"))
    assert time.monotonic() - began < 5
    assert (await make()).limits == ()
    assert not await one.release("openai"), "it is over"


async def test_holding_again_replaces_the_hold(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await one.hold("openai", 600.0, "first")
    await eventually(lambda: is_held(two))
    shorter = await two.hold("openai", 60.0, "second")
    assert not shorter.extended
    await eventually(lambda: left(one) < 100)
    for coordinator in (one, two, await make()):
        limit = limit_of(coordinator)
        assert limit is not None
        assert (limit.note, limit.seconds_remaining) == ("second", about(60.0))
    assert (await one.hold("openai", TWO_HOURS)).extended
    await eventually(lambda: left(two) > 7000)
    assert await one.release("openai")
    await eventually(lambda: not two.limits)


async def test_a_release_frees_those_who_wait_anywhere_at_once(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await one.hold("openai", TWO_HOURS)
    await eventually(lambda: is_held(two))
    waiting = [
        asyncio.create_task(coordinator.wait_until_clear("openai", model))
        for coordinator in (one, two)
        for model in (None, "gpt")
    ]
    heard: list[Notice] = []
    two.on_notice(heard.append)
    await asyncio.sleep(QUIET_SECONDS)
    assert not any(task.done() for task in waiting)
    assert await one.release("openai")
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    assert one.active_limits == two.active_limits == {}
    await eventually(lambda: heard)
    assert [(notice.kind, notice.event) for notice in heard] == [("clear", "release")]
    assert [event.kind for event in await two.events()] == ["release", "hold"]
    assert not await one.release("openai")
    assert not await two.release("openai", "gpt")


async def test_other_namespaces_know_nothing_of_a_hold(place: Place, make: Make) -> None:
    one, other = await make(), await make(namespace=f"{place.namespace} too")
    await one.hold("openai", TWO_HOURS)
    await other.refresh()
    assert other.limits == ()
    assert not await other.release("openai")
    assert is_held(one)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), 367 * 86400.0, 10**400, "60", None, True])
async def test_a_hold_must_have_an_end(seconds: Any) -> None:
    """P07."""
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        with pytest.raises(ValueError, match=r"^a hold must last"):
            await coordinator.hold("openai", seconds)
        assert await coordinator.events() == []


@pytest.mark.parametrize("reason", ["x" * (LONGEST_NOTE + 1), "\ud800", 5, None])
async def test_a_reason_is_a_short_text(reason: Any) -> None:
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        with pytest.raises(ValueError, match=r"^reason must be"):
            await coordinator.hold("openai", 60.0, reason)
        await coordinator.hold("openai", 60.0, '"},{"|:reports\x00' + "é" * 200)
        assert coordinator.limits[0].note.startswith('"},{"|:reports\x00é')


# What does not end it.


async def test_a_shorter_report_is_an_event_and_what_it_asked_for_counts_after_a_release(
    place: Place, make: Make
) -> None:
    one, two = await make(), await make(reporter="worker")
    await one.hold("openai", TWO_HOURS, "maintenance")
    await eventually(lambda: is_held(two))
    for seconds in (300.0, 60.0):
        result = await two.report_rate_limit("openai", seconds, "nightly", reason="overloaded")
        assert (result.extended, result.seconds_remaining) == (False, about(TWO_HOURS))
    assert left(one) == about(TWO_HOURS)
    assert [event.suggested_wait_seconds for event in await one.events()] == [60.0, 300.0, TWO_HOURS]
    assert (await two.explain("openai")).cause.kind == "hold"  # type: ignore[union-attr]
    assert await one.release("openai")
    await eventually(lambda: not is_held(two))
    for coordinator in (one, two, await make()):
        limit = limit_of(coordinator)
        assert limit is not None
        assert limit.seconds_remaining == about(300.0)
        assert (limit.reason, limit.job_id, limit.reporter) == ("overloaded", "nightly", "worker")
        assert (limit.held_until, limit.note) == (None, "")
        cause = (await coordinator.explain("openai")).cause
        assert cause is not None
        assert (cause.kind, cause.suggested_wait_seconds) == ("report", 300.0)
    assert await one.prune_stale() == 0


async def test_the_later_of_a_hold_and_a_report_counts_whichever_came_first(place: Place, make: Make) -> None:
    one, two = await make(max_wait_seconds=9000.0), await make(max_wait_seconds=9000.0)
    assert (await one.hold("first", 60.0)).extended
    await one.report_rate_limit("first", 9000.0, reason="quota")
    await one.report_rate_limit("second", 9000.0, reason="quota")
    assert not (await one.hold("second", 60.0, "why")).extended
    await eventually(lambda: is_held(two, "second"))
    late = await make()
    for name in ("first", "second"):
        for coordinator in (one, two, late):
            await eventually(lambda c=coordinator, n=name: left(c, n) > 8000)  # type: ignore[misc]
            limit = limit_of(coordinator, name)
            assert limit is not None
            assert limit.reason == "quota"
            assert limit.held_until is not None
            assert (limit.resume_at - limit.held_until).total_seconds() == about(8940.0)
        assert await two.release(name)
        assert left(two, name) == about(9000.0), "what was reported still counts"
        await eventually(lambda n=name: not is_held(one, n))  # type: ignore[misc]
        assert left(one, name) == about(9000.0)


async def test_a_clear_lifts_what_was_reported_and_leaves_the_hold(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await one.hold("below", 600.0, "maintenance")
    await one.report_rate_limit("below", 60.0)
    await one.hold("above", 600.0, "maintenance")
    await one.report_rate_limit("above", 3000.0)
    await one.hold("alone", 600.0, "maintenance")
    await one.report_rate_limit("free", 60.0)
    await eventually(lambda: len(two.limits) == 4)
    assert await two.clear_limits("alone") == 0
    assert await two.clear_limits() == 3
    assert set(two.active_limits) == {"below", "above", "alone"}, "on return, this process's reads show it"
    await eventually(lambda: left(one, "above") < 700)
    for coordinator in (one, two, await make()):
        for limit in coordinator.limits:
            assert (limit.note, limit.reason, limit.held_until) == ("maintenance", "hold", limit.resume_at)
            assert limit.seconds_remaining == about(600.0)
    cause = (await one.explain("above")).cause
    assert cause is not None
    assert (cause.kind, cause.note) == ("hold", "maintenance")
    assert await two.clear_limits() == 0
    for name in ("below", "above", "alone"):
        assert await one.release(name)
    assert one.limits == ()
    await eventually(lambda: not two.limits)
    assert two.health.notices_missed == 0


async def held_calls(coordinator: RateLimitCoordinator, count: int, made: list[float]) -> list[asyncio.Task[None]]:
    async def call() -> None:
        async with coordinator.admit("openai"):
            made.append(time.monotonic())
            await asyncio.sleep(QUIET_SECONDS)

    return [asyncio.create_task(call()) for _ in range(count)]


@pytest.fixture
async def calls() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_no_call_tries_what_is_held_and_after_a_release_one_goes_first(
    place: Place, make: Make, calls: list[asyncio.Task[None]]
) -> None:
    """P20 P51."""
    one, two = await make(verify_every=VERIFY_SECONDS), await make(verify_every=VERIFY_SECONDS)
    await one.report_rate_limit("openai", 3000.0)
    await one.hold("openai", TWO_HOURS)
    await eventually(lambda: is_held(two))
    made: list[float] = []
    for coordinator in (one, two):
        calls += await held_calls(coordinator, 3, made)
    await asyncio.sleep(4 * VERIFY_SECONDS)
    assert made == []
    with pytest.raises(LimitWaitTimeout):
        async with two.admit("openai", timeout=10.0):
            raise AssertionError("it must not be admitted")
    assert await one.clear_limits("openai") == 1
    assert await two.release("openai")
    async with asyncio.timeout(20):
        await asyncio.gather(*calls)
    first, second = sorted(made)[:2]
    assert second - first >= QUIET_SECONDS - 0.05, "the others wait until the first was served"


async def test_a_call_that_tried_a_limit_before_lifts_nothing_once_it_is_held(place: Place, make: Make) -> None:
    """P20: a late success."""
    one, two = await make(verify_every=VERIFY_SECONDS), await make(verify_every=VERIFY_SECONDS)
    await one.report_rate_limit("openai", 3000.0)
    async with one.admit("openai"):
        await two.hold("openai", 60.0, "maintenance")
    await asyncio.sleep(2 * VERIFY_SECONDS)
    for coordinator in (one, two, await make()):
        assert is_held(coordinator)
        assert left(coordinator) == about(3000.0)
    assert [event.kind for event in await one.events() if event.kind == "clear"] == []


async def test_a_release_leaves_the_pace_that_was_learned(place: Place, make: Make) -> None:
    one, two = await make(resync_interval=1000.0), await make(resync_interval=1000.0)
    async with one.admit("openai") as call:
        await call.limited(0.05)
    await eventually(lambda: two.health.paces)
    await one.hold("openai", 60.0)
    heard: list[Notice] = []
    two.on_notice(heard.append)
    assert await one.release("openai")
    await eventually(lambda: [notice for notice in heard if notice.event == "release"])
    assert [pace.backend for pace in two.health.paces] == ["openai"]
    assert await two.pace("openai")


async def test_a_call_that_is_refused_under_a_hold_shortens_nothing(place: Place, make: Make) -> None:
    coordinator = await make()
    async with coordinator.admit("openai") as call:
        await coordinator.hold("openai", TWO_HOURS)
        await call.limited(0.05)
    await asyncio.sleep(0.1)
    assert left(coordinator) == about(TWO_HOURS)
    assert await coordinator.release("openai")
    assert coordinator.limits == ()


# Any order of what can be done.

SECONDS = st.integers(1, 40).map(lambda tens: 100.0 * tens)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), SECONDS),
        st.tuples(st.just("report"), SECONDS),
        st.tuples(st.just("release"), st.none()),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=12,
)


async def do_in_order(steps: list[tuple[str, float | None]]) -> None:
    """Do one thing after the other, and see after each that the later of the two counts."""
    url, held, reported = f"memory://{uuid4()}", 0.0, 0.0
    async with (
        RateLimitCoordinator.from_url(url, max_wait_seconds=9000.0) as one,
        RateLimitCoordinator.from_url(url) as two,
    ):
        for what, seconds in steps:
            if what == "hold":
                held = seconds or 0.0
                assert (await one.hold("openai", held)).seconds_remaining == about(max(held, reported))
            elif what == "report":
                longer = (seconds or 0.0) > max(held, reported) + 5
                assert (await one.report_rate_limit("openai", seconds or 0.0)).extended or not longer
                reported = max(reported, seconds or 0.0)
            elif what == "release":
                assert await one.release("openai") is (held > 0)
                held = 0.0
            else:
                assert await one.clear_limits() == (reported > 0)
                reported = 0.0
            await two.refresh()
            for coordinator in (one, two):
                assert left(coordinator) == about(max(held, reported))
                assert is_held(coordinator) is (held > 0)


@settings(max_examples=40)
@given(steps=STEPS)
def test_the_later_of_the_hold_and_of_what_was_reported_counts_in_any_order(
    steps: list[tuple[str, float | None]],
) -> None:
    asyncio.run(do_in_order(steps))


# What goes wrong.


async def test_a_hold_whose_reply_is_lost_is_applied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """P35."""
    url, attempts = f"memory://{uuid4()}", 0
    hold = Store.hold
    async with RateLimitCoordinator.from_url(url) as one, RateLimitCoordinator.from_url(url) as two:

        async def lose_the_first_reply(store: Store, number: int, order: WireHold) -> tuple[Reply, HoldReply]:
            nonlocal attempts
            attempts += 1
            reply = await hold(store, number, order)
            if attempts == 1:
                raise CoordinatorUnavailable("the reply is lost")
            return reply

        monkeypatch.setattr(Store, "hold", lose_the_first_reply)
        await one.hold("openai", 60.0, "maintenance")
        assert attempts == 2
        assert [event.kind for event in await two.events()] == ["hold"]
        await two.refresh()
        for coordinator in (one, two):
            assert left(coordinator) == about(60.0)


async def test_a_hold_that_cannot_be_put_back_yet_is_kept_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    hold, attempts = Store.hold, 0
    async with RateLimitCoordinator.from_url("memory://", command_timeout=0.2) as coordinator:

        async def fail_at_first(store: Store, number: int, order: WireHold) -> tuple[Reply, HoldReply]:
            nonlocal attempts
            attempts += 1
            if attempts <= 4:
                raise CoordinatorUnavailable("not yet")
            return await hold(store, number, order)

        monkeypatch.setattr(Store, "hold", fail_at_first)
        order = HoldOrder(Target("openai"), 60_000, "maintenance", clock.now(), age_ms=1000, restores="1-1")
        await coordinator._engine.outbox.restore(order)
        assert left(coordinator) == about(60.0), "in this process it counts at once"
        assert not is_held(coordinator)
        with pytest.raises(CoordinatorUnavailable, match="claude was not held"):
            await coordinator.hold("claude", 60.0)
        await eventually(lambda: is_held(coordinator))
        assert [(event.kind, event.restores) for event in await coordinator.events()] == [("hold", "1-1")]
        assert (await coordinator.report_rate_limit("claude", 1.0)).delivered


async def test_where_redis_is_away_nothing_is_held_or_released_and_the_caller_is_told(
    own_server: RedisServer, make: Make
) -> None:
    async with Proxy(own_server.port) as proxy:
        coordinator = await make(url=proxy.url, command_timeout=0.5)
        await coordinator.hold("openai", 60.0)
        proxy.refuse = True
        proxy.break_all()
        await eventually(lambda: coordinator.health.state == "degraded")
        with pytest.raises(CoordinatorUnavailable):
            await coordinator.hold("claude", 60.0)
        with pytest.raises(CoordinatorUnavailable):
            await coordinator.release("openai")
        assert set(coordinator.active_limits) == {"openai"}, "it goes on from what it knows"
        assert is_held(coordinator)
        await coordinator.report_rate_limit("openai", 30.0)
        proxy.refuse = False
        await eventually(lambda: coordinator.health.state == "connected" and coordinator.health.reports_buffered == 0)
        assert [event.kind for event in await coordinator.events()] == ["report", "hold"]
        assert is_held(coordinator)
        await coordinator.aclose()


async def test_holds_that_a_restarted_server_lost_are_put_back_as_holds(own_server: RedisServer, make: Make) -> None:
    fleet = [await make(reporter=f"process {number}") for number in range(3)]
    await fleet[0].hold("alone", 600.0, "maintenance")
    await fleet[0].hold("below", 600.0, "maintenance")
    await fleet[1].report_rate_limit("below", 3000.0, reason="quota")
    await eventually(lambda: all(left(one, "below") > 2000 and is_held(one, "alone") for one in fleet))
    own_server.stop()
    own_server.start()
    for one in fleet:
        await eventually(lambda c=one: c.health.state == "connected")  # type: ignore[misc]
        assert is_held(one, "alone"), "at no time was anybody released"
        assert left(one, "below") > 2000
    late = await make()
    await eventually(lambda: is_held(late, "alone") and is_held(late, "below") and left(late, "below") > 2000)
    assert left(late, "alone") == about(600.0)
    assert left(late, "below") == about(3000.0)
    assert {limit.note for limit in late.limits} == {"maintenance"}
    told = await late.explain("alone")
    assert told.cause is not None
    assert (told.cause.kind, told.cause.note) == ("hold", "maintenance")
    assert told.cause.restores
    assert await late.release("below")
    assert left(late, "below") == about(3000.0)
    assert await late.clear_limits("alone") == 0


async def test_a_hold_that_a_longer_limit_hides_is_put_back_as_well(own_server: RedisServer, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 3000.0)
    own_server.admin.save()
    await coordinator.hold("openai", 600.0, "maintenance")
    assert is_held(coordinator)
    own_server.stop()
    own_server.start()
    await eventually(lambda: coordinator.health.reconnects and coordinator.health.state == "connected")
    late = await make()
    await eventually(lambda: is_held(late))
    await coordinator.refresh()
    for each in (coordinator, late):
        limit = limit_of(each)
        assert limit is not None
        assert (limit.note, limit.seconds_remaining) == ("maintenance", about(3000.0))
    assert await late.clear_limits("openai") == 1
    assert left(late) == about(600.0)


async def test_what_was_released_on_the_new_server_is_not_put_back_by_those_who_come_later(
    own_server: RedisServer, make: Make
) -> None:
    """P44."""
    async with Proxy(own_server.port) as proxy:
        apart, there = await make(url=proxy.url), await make()
        await there.hold("released", 600.0)
        await there.hold("shortened", 600.0)
        await there.hold("kept", 600.0)
        await eventually(lambda: len(apart.limits) == 3)
        proxy.refuse = True
        proxy.break_all()
        await eventually(lambda: apart.health.state == "degraded")
        own_server.stop()
        own_server.start()
        await eventually(lambda: there.health.state == "connected")
        late = await make()
        await eventually(lambda: len(late.limits) == 3)
        assert await there.release("released")
        await there.hold("shortened", 60.0)
        proxy.refuse = False
        await eventually(lambda: apart.health.state == "connected")
        await apart.refresh()
        await there.refresh()
        for coordinator in (apart, there):
            assert set(coordinator.active_limits) == {"shortened", "kept"}
            assert left(coordinator, "shortened") == about(60.0)
        await apart.aclose()


async def test_a_hold_outlives_the_loss_of_its_keys_as_a_limit_does(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    coordinator = await make()
    keys = coordinator._engine.keys
    await coordinator.hold("openai", 600.0, "maintenance")
    admin.delete(keys.active)
    await coordinator.refresh()
    assert is_held(coordinator), "its key is left"
    admin.delete(keys.active, f"{keys.prefix}:limit:openai", keys.causes)
    await coordinator.report_rate_limit("openai", 30.0)
    late = await make()
    assert left(late) == about(600.0), "the hold itself is left"
    admin.delete(keys.holds)
    await coordinator.report_rate_limit("openai", 30.0)
    assert left(await make()) == about(600.0), "a plain limit is left"


async def test_holds_that_are_over_leave_nothing_behind(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make()
    keys = coordinator._engine.keys
    await coordinator.hold("long", 600.0)
    for number in range(20):
        await coordinator.hold(f"b{number}", 0.3)
        await coordinator.report_rate_limit(f"b{number}", 0.2)
    await asyncio.sleep(0.4)
    await coordinator.hold("openai", 1.0)
    records: Any = admin.hgetall(keys.holds)
    assert set(records) == {"long", "openai"}
    assert await coordinator.release("long")
    assert await coordinator.release("openai")
    assert not admin.exists(keys.holds)
    assert admin.zcard(keys.clears) == 22


async def test_prune_keeps_the_events_that_explain_what_a_release_left(
    real: Place, make: Make, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = await make()
    await coordinator.hold("openai", 600.0)
    await asyncio.sleep(0.01)
    await coordinator.report_rate_limit("openai", 300.0)
    await asyncio.sleep(0.3)
    await coordinator.release("openai")
    monkeypatch.setattr("rate_coordinator.coordinator.RECENT_SECONDS", 0.1)
    assert await coordinator.prune_stale() == 1, "the hold itself explains nothing any more"
    assert [event.kind for event in await coordinator.events()] == ["release", "report"]


async def test_whoever_missed_a_hold_and_its_release_learns_of_both(real: Place, make: Make) -> None:
    one, deaf = await make(), await make(resync_interval=1000.0)
    subscription = deaf._engine.subscription
    heard, subscription._heard = subscription._heard, lambda *_: False
    await one.hold("openai", 600.0, "maintenance")
    await one.report_rate_limit("claude", 60.0)
    assert deaf.limits == ()
    subscription._heard = heard
    await one.report_rate_limit("gemini", 60.0)
    await eventually(partial(is_held, deaf))
    subscription._heard = lambda *_: False
    await one.release("openai")
    subscription._heard = heard
    await one.report_rate_limit("github", 60.0)
    await eventually(lambda: not is_held(deaf))
