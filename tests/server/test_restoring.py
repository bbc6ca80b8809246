"""What a fleet knows outlives a server that lost it, and what somebody cleared stays cleared."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from rate_coordinator import RateLimitCoordinator, subscription
from rate_coordinator.targets import Target
from tests.conftest import Make
from tests.faults.proxy import Faults, Proxy, listeners
from tests.servers import RedisServer, eventually


@pytest.fixture
async def proxy(own_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(own_server.port) as proxy:
        yield proxy


async def cut_off(proxy: Proxy, coordinator: RateLimitCoordinator) -> None:
    """Part a coordinator from its server until ``proxy.refuse`` is taken back."""
    proxy.refuse = True
    proxy.break_all()
    await eventually(lambda: coordinator.health.state == "degraded")


async def reconnect(proxy: Proxy, coordinator: RateLimitCoordinator) -> None:
    proxy.refuse = False
    await eventually(lambda: coordinator.health.state == "connected" and coordinator.health.reports_buffered == 0)


async def test_limits_that_a_restarted_server_lost_are_put_back_by_those_who_know_them(
    own_server: RedisServer, make: Make
) -> None:
    fleet = [await make(reporter=f"process {number}") for number in range(5)]
    began = time.monotonic()
    await fleet[0].report_rate_limit("claude", 600.0, "job", 7, model="opus", reason="quota")
    await fleet[1].report_rate_limit("openai", 99_999.0)
    await eventually(lambda: all(len(one.active_limits) == 2 for one in fleet))
    own_server.stop()
    own_server.start()
    for one in fleet:
        await eventually(lambda one=one: one.health.state == "connected")  # type: ignore[misc]
        assert set(one.active_limits) == {"claude/opus", "openai"}, "at no time was anybody released"
    late = await make()
    await eventually(lambda: set(late.active_limits) == {"claude/opus", "openai"})
    passed = time.monotonic() - began
    assert 600 - passed - 0.5 <= late.active_limits["claude/opus"] <= 600
    told = await late.explain("claude", "opus")
    assert told.cause is not None
    assert (told.cause.job_id, told.cause.sheet_num, told.cause.reason) == ("job", 7, "quota")
    assert told.cause.asked_wait_seconds == 600.0
    assert told.cause.restores
    assert (await late.explain("openai")).cause.clamped == "above_cap"  # type: ignore[union-attr]
    assert len(await late.events()) <= 2 * len(fleet)


async def test_what_a_server_acknowledged_that_died_before_it_was_heard_is_put_back_and_never_let_go(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = await make()
    await reporter.report_rate_limit("openai", 30.0)
    # The listener comes back only after both restarts; until then, nothing but replies tells of the first of them.
    monkeypatch.setattr(random, "random", lambda: 1.0)
    monkeypatch.setattr(subscription, "SPREAD_SECONDS", 2.0)
    own_server.stop()
    own_server.start()
    for backend in ("openai", "claude"):
        assert (await reporter.report_rate_limit(backend, 600.0)).delivered
    own_server.stop()
    own_server.start()
    assert reporter.health.state == "degraded"

    def is_held() -> bool:
        return all(reporter.active_limits.get(backend, 0.0) > 500 for backend in ("openai", "claude"))

    async def is_connected() -> bool:
        assert is_held()
        return reporter.health.state == "connected"

    await eventually(is_connected)
    assert is_held()
    late = await make()
    assert {backend for backend, left in late.active_limits.items() if left > 500} == {"openai", "claude"}


async def test_a_flush_of_the_same_server_is_somebodys_decision(own_server: RedisServer, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 600.0)
    own_server.admin.flushall()
    await coordinator.refresh()
    assert coordinator.active_limits == {}


async def test_an_older_state_of_another_server_does_not_shorten_a_limit(own_server: RedisServer, make: Make) -> None:
    one, two = await make(), await make()
    await one.report_rate_limit("openai", 100.0)
    own_server.admin.save()
    await one.report_rate_limit("openai", 600.0)
    await eventually(lambda: two.active_limits.get("openai", 0) > 500)
    own_server.stop()
    own_server.start()
    for coordinator in (one, two):
        await eventually(lambda c=coordinator: c.health.state == "connected")  # type: ignore[misc]
        assert coordinator.active_limits["openai"] > 500
    late = await make()
    await eventually(lambda: late.active_limits["openai"] > 500)


async def test_what_is_cleared_on_the_new_server_is_not_put_back_by_those_who_come_later(
    own_server: RedisServer, make: Make, proxy: Proxy
) -> None:
    apart, there = await make(url=proxy.url), await make()
    await there.report_rate_limit("openai", 600.0)
    await there.report_rate_limit("claude", 600.0, model="opus")
    await there.report_rate_limit("gemini", 600.0)
    await eventually(lambda: len(apart.active_limits) == 3)
    await cut_off(proxy, apart)
    own_server.stop()
    own_server.start()
    late = await make()
    await eventually(lambda: len(late.active_limits) == 3)
    assert await there.clear_limits("openai") == 1
    assert await there.clear_limits("claude") == 1
    await reconnect(proxy, apart)
    await apart.refresh()
    assert set(apart.active_limits) == {"gemini"}
    assert set(there.active_limits) == {"gemini"}


@pytest.mark.parametrize(
    ("backend", "model", "wins"),
    [
        (None, None, True),
        ("claude", None, True),
        ("claude", "opus", True),
        ("claude", "haiku", False),
        ("a", None, False),
    ],
    ids=["all", "backend", "model", "another model", "another backend"],
)
async def test_a_clear_wins_over_a_report_that_was_made_before_it_and_arrives_after_it(
    own_server: RedisServer, make: Make, proxy: Proxy, backend: str | None, model: str | None, wins: bool
) -> None:
    """P44."""
    apart, there = await make(url=proxy.url), await make()
    await cut_off(proxy, apart)
    result = await apart.report_rate_limit("claude", 600.0, "job", 1, model="opus")
    assert not result.delivered
    assert (await apart.is_rate_limited("claude", "opus"))[0]
    # Longer than any call is on its way: by so much may the server take a report to be younger than it is.
    await asyncio.sleep(0.5)
    await there.clear_limits(backend, model=model)
    await reconnect(proxy, apart)
    events = [event for event in await there.events() if event.kind == "report"]
    assert [event.job_id for event in events] == ["job"], "what was reported stays on record"
    assert (await apart.is_rate_limited("claude", "opus"))[0] is not wins
    await there.refresh()
    assert (await there.is_rate_limited("claude", "opus"))[0] is not wins
    for event in (*events, *(event for event in apart.recent_events)):
        assert event.clamped == ("cleared" if wins else None)
        assert event.asked_wait_seconds == 600.0
        assert event.extended is not wins
        assert (event.suggested_wait_seconds == 0.0) is wins


async def test_a_report_that_was_made_after_a_clear_stands_however_late_it_arrives(
    own_server: RedisServer, make: Make, proxy: Proxy
) -> None:
    """P44."""
    apart, there = await make(url=proxy.url), await make()
    await there.report_rate_limit("claude", 600.0)
    await there.clear_limits()
    await cut_off(proxy, apart)
    await asyncio.sleep(0.02)
    assert not (await apart.report_rate_limit("claude", 60.0)).delivered
    await reconnect(proxy, apart)
    await eventually(lambda: "claude" in there.active_limits)
    assert there.active_limits["claude"] < 60.0


async def test_a_limit_that_is_known_from_a_reply_alone_is_put_back_in_spite_of_an_earlier_clear(
    own_server: RedisServer, make: Make, proxy: Proxy
) -> None:
    """P44: the reply to a shorter report names no wait, but the event that set the limit."""
    deaf, other = await make(url=proxy.url, ping_interval=60.0, resync_interval=60.0), await make()
    await other.clear_limits("openai")
    await asyncio.sleep(0.02)
    # What the listener is sent is lost from now on; calls are answered.
    proxy.go_wrong(Faults(listeners, holes=frozenset({"replies"})))
    await other.report_rate_limit("openai", 600.0)
    await other.aclose()
    await deaf.report_rate_limit("openai", 1.0)
    assert deaf.active_limits["openai"] > 500
    own_server.admin.execute_command("DEL", deaf._engine.keys.active, deaf._engine.keys.limit(Target("openai")))  # type: ignore[no-untyped-call]
    own_server.admin.save()
    own_server.stop()
    own_server.start()
    proxy.heal(forget=True)
    proxy.break_all()
    await eventually(lambda: deaf.health.state == "connected" and deaf.health.reconnects > 0)
    assert deaf.active_limits["openai"] > 500
    late = await make()
    assert late.active_limits["openai"] > 500
