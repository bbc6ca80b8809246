"""Listeners that lose their connection while others report."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest

from rate_coordinator import RateLimitCoordinator, subscription
from tests.conftest import Place
from tests.server.test_healing import in_redis, resume_times
from tests.servers import RedisServer, eventually
from tests.worker import Worker

LISTENERS = 8
ROUNDS = 125


async def test_a_thousand_subscriptions_killed_around_a_change_miss_none(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P28: eight listeners, killed 125 times each; pauses before the next attempt are shortened for the time's sake."""
    monkeypatch.setattr(subscription, "SPREAD_SECONDS", 0.005)
    monkeypatch.setattr("rate_coordinator.backoff.LONGEST_SECONDS", 0.01)
    place = Place(server.url, "test")
    admin = server.admin
    everyone = [RateLimitCoordinator.from_url(server.url, "test", resync_interval=1000) for _ in range(LISTENERS + 1)]
    await asyncio.gather(*(one.start() for one in everyone))
    reporter, *listeners = everyone
    killed = 0
    for number in range(ROUNDS):
        await eventually(lambda: admin.pubsub_numsub(place.keys.notices)[0][1] == LISTENERS + 1)
        report = asyncio.create_task(reporter.report_rate_limit(f"b{number % 20}", 300.0 + number))
        await asyncio.sleep(0.001 * (number % 4))
        killed += admin.client_kill_filter(_type="pubsub") - 1
        if number % 10 == 9:
            await reporter.clear_limits(f"b{number % 20}")
        await report
        told = in_redis(admin, place)
        await eventually(lambda told=told: all(resume_times(one) == told for one in listeners))  # type: ignore[misc]
    assert killed == LISTENERS * ROUNDS
    assert all(one.health.reconnects >= ROUNDS for one in listeners)
    await asyncio.gather(*(one.aclose() for one in everyone))


async def test_a_listener_that_is_too_slow_for_the_server_comes_back_and_knows_everything(server: RedisServer) -> None:
    """P28: the server closes a subscription whose buffer overflows."""
    place, admin = Place(server.url, "test"), server.admin
    admin.config_set("client-output-buffer-limit", "pubsub 65536 65536 1")
    noise = json.dumps({"version": 1, "kind": "noise", "text": "x" * 60_000})
    async with (
        RateLimitCoordinator.from_url(server.url, "test") as reporter,
        Worker(server.url, "test") as slow,
    ):
        await reporter.report_rate_limit("before", 600.0)
        await slow.do("limited", "before")
        slow.signal(signal.SIGSTOP)
        listening: Any = 2
        for _ in range(400):
            listening = admin.publish(place.keys.notices, noise)
            if listening < 2:
                break
            await asyncio.sleep(0.001)
        assert listening == 1
        for number in range(50):
            await reporter.report_rate_limit(f"b{number}", 300.0)
        await reporter.clear_limits("before")
        slow.signal(signal.SIGCONT)

        async def knows_everything() -> bool:
            return bool(await slow.do("resume_times") == in_redis(admin, place))

        await eventually(knows_everything, within=5.0)
        health = await slow.do("health")
        assert (health["state"], health["degraded_seconds"]) == ("connected", 0.0)
        assert health["reconnects"] >= 1
        assert len(await slow.do("active")) == 50
