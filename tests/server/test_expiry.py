"""Everything in Redis ends by itself, but the stream of events and the order of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.answers import Answer
from rate_coordinator.targets import Target
from tests.conftest import Make, Place

Step = Callable[[RateLimitCoordinator], Awaitable[object]]
LONG, SHORT = 3000.0, 5.0


async def be_refused(coordinator: RateLimitCoordinator) -> None:
    async with coordinator.admit("openai") as call:
        await call.limited(0.05)


async def be_served(coordinator: RateLimitCoordinator) -> None:
    async with coordinator.admit("openai"):
        pass


async def be_told_what_is_left(coordinator: RateLimitCoordinator) -> None:
    async with coordinator.admit("openai") as call:
        await call.observe(Answer(remaining=5, reset_seconds=0.5))


async def report_long(coordinator: RateLimitCoordinator) -> None:
    await coordinator.report_rate_limit("openai", LONG)


async def report_short(coordinator: RateLimitCoordinator) -> None:
    await coordinator.report_rate_limit("claude", SHORT)


async def clear(coordinator: RateLimitCoordinator) -> None:
    await coordinator.clear_limits()


async def hold(coordinator: RateLimitCoordinator) -> None:
    await coordinator.hold("openai", LONG / 2)


async def release(coordinator: RateLimitCoordinator) -> None:
    await coordinator.release("openai")


async def refresh(coordinator: RateLimitCoordinator) -> None:
    await coordinator.refresh()


def immortal(admin: redis.Redis, place: Place) -> list[str]:
    names: Any = admin.keys(f"{place.keys.prefix}:*")
    return [name for name in names if admin.pttl(name) < 0 and name not in (place.keys.events, place.keys.order)]


@pytest.mark.parametrize(
    ("steps", "lost"),
    [
        ((report_long, clear), ""),
        ((hold, release), ""),
        ((hold, report_long, clear), "active"),
        ((hold, report_long, release), "causes"),
        ((report_long, refresh), "active"),
        ((be_refused, be_served, clear, be_served), ""),
        ((be_refused, be_served, be_served), "paces"),
        ((be_told_what_is_left, be_served, be_served), "paces"),
        ((be_refused, be_told_what_is_left, be_served), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(step.__name__ for step in value),
)
async def test_nothing_but_the_events_and_their_order_stays_for_ever(
    real: Place, make: Make, admin: redis.Redis, steps: tuple[Step, ...], lost: str
) -> None:
    """P43: also where an index was empty or lost, and is begun again."""
    coordinator = await make(resync_interval=1000)
    for step in (*steps, report_short):
        await step(coordinator)
        assert immortal(admin, real) == []
        if lost:
            admin.delete(f"{real.keys.prefix}:{lost}")


async def test_a_limit_that_a_try_lifts_leaves_no_index_that_stays(real: Place, make: Make, admin: redis.Redis) -> None:
    """P43."""
    coordinator = await make(verify_every=0.05)
    await report_long(coordinator)
    await be_served(coordinator)
    assert not coordinator.active_limits
    await report_short(coordinator)
    assert immortal(admin, real) == []


@pytest.mark.parametrize("lost", ["active", "order"])
async def test_the_index_lives_as_long_as_any_limit_whatever_is_reported_after_a_loss(
    real: Place, make: Make, admin: redis.Redis, lost: str
) -> None:
    coordinator = await make(resync_interval=1000)
    await report_long(coordinator)
    admin.delete(f"{real.keys.prefix}:{lost}")
    await report_short(coordinator)
    await coordinator.refresh()
    for index in (real.keys.active, real.keys.causes):
        assert admin.pttl(index) > (LONG - 60) * 1000


async def test_the_index_of_paces_lives_as_long_as_the_pace_of_a_window(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    """A window that was found is remembered for twice its length, which may be longer than ``forget_after``."""
    coordinator = await make()
    await be_refused(coordinator)
    await be_served(coordinator)
    pace = real.keys.pace(Target("openai"))
    admin.hset(pace, "period_ms", "3600000")
    await be_served(coordinator)
    assert admin.pttl(real.keys.paces) >= admin.pttl(pace) - 1000 > 7_000_000
