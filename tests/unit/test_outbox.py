"""Reports that travel together, on the embedded server."""

from __future__ import annotations

import asyncio
from itertools import permutations
from uuid import uuid4

import pytest

from rate_coordinator import CoordinatorUnavailable, RateLimitCoordinator
from rate_coordinator.mirror import Mirror
from rate_coordinator.replies import Reply, ReportReply, WireReport
from rate_coordinator.store import Store


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


async def test_a_reply_that_comes_again_does_not_bring_back_what_was_cleared_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"memory://{uuid4()}"
    attempts = 0
    report = Store.report
    async with RateLimitCoordinator.from_url(url) as reporter, RateLimitCoordinator.from_url(url) as operator:

        async def lose_the_first_reply(
            store: Store, number: int, reports: list[WireReport]
        ) -> tuple[Reply, list[ReportReply]]:
            nonlocal attempts
            attempts += 1
            reply = await report(store, number, reports)
            if attempts == 1:
                assert await operator.clear_limits("openai") == 1
                await reporter.refresh()
                raise CoordinatorUnavailable("the reply is lost")
            return reply

        monkeypatch.setattr(Store, "report", lose_the_first_reply)
        result = await reporter.report_rate_limit("openai", 30.0)

        assert result.delivered
        assert attempts == 2
        assert [event.kind for event in await reporter.events()] == ["clear", "report"], "it was applied once"
        assert await reporter.is_rate_limited("openai") == (False, 0.0)


async def test_a_reply_that_comes_again_tells_all_that_is_known_of_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """P29: a server that takes over and lacks the limit is told who was limited, and at what."""
    attempts = 0
    report = Store.report

    async def lose_the_first_reply(
        store: Store, number: int, reports: list[WireReport]
    ) -> tuple[Reply, list[ReportReply]]:
        nonlocal attempts
        attempts += 1
        reply = await report(store, number, reports)
        if attempts == 1:
            raise CoordinatorUnavailable("the reply is lost")
        return reply

    monkeypatch.setattr(Store, "report", lose_the_first_reply)
    monkeypatch.setattr(Mirror, "apply", lambda *_: set())
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        await coordinator.report_rate_limit("openai", 30.0, "job", 7, reason="overloaded")
        (limit,) = coordinator.limits

    assert attempts == 2
    assert (limit.job_id, limit.sheet_num, limit.reason) == ("job", 7, "overloaded")


async def test_a_report_that_the_server_slept_on_holds_its_reporter_as_long_as_everyone_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P09: what was carried out is the first sending, whose wait was not shortened yet."""
    url = f"memory://{uuid4()}"
    attempts = 0
    report = Store.report
    async with RateLimitCoordinator.from_url(url) as reporter, RateLimitCoordinator.from_url(url) as other:

        async def sleep_on_the_first(
            store: Store, number: int, reports: list[WireReport]
        ) -> tuple[Reply, list[ReportReply]]:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                await asyncio.sleep(0.3)
            reply = await report(store, number, reports)
            if attempts == 1:
                raise CoordinatorUnavailable("the reply is lost")
            return reply

        monkeypatch.setattr(Store, "report", sleep_on_the_first)
        result = await reporter.report_rate_limit("openai", 30.0)
        await other.refresh()
        _, expected = await other.is_rate_limited("openai")
        _, seconds = await reporter.is_rate_limited("openai")

        assert attempts == 2
        assert result.delivered
        assert seconds == pytest.approx(expected, abs=0.05)
        await reporter.refresh()
        (limit,) = reporter.limits
        assert limit.wait_seconds == 30.0
