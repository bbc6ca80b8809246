"""A cancellation that meets a failure is not lost."""

from __future__ import annotations

import asyncio

from rate_coordinator import CoordinatorUnavailable, RateLimitCoordinator
from rate_coordinator.link import Link


async def test_a_part_that_fails_while_it_is_cancelled_does_not_keep_a_coordinator_from_closing() -> None:
    coordinator = RateLimitCoordinator.from_url("memory://")
    subscription = coordinator._engine.subscription

    async def failing(link: Link) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise CoordinatorUnavailable("the connection was closed under it") from None

    subscription._listen = failing  # type: ignore[method-assign]
    await coordinator.start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await coordinator.aclose()
    assert coordinator.health.state == "closed"
    assert asyncio.all_tasks() == {asyncio.current_task()}
