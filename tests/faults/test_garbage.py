"""What others left in our keys and say on our channel."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
import redis

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.keys import Keys
from rate_coordinator.targets import Target
from tests.conftest import Make, Place
from tests.server.test_healing import in_redis, resume_times
from tests.servers import RedisServer, eventually

KEYS = ["limit", "active", "causes", "events", "order", "clears", "holds", "applied"]


def key_of(keys: Keys, name: str, coordinator: RateLimitCoordinator) -> str:
    """Return a key of the namespace by its short name."""
    if name == "applied":
        return keys.applied(coordinator._engine.store._client_id)
    return keys.limit(Target("openai")) if name == "limit" else str(getattr(keys, name))


def spoil(admin: redis.Redis, key: str) -> None:
    """Leave something of a type in a key that none of ours has."""
    admin.delete(key)
    admin.rpush(key, "garbage")


@pytest.mark.parametrize("name", KEYS)
async def test_a_key_of_a_wrong_type_is_removed_with_one_warning_and_fails_no_report(
    real: Place, make: Make, admin: redis.Redis, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """P37: which error it is, no server says in the same words."""
    one, two = await make(resync_interval=1000), await make(resync_interval=1000)
    await one.report_rate_limit("openai", 60.0, "job", 1)
    await eventually(lambda: two.active_limits)
    spoil(admin, key_of(real.keys, name, one))
    batch = [one.report_rate_limit(backend, 300.0, sheet_num=7) for backend in ("claude", "openai", "github")]
    results = await asyncio.gather(*batch)
    assert all(result.delivered and result.extended for result in results)
    await two.refresh()
    await eventually(lambda: resume_times(one) == resume_times(two) == in_redis(admin, real))
    assert set(two.active_limits) == {"openai", "claude", "github"}
    assert [event.sheet_num for event in await two.events()].count(7) == 3
    assert (one.health.state, one.health.last_error) == ("connected", None)
    expected = 0 if name == "limit" else 1
    assert one.health.garbage_removed + two.health.garbage_removed == expected
    assert len([record for record in caplog.records if "wrong type" in record.getMessage()]) == expected
    assert await two.clear_limits() == 3
    await eventually(lambda: not one.active_limits)


async def test_records_of_holds_that_make_no_sense_are_no_holds(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make()
    for record in ("garbage", "", "9" * 400 + "|1-1|1|", f"{2**53}|1-1||", f"{2**53}|1-1|5|garbage", '5|"|5|"a":1'):
        admin.hset(real.keys.holds, "openai", record)
        admin.hset(real.keys.holds, "openai:reports", record)
        assert (await coordinator.report_rate_limit("openai", 60.0)).delivered
        assert await coordinator.clear_limits("openai") == 1
        assert (await coordinator.hold("openai", 60.0)).extended
        assert await coordinator.release("openai")
        assert coordinator.limits == ()


@pytest.mark.parametrize("name", KEYS)
async def test_a_key_of_a_wrong_type_hinders_no_clear_and_no_start(
    real: Place, make: Make, admin: redis.Redis, name: str
) -> None:
    coordinator = await make(resync_interval=1000)
    await coordinator.report_rate_limit("openai", 60.0)
    await coordinator.report_rate_limit("claude", 60.0)
    spoil(admin, key_of(real.keys, name, coordinator))
    late = await make()
    assert late.health.state == "connected"
    spoil(admin, key_of(real.keys, name, coordinator))
    assert await coordinator.clear_limits() >= (0 if name == "active" else 2)
    await coordinator.refresh()
    assert coordinator.active_limits == {}
    assert await coordinator.events() is not None
    assert await coordinator.prune_stale() >= 0


async def test_members_that_are_no_targets_are_passed_over(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make(resync_interval=1000)
    await coordinator.report_rate_limit("openai", 60.0)
    soon = time.time() * 1000 + 60_000
    garbage: Any = {b"\xff\xfe": soon, "%zz%80": soon, "": soon, "a/b/c": soon, "endless": "inf", "far": 1e30}
    admin.zadd(real.keys.active, garbage)
    await coordinator.refresh()
    late = await make()
    for one in (coordinator, late):
        assert "openai" in one.active_limits
        assert (await one.report_rate_limit("claude", 60.0)).delivered
        assert (one.health.state, one.health.last_error) == ("connected", None)
    assert await late.clear_limits("openai") == 1
    assert await late.clear_limits() >= 1


async def test_a_backlog_of_a_million_entries_does_not_hold_up_the_start(server: RedisServer) -> None:
    keys = Keys("test")
    fill = """
    local time = redis.call('TIME')
    for number = 1, 100000 do
      redis.call('XADD', KEYS[1], '*', 'kind', 'report', 'wait_ms', '5', 'extended', '0', 'resume_at_ms', '0',
        'details', ARGV[1])
    end
    """
    for part in range(10):
        # Half of them cannot be read as events, so that looking for enough of them must end as well.
        details = '{"backend":"openai","sheet_num":1}' if part < 5 else "garbage"
        await asyncio.to_thread(server.admin.eval, fill, 1, keys.events, details)
    began = time.monotonic()
    async with RateLimitCoordinator.from_url(server.url, "test") as coordinator:
        assert time.monotonic() - began < 5.0
        print(f"\nstart with a backlog of a million entries: {time.monotonic() - began:.2f} s", end="")
        assert (await coordinator.report_rate_limit("openai", 60.0)).delivered
        assert coordinator.health.state == "connected"


async def test_a_forged_notice_of_the_far_future_holds_no_longer_than_until_the_next_snapshot(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    coordinator = await make(resync_interval=1000)
    await coordinator.report_rate_limit("openai", 60.0)
    now_ms = round(time.time() * 1000)
    forged = {"version": 1, "kind": "limit", "epoch": admin.hget(real.keys.order, "epoch"), "backend": "forged"}
    forged |= {"id": f"{now_ms + 10**9}-0", "previous_id": "0-0", "now_ms": now_ms}
    admin.publish(real.keys.notices, json.dumps({**forged, "resume_at_ms": now_ms + 10**8, "wait_ms": 10**8}))
    await eventually(lambda: "forged" in coordinator.active_limits)
    await coordinator.refresh()
    assert resume_times(coordinator) == in_redis(admin, real)
    await (await make()).report_rate_limit("claude", 60.0)
    await eventually(lambda: set(coordinator.active_limits) == {"openai", "claude"})


async def test_nonsense_on_the_channel_is_counted_warned_of_once_and_changes_nothing(
    real: Place, make: Make, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = await make()
    result = await coordinator.report_rate_limit("openai", 60.0)
    before = resume_times(coordinator)
    now_ms = round(time.time() * 1000)
    notice: dict[str, Any] = {"version": 1, "kind": "limit", "epoch": "x", "id": result.event_id, "previous_id": "0-0"}
    notice |= {"backend": "openai", "now_ms": now_ms, "resume_at_ms": now_ms, "wait_ms": 0}
    absurd: list[dict[str, Any]] = [
        {"resume_at_ms": 10**18},
        {"now_ms": -5},
        {"wait_ms": 1e300},
        {"id": f"{10**17}-0"},
        {"id": "never"},
    ]
    messages: list[Any] = [
        "x" * 2**20,
        b"\xff\x00\xfe",
        "[" * 50_000,
        *(json.dumps({**notice, **part}) for part in absurd),
    ]
    for message in messages:
        admin.publish(real.keys.notices, message)
    await eventually(lambda: coordinator.health.notices_unreadable == len(messages))
    await coordinator.refresh()
    assert resume_times(coordinator) == before == in_redis(admin, real)
    assert (coordinator.health.state, coordinator.health.reconnects) == ("connected", 0)
    warnings = [vars(record)["trouble"] for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["too_large", "not_json", "not_a_notice"], "one of each kind"
