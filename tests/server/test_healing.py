"""The mirror heals every gap by itself, against real servers that lose what they hold.

All but the net's own test use a re-synchronisation interval that no test waits for: what heals, heals for a reason.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from rate_coordinator import Notice, RateLimitCoordinator
from rate_coordinator.models import EntryId
from rate_coordinator.targets import Target
from tests.conftest import Make, Place
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, eventually


def resume_times(coordinator: RateLimitCoordinator) -> dict[str, int]:
    """Return what a mirror holds, in milliseconds of the server's clock."""
    return {str(limit.target): round(limit.resume_at.timestamp() * 1000) for limit in coordinator.limits}


def in_redis(admin: redis.Redis, place: Place) -> dict[str, int]:
    """Return what Redis holds."""
    active: Any = admin.zrange(place.keys.active, 0, -1, withscores=True)
    return {target: int(resume_at_ms) for target, resume_at_ms in active}


async def test_a_missed_notice_is_found_by_the_next_one(real: Place, make: Make, admin: redis.Redis) -> None:
    deaf, other = await make(resync_interval=1000), await make()
    engine = deaf._engine
    heard, engine.subscription._heard = engine.subscription._heard, lambda notice, at: False
    await other.report_rate_limit("missed", 60.0)
    await eventually(lambda: engine.subscription.received == 1)
    engine.subscription._heard = heard
    assert deaf.active_limits == {}
    await other.report_rate_limit("heard", 60.0)
    await eventually(lambda: resume_times(deaf) == in_redis(admin, real))
    assert deaf.health.notices_missed == 1


async def test_a_missed_clear_is_found_by_the_next_notice(real: Place, make: Make) -> None:
    deaf, other = await make(resync_interval=1000), await make()
    await other.report_rate_limit("openai", 60.0)
    await eventually(lambda: "openai" in deaf.active_limits)
    waiter = asyncio.create_task(deaf.wait_until_clear("openai"))
    heard, deaf._engine.subscription._heard = deaf._engine.subscription._heard, lambda notice, at: False
    received = deaf.health.notices_received
    await other.clear_limits("openai")
    await eventually(lambda: deaf.health.notices_received > received)
    deaf._engine.subscription._heard = heard
    await other.report_rate_limit("claude", 60.0)
    async with asyncio.timeout(5):
        await waiter
    assert set(deaf.active_limits) == {"claude"}


async def test_consumers_are_told_what_was_missed_and_each_change_once(real: Place, make: Make) -> None:
    deaf, other = await make(resync_interval=1000), await make()
    told: list[Notice] = []
    deaf.on_notice(told.append)
    await other.report_rate_limit("openai", 60.0, "job", 4)
    await eventually(lambda: len(told) == 1)
    heard, deaf._engine.subscription._heard = deaf._engine.subscription._heard, lambda notice, at: False
    await other.clear_limits("openai")
    await other.report_rate_limit("missed", 50.0, "job", 5, model="m")
    await eventually(lambda: deaf.health.notices_received == 3)
    deaf._engine.subscription._heard = heard
    await other.report_rate_limit("heard", 60.0)
    await eventually(lambda: len(told) >= 4)
    await deaf.refresh()
    await asyncio.sleep(0)
    assert sorted((n.kind, n.backend, n.model, n.recovered) for n in told) == [
        ("clear", "openai", None, True),
        ("limit", "heard", None, False),
        ("limit", "missed", "m", True),
        ("limit", "openai", None, False),
    ]
    recovered = next(notice for notice in told if notice.backend == "missed")
    assert (recovered.job_id, recovered.sheet_num, recovered.wait_ms) == ("job", 5, 50_000)


async def test_doubled_late_and_reordered_notices_change_nothing(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator, other = await make(resync_interval=1000), await make()
    with admin.pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(real.keys.notices)
        listener.get_message(timeout=5)
        for wait in (10.0, 20.0, 60.0):
            await other.report_rate_limit("openai", wait)
        await other.clear_limits("openai")
        await other.report_rate_limit("openai", 5.0)
        messages: list[bytes] = []
        deadline = time.monotonic() + 5
        while len(messages) < 5 and time.monotonic() < deadline:
            message: Any = listener.get_message(timeout=1)
            messages += [message["data"]] if message else []
    expected = in_redis(admin, real)
    await eventually(lambda: resume_times(coordinator) == expected)
    received = coordinator.health.notices_received
    for message in [*reversed(messages), *messages, messages[2], messages[0]]:
        admin.publish(real.keys.notices, message)
    await eventually(lambda: coordinator.health.notices_received == received + 12)
    assert resume_times(coordinator) == expected
    assert coordinator.active_limits["openai"] <= 5.0
    await coordinator.refresh()
    assert resume_times(coordinator) == expected


async def test_a_flushed_database_is_noticed_at_the_next_change_and_begins_a_new_epoch(
    own_server: RedisServer, make: Make
) -> None:
    one, two = await make(resync_interval=1000), await make(resync_interval=1000)
    await one.report_rate_limit("old", 600.0)
    await eventually(lambda: "old" in two.active_limits)
    own_server.admin.flushall()
    await one.report_rate_limit("new", 60.0)
    place = Place(own_server.url, "test")
    await eventually(lambda: resume_times(one) == resume_times(two) == in_redis(own_server.admin, place))
    assert set(two.active_limits) == {"new"}
    assert (await two.is_rate_limited("old")) == (False, 0.0)


async def test_a_flushed_database_is_noticed_by_the_net_when_nothing_else_happens(
    own_server: RedisServer, make: Make
) -> None:
    coordinator = await make(resync_interval=0.2)
    await coordinator.report_rate_limit("openai", 600.0)
    waiter = asyncio.create_task(coordinator.wait_until_clear("openai"))
    await asyncio.sleep(0)
    own_server.admin.flushall()
    async with asyncio.timeout(5):
        await waiter
    assert coordinator.active_limits == {}
    assert (await coordinator.report_rate_limit("openai", 5.0)).seconds_remaining <= 5.0


@pytest.mark.parametrize("persistent", [True, False], ids=["with its data", "without"])
async def test_after_a_restart_the_mirror_equals_redis_again(
    own_server: RedisServer, make: Make, persistent: bool
) -> None:
    one, two = await make(), await make()
    if persistent:
        own_server.admin.config_set("appendonly", "yes")
        await eventually(lambda: own_server.admin.info("persistence")["aof_rewrite_in_progress"] == 0)
    await one.report_rate_limit("before", 600.0)
    await eventually(lambda: "before" in two.active_limits)
    if persistent:
        own_server.admin.save()
        own_server.admin.config_set("appendonly", "no")
    own_server.stop()
    assert "before" in two.active_limits, "what was known goes on counting down"
    own_server.start()
    place = Place(own_server.url, "test")
    for coordinator in (one, two):
        await eventually(lambda c=coordinator: c.health.state == "connected")  # type: ignore[misc]
    await two.report_rate_limit("after", 60.0)
    await eventually(lambda: resume_times(one) == resume_times(two) == in_redis(own_server.admin, place))
    # Where the data is gone with the old process, those who know the limit put it back.
    assert set(one.active_limits) == {"before", "after"}


@pytest.mark.parametrize("key", ["limit:openai", "active", "causes", "events", "order"])
async def test_a_key_that_is_evicted_lifts_no_limit_and_splits_no_opinion(
    real: Place, make: Make, admin: redis.Redis, key: str
) -> None:
    one, two = await make(resync_interval=1000), await make(resync_interval=1000)
    first = await one.report_rate_limit("openai", 600.0, "job", 1)
    await one.report_rate_limit("claude", 500.0)
    await eventually(lambda: len(two.active_limits) == 2)
    before = resume_times(one)
    assert admin.delete(f"{real.keys.prefix}:{key}") == 1
    await two.refresh()
    assert resume_times(two) == before
    again = await one.report_rate_limit("openai", 1.0)
    assert again.resume_at == first.resume_at
    assert not again.extended
    late = await make()
    for coordinator in (one, two, late):
        await coordinator.refresh()
        assert resume_times(coordinator) == before == in_redis(admin, real)
    if key != "events":
        told = await late.explain("openai")
        assert told.cause is not None
        assert told.cause.job_id == "job"
    assert await late.clear_limits() == 2
    await eventually(lambda: not one.active_limits and not two.active_limits)


async def test_an_index_that_somebody_else_restores_in_the_same_moment_lifts_no_limit(
    real: Place, make: Make, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await make(resync_interval=1000), await make(resync_interval=1000)
    await one.report_rate_limit("openai", 600.0)
    await one.report_rate_limit("claude", 2.0)
    await eventually(lambda: len(two.active_limits) == 2)
    before = resume_times(two)
    store = two._engine.store
    reindex = store.reindex

    async def too_late(targets: Sequence[Target]) -> int:
        # Between the snapshot that showed that the index was gone, and the call that is to restore it.
        await one.refresh()
        return await reindex(targets)

    monkeypatch.setattr(store, "reindex", too_late)
    admin.delete(real.keys.active)
    await two.refresh()
    assert resume_times(two) == before == in_redis(admin, real)


async def test_an_index_that_was_restored_lives_as_long_as_what_is_reported_later(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    coordinator = await make(resync_interval=1000)
    await coordinator.report_rate_limit("openai", 600.0)
    await coordinator.clear_limits()
    await coordinator.report_rate_limit("claude", 1.0)
    admin.delete(real.keys.active)
    await coordinator.refresh()
    await coordinator.report_rate_limit("claude", 300.0)
    left_ms: Any = admin.pttl(real.keys.active)
    assert left_ms > 299_000


async def test_a_limits_key_that_was_evicted_is_back_with_the_next_report(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    coordinator = await make(resync_interval=1000)
    first = await coordinator.report_rate_limit("openai", 600.0)
    key = f"{real.keys.prefix}:limit:openai"
    told, lives = admin.get(key), admin.pexpiretime(key) if admin.info()["redis_version"] >= "7" else None
    admin.delete(key)
    assert not (await coordinator.report_rate_limit("openai", 1.0)).extended
    assert admin.get(key) == told
    assert lives is None or admin.pexpiretime(key) == lives
    admin.delete(real.keys.active)
    assert (await coordinator.report_rate_limit("openai", 1.0)).resume_at == first.resume_at


async def test_limits_whose_every_trace_is_evicted_are_gone_for_everyone(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    one, two = await make(), await make()
    await one.report_rate_limit("openai", 600.0)
    await eventually(lambda: two.active_limits)
    admin.delete(f"{real.keys.prefix}:limit:openai", real.keys.active)
    for coordinator in (one, two):
        await coordinator.refresh()
        assert coordinator.active_limits == {}


async def test_a_broken_connection_is_renewed_and_what_was_missed_is_learned(
    own_server: RedisServer, make: Make
) -> None:
    async with Proxy(own_server.port) as proxy:
        listener, other = await make(url=proxy.url, resync_interval=1000), await make()
        for number in range(5):
            proxy.break_all()
            await other.report_rate_limit(f"b{number}", 60.0)
            await eventually(lambda number=number: f"b{number}" in listener.active_limits)  # type: ignore[misc]
        await eventually(lambda: listener.health.state == "connected")
        assert listener.health.reconnects >= 5
        await listener.aclose()


async def test_a_peer_that_dies_silently_is_noticed_and_heard_again(own_server: RedisServer, make: Make) -> None:
    coordinator = await make(ping_interval=0.2, ping_timeout=0.3, connect_timeout=0.5, command_timeout=0.5)
    own_server.pause()
    await eventually(lambda: coordinator.health.state == "degraded", within=3)
    assert coordinator.health.degraded_seconds >= 0
    own_server.resume()
    await eventually(lambda: coordinator.health.state == "connected")
    await (await make()).report_rate_limit("openai", 60.0)
    await eventually(lambda: "openai" in coordinator.active_limits)


async def test_a_notice_of_another_epoch_waits_for_a_snapshot_to_say_where_it_belongs(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    coordinator = await make(resync_interval=1000)
    await coordinator.report_rate_limit("openai", 60.0)
    now_ms = round(time.time() * 1000)
    forged = {
        **{"version": 1, "kind": "clear", "epoch": "elsewhere", "id": f"{now_ms + 99_999_999}-0", "previous_id": "0-0"},
        **{"backend": "openai", "now_ms": now_ms},
    }
    resyncs = coordinator.health.resyncs
    admin.publish(real.keys.notices, json.dumps(forged))
    await eventually(lambda: coordinator.health.resyncs > resyncs)
    assert set(coordinator.active_limits) == {"openai"}
    await coordinator.clear_limits()
    assert coordinator.active_limits == {}


async def test_ids_that_go_back_after_a_lost_stream_do_not_deafen_anyone(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    one, two = await make(resync_interval=1000), await make(resync_interval=1000)
    # As if the server's clock had been hours ahead once: the stream's IDs are too, until it is deleted.
    future_ms = round(time.time() * 1000) + 10**8
    admin.xadd(real.keys.events, {"kind": "noise"}, id=f"{future_ms}-0")
    first = await one.report_rate_limit("openai", 60.0)
    assert first.event_id is not None
    assert EntryId.parse(first.event_id).ms >= future_ms
    await eventually(lambda: "openai" in two.active_limits)
    admin.delete(real.keys.events)
    second = await one.report_rate_limit("openai", 90.0)
    assert second.event_id is not None
    assert EntryId.parse(second.event_id).ms < future_ms
    await eventually(lambda: two.active_limits["openai"] > 80)
    assert await two.clear_limits() == 1
    await eventually(lambda: not one.active_limits)


async def test_a_script_cache_that_is_flushed_between_calls_is_not_noticed(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    one, two = await make(), await make()
    for number in range(10):
        admin.script_flush()
        assert (await one.report_rate_limit("openai", 60.0 + number)).delivered
        admin.script_flush()
        await two.refresh()
    assert await two.clear_limits() == 1


async def test_a_reply_of_an_order_that_is_not_known_has_a_snapshot_read_at_once(
    own_server: RedisServer, make: Make
) -> None:
    coordinator = await make(resync_interval=1000)
    await coordinator.report_rate_limit("old", 600.0)
    engine = coordinator._engine
    engine.subscription._heard = lambda notice, at: False
    own_server.admin.flushall()
    await coordinator.report_rate_limit("new", 60.0)
    place = Place(own_server.url, "test")
    await eventually(lambda: resume_times(coordinator) == in_redis(own_server.admin, place) and not engine.mirror.stale)
    assert set(coordinator.active_limits) == {"new"}
