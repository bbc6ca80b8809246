"""A report is applied once and in whole, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import time
from itertools import cycle, permutations
from typing import Any

import pytest
import redis

from rate_coordinator import CoordinatorUnavailable
from rate_coordinator.connection import Endpoint
from rate_coordinator.models import EntryId
from rate_coordinator.replies import WireReport
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from tests.conftest import Make, Place
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, eventually

LOOK = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return {redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[1]) or '0', now_ms}
"""
DAY_MS = 24 * 3600 * 1000


def writes(request: bytes) -> bool:
    """Tell whether a request carries a report or a clear."""
    return b"job_id" in request or b"reporter" in request


async def test_a_report_whose_reply_is_lost_is_one_event(own_server: RedisServer, make: Make) -> None:
    async with Proxy(own_server.port) as proxy:
        coordinator = await make(url=proxy.url)
        for number in range(20):
            lose = iter([True])
            proxy.lose_reply = lambda request, lose=lose: writes(request) and next(lose, False)  # type: ignore[misc]
            result = await coordinator.report_rate_limit("openai", 30.0 + number, sheet_num=number)
            assert result.delivered
        assert proxy.lost == 20
        assert [event.sheet_num for event in await coordinator.events()] == list(range(19, -1, -1))
        await coordinator.aclose()


async def test_a_clear_whose_reply_is_lost_is_counted_and_recorded_once(own_server: RedisServer, make: Make) -> None:
    async with Proxy(own_server.port) as proxy:
        coordinator = await make(url=proxy.url)
        for model in ("opus", "haiku"):
            await coordinator.report_rate_limit("claude", 30.0, model=model)
        lose = iter([True])
        proxy.lose_reply = lambda request: writes(request) and next(lose, False)
        assert await coordinator.clear_limits("claude") == 2
        assert proxy.lost == 1
        assert [event.kind for event in await coordinator.events()].count("clear") == 2
        await coordinator.aclose()


async def test_reports_whose_replies_are_lost_again_and_again_are_applied_once(
    own_server: RedisServer, make: Make
) -> None:
    lose = cycle([True, False, True])
    async with Proxy(own_server.port) as proxy:
        coordinator = await make(url=proxy.url, max_events=5000)
        proxy.lose_reply = lambda request: writes(request) and next(lose)
        for burst in range(10):
            await asyncio.gather(
                *(coordinator.report_rate_limit("openai", 60.0, sheet_num=100 * burst + n) for n in range(100))
            )
            await eventually(lambda: coordinator.health.reports_buffered == 0, within=30)
        proxy.lose_reply = lambda request: False
        events = await coordinator.events()
        assert proxy.lost >= 5
        assert sorted(event.sheet_num or 0 for event in events) == list(range(1000))
        await coordinator.aclose()


async def test_a_replayed_report_is_shortened_by_the_time_that_passed(own_server: RedisServer, make: Make) -> None:
    one, two = await make(), await make()
    own_server.stop()
    began = time.monotonic()
    result = await one.report_rate_limit("openai", 60.0)
    assert not result.delivered
    assert (await one.is_rate_limited("openai"))[0]
    await asyncio.sleep(0.3)
    own_server.start()
    await eventually(lambda: "openai" in two.active_limits)
    passed = time.monotonic() - began
    assert 60.0 - passed - 0.5 < two.active_limits["openai"] <= 59.8
    (event,) = await two.events()
    assert event.late_ms >= 300
    assert event.asked_wait_seconds == 60.0
    assert event.suggested_wait_seconds == pytest.approx(60.0 - event.late_ms / 1000, abs=0.002)


async def test_a_full_buffer_drops_what_lifts_first_and_counts_it(own_server: RedisServer, make: Make) -> None:
    coordinator = await make(max_buffered_reports=3)
    own_server.stop()
    for wait in (50.0, 10.0, 40.0, 20.0, 30.0):
        await coordinator.report_rate_limit(f"b{wait:g}", wait)
    assert coordinator.health.reports_dropped == 2
    assert set(coordinator.active_limits) == {"b50", "b40", "b30"}
    own_server.start()
    await eventually(lambda: coordinator.health.reports_buffered == 0)
    assert {event.backend_type for event in await coordinator.events()} == {"b50", "b40", "b30"}


async def test_every_call_ends_within_its_timeout_while_the_server_is_stopped(
    own_server: RedisServer, make: Make
) -> None:
    coordinator = await make(command_timeout=0.5, connect_timeout=0.5)
    await coordinator.report_rate_limit("claude", 60.0)
    own_server.pause()
    began = time.monotonic()
    report = await coordinator.report_rate_limit("openai", 60.0)
    assert not report.delivered
    assert time.monotonic() - began < 1.5
    for use in (
        coordinator.clear_limits,
        coordinator.refresh,
        coordinator.events,
        coordinator.prune_stale,
        lambda: coordinator.explain("openai"),
    ):
        began = time.monotonic()
        with pytest.raises(CoordinatorUnavailable):
            await use()
        assert time.monotonic() - began < 1.5
    assert (await coordinator.is_rate_limited("openai"))[0]
    assert (await coordinator.is_rate_limited("claude"))[0]
    own_server.resume()
    await eventually(lambda: coordinator.health.reports_buffered == 0)
    assert len(await coordinator.events()) == 2


async def test_waiters_are_released_in_time_while_redis_is_away(own_server: RedisServer, make: Make) -> None:
    """P32: losing Redis while waiting holds nobody longer than the limit."""
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 0.6)
    waiter = asyncio.create_task(coordinator.wait_until_clear("openai"))
    await asyncio.sleep(0)
    own_server.stop()
    async with asyncio.timeout(3):
        assert await waiter > 0.4
    assert await coordinator.is_rate_limited("openai") == (False, 0.0)


@pytest.mark.parametrize("order", list(permutations([0.4, 30.0, 2.5])), ids=str)
async def test_any_order_of_reports_ends_at_the_longest_for_every_process(
    place: Place, make: Make, order: tuple[float, ...]
) -> None:
    """P01: to the millisecond."""
    processes = [await make() for _ in range(3)]
    results = [await process.report_rate_limit("openai", wait) for process, wait in zip(processes, order, strict=True)]
    longest = max(result.resume_at for result in results if result.resume_at)
    assert results[-1].resume_at == longest
    for process in processes:
        await process.refresh()
        assert [limit.resume_at for limit in process.limits] == [longest]


@pytest.mark.parametrize("wait_ms", [1, 2, 999, 1000, 1001, 59_999, 3_600_000, DAY_MS, 30 * DAY_MS])
async def test_a_key_lives_exactly_until_its_resume_time(
    real: Place, make: Make, admin: redis.Redis, wait_ms: int
) -> None:
    """P02: the key never dies before its time, nor does it outlive it."""
    coordinator = await make(max_wait_seconds=31 * DAY_MS / 1000)
    key = real.keys.limit(Target("openai"))
    result = await coordinator.report_rate_limit("openai", wait_ms / 1000)
    assert result.resume_at is not None
    told: Any = admin.eval(LOOK, 1, key)
    remaining, resume_at_ms, now_ms = int(told[0]), int(told[1]), int(told[2])
    if resume_at_ms:
        assert resume_at_ms == round(result.resume_at.timestamp() * 1000)
        assert abs(remaining - (resume_at_ms - now_ms)) <= 1
    else:
        assert now_ms >= round(result.resume_at.timestamp() * 1000)
    assert resume_at_ms or wait_ms < 1000


async def test_reports_without_end_do_not_prolong_each_other(real: Place, make: Make, admin: redis.Redis) -> None:
    """P03 P08: a limit ends its own wait after the last report, however many came before."""
    coordinator = await make()
    longest = 0.0
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        results = await asyncio.gather(*(coordinator.report_rate_limit("openai", 0.2) for _ in range(64)))
        longest = max(longest, *(result.seconds_remaining for result in results))
    last = time.monotonic()
    assert longest <= 0.2
    await coordinator.wait_until_clear("openai")
    assert time.monotonic() - last < 0.2 + 0.5
    await eventually(lambda: not admin.exists(real.keys.limit(Target("openai"))), within=2)


async def test_a_hundred_thousand_reports_neither_grow_nor_drop_the_wait(real: Place) -> None:
    """P08: there is no ladder that could overflow. 10^5 stand for the 10^6 of the row, for the time's sake."""
    store = Store(Endpoint.from_url(real.url), real.keys, 1000)
    target = Target("openai")
    details = '"backend":"openai","model":null'
    try:
        for number in range(1, 101):
            reply, answers = await store.report(number, [WireReport(target, 5000, 0, 0, details)] * 1000)
            assert len(answers) == 1000
            assert {answer.resume_at_ms for answer in answers} == {answers[-1].event_resume_at_ms}
            assert 0 < answers[-1].resume_at_ms - reply.now_ms <= 5000
    finally:
        await store.aclose()


async def test_a_wait_above_the_cap_stays_on_record_and_the_cap_can_be_raised_to_the_window(
    place: Place, make: Make
) -> None:
    """P05: a five-hour window needs no hourly probes: the cap is configurable, and what was asked is never lost."""
    hourly, patient = await make(), await make(max_wait_seconds=24 * 3600.0)
    clamped = await hourly.report_rate_limit("claude", 5 * 3600.0)
    assert clamped.clamped
    assert clamped.seconds_remaining == 3600.0
    told = await hourly.explain("claude")
    assert told.cause is not None
    assert (told.cause.asked_wait_seconds, told.cause.clamped) == (5 * 3600.0, "above_cap")
    whole = await patient.report_rate_limit("claude", 5 * 3600.0)
    assert not whole.clamped
    await eventually(lambda: hourly.active_limits["claude"] > 5 * 3600 - 10)


async def test_a_limit_is_never_there_without_its_event_or_the_reverse(own_server: RedisServer, make: Make) -> None:
    """P54: read together in one transaction while reports come in."""
    coordinator = await make(max_events=100_000)
    keys = Place(own_server.url, "test").keys
    stop = asyncio.Event()

    async def report() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await coordinator.report_rate_limit(f"b{number % 7}", 10 + number / 100)

    reporters = [asyncio.create_task(report()) for _ in range(4)]
    looked = 0
    async with asyncio.timeout(20):
        while looked < 200:
            with own_server.admin.pipeline(transaction=True) as pipeline:
                pipeline.zrange(keys.active, 0, -1, withscores=True)
                pipeline.hgetall(keys.causes)
                pipeline.xrange(keys.events)
                active, causes, entries = await asyncio.to_thread(pipeline.execute)
            events = dict(entries)
            for target, resume_at_ms in active:
                cause = events[causes[target].partition("|")[0]]
                assert int(cause["resume_at_ms"]) == int(resume_at_ms)
            resume_times = {int(resume_at_ms) for _, resume_at_ms in active}
            extending = [(EntryId.parse(entry_id), fields) for entry_id, fields in entries if fields["extended"] == "1"]
            if extending:
                _, newest = max(extending, key=lambda entry: entry[0])
                assert int(newest["resume_at_ms"]) in resume_times
            looked += 1
            await asyncio.sleep(0)
    stop.set()
    await asyncio.gather(*reporters)
