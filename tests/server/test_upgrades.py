"""Older and newer versions in one fleet: what is added is ignored, what is changed is left alone."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis

from rate_coordinator import Notice, RateLimitCoordinator, ServerUnsuitable
from rate_coordinator.models import WIRE_VERSION
from rate_coordinator.scripts import read_script
from tests.conftest import Make, Place
from tests.servers import eventually


def test_scripts_and_notices_are_of_one_format() -> None:
    for name in ("report", "clear", "snapshot", "probe", "hold"):
        assert f"local FORMAT = {WIRE_VERSION}\n" in read_script(name)


async def test_the_keys_tell_their_format(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 60.0)
    assert admin.hget(real.keys.order, "format") == str(WIRE_VERSION)


async def test_what_a_newer_version_added_is_ignored(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make()
    heard: list[Notice] = []
    coordinator.on_notice(heard.append)
    await coordinator.report_rate_limit("openai", 60.0)
    await eventually(lambda: heard)
    admin.hset(real.keys.order, "colour", "17")
    admin.set(f"{real.keys.prefix}:colour:openai", "17")
    fields: Any = {"kind": "report", "wait_ms": "5", "extended": "0", "resume_at_ms": "0", "colour": "red"}
    admin.xadd(real.keys.events, {**fields, "details": '{"backend":"openai","shape":"round"}'})
    admin.publish(real.keys.notices, json.dumps({"version": 1, "kind": "colour", "red": 5}))
    told = {**heard[0].model_dump(), "previous_id": heard[0].id, "id": f"{heard[0].now_ms + 1}-0", "colour": "red"}
    admin.publish(real.keys.notices, json.dumps({**told, "backend": "claude"}))
    await eventually(lambda: "claude" in coordinator.active_limits)
    assert [event.suggested_wait_seconds for event in await coordinator.events()] == [0.005, 60.0]
    assert (await coordinator.report_rate_limit("openai", 70.0)).extended
    assert admin.hget(real.keys.order, "colour") == "17"
    assert coordinator.health.notices_unreadable == 0


async def test_a_notice_of_a_newer_version_that_is_not_understood_is_no_garbage(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    coordinator = await make()
    admin.publish(real.keys.notices, json.dumps({"version": WIRE_VERSION + 1, "kind": "limit", "target": ["openai"]}))
    admin.publish(real.keys.notices, "garbage")
    await eventually(lambda: coordinator.health.notices_unreadable == 1)
    assert coordinator.health.notices_newer == 1
    await coordinator.report_rate_limit("openai", 60.0)
    assert coordinator.health.reconnects == 0


async def test_a_namespace_in_a_newer_format_is_refused_at_start_and_left_alone(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    admin.hset(real.keys.order, mapping={"format": str(WIRE_VERSION + 1), "epoch": "newer"})
    coordinator = RateLimitCoordinator.from_url(real.url, real.namespace)
    with pytest.raises(ServerUnsuitable, match=f"format {WIRE_VERSION + 1}.*upgrade"):
        await coordinator.start()
    await coordinator.aclose()
    assert admin.hgetall(real.keys.order) == {"format": str(WIRE_VERSION + 1), "epoch": "newer"}


async def test_a_fleet_whose_namespace_is_upgraded_under_it_goes_on_from_what_it_knows(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    coordinator = await make(resync_interval=0.1)
    await coordinator.report_rate_limit("openai", 60.0)
    admin.hset(real.keys.order, "format", str(WIRE_VERSION + 1))
    before = {key: admin.dump(key) for key in admin.keys(f"{real.keys.prefix.replace('[', '?')}*")}
    await eventually(lambda: coordinator.health.state == "degraded")
    began = time.monotonic()
    result = await coordinator.report_rate_limit("claude", 30.0)
    assert not result.delivered
    assert time.monotonic() - began < 6
    assert set(coordinator.active_limits) == {"openai", "claude"}
    assert "upgrade" in (coordinator.health.last_error or "")
    assert {key: admin.dump(key) for key in before} == before, "nothing of the newer format was touched"
    admin.hset(real.keys.order, "format", str(WIRE_VERSION))
    await eventually(lambda: coordinator.health.state == "connected" and coordinator.health.reports_buffered == 0)
