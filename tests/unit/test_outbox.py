"""Reports that travel together, on the embedded server."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest

from rate_coordinator import RateLimitCoordinator


@pytest.mark.parametrize("waits", [*permutations([10.0, 20.0, 5.0])])
async def test_the_longest_of_the_reports_of_one_call_counts_for_their_reporter(waits: tuple[float, ...]) -> None:
    """P01: the mirror of the process that reports is no exception."""
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        before = coordinator.health.script_calls
        results = await asyncio.gather(*(coordinator.report_rate_limit("openai", wait) for wait in waits))
        calls = coordinator.health.script_calls - before
        limited, seconds = await coordinator.is_rate_limited("openai")

    assert calls == 1
    assert {result.seconds_remaining for result in results} == {20.0}
    assert limited
    assert 19.0 < seconds <= 20.0
