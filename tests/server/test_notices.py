"""Notices: what a process hears of the others, and what its consumers can do to it (nothing)."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from typing import Any

import pytest
import redis
from pydantic import ValidationError

from rate_coordinator import Notice
from tests.conftest import Make, Place
from tests.servers import eventually


async def test_a_stream_tells_every_change_in_order(place: Place, make: Make) -> None:
    one, two = await make(reporter="one"), await make()
    stream = two.notices()
    await one.report_rate_limit("claude", 10.0, "job", 5, model="opus")
    await one.report_rate_limit("claude", 5.0, model="opus")
    await one.report_rate_limit("claude", 99_999.0, model="opus", reason="quota")
    await one.clear_limits()
    heard: list[Notice] = []
    async with asyncio.timeout(5):
        async for notice in stream:
            heard.append(notice)
            if len(heard) == 3:
                break
    first, second, third = heard
    assert [(notice.kind, notice.backend, notice.model) for notice in heard] == [
        ("limit", "claude", "opus"),
        ("limit", "claude", "opus"),
        ("clear", "claude", "opus"),
    ]
    assert (first.job_id, first.sheet_num, first.wait_seconds, first.reporter) == ("job", 5, 10.0, "one")
    assert (second.clamped, second.asked_wait_seconds, second.wait_ms) == ("above_cap", 99_999.0, 3_600_000)
    assert second.previous_id == first.id
    assert third.previous_id == second.id
    assert third.wait_seconds == 0.0
    assert {notice.epoch for notice in heard} == {first.epoch}
    assert not any(notice.recovered for notice in heard)
    with pytest.raises(ValidationError):
        first.backend = "other"  # type: ignore[misc]


async def test_a_process_hears_its_own_changes_too(place: Place, make: Make) -> None:
    coordinator = await make()
    heard: list[Notice] = []
    coordinator.on_notice(heard.append)
    await coordinator.report_rate_limit("claude", 10.0)
    await eventually(lambda: len(heard) == 1)


async def test_plain_and_async_callbacks_are_called(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    plain: list[str] = []
    slow: list[str] = []

    async def asynchronous(notice: Notice) -> None:
        await asyncio.sleep(0.001)
        slow.append(notice.backend)

    two.on_notice(lambda notice: plain.append(notice.backend))
    two.on_notice(asynchronous)
    names = [f"backend {number}" for number in range(20)]
    for name in names:
        await one.report_rate_limit(name, 10.0)
    await eventually(lambda: slow == plain == names)


async def test_a_callback_that_raises_is_logged_and_harms_nobody(
    place: Place, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """P30."""
    one, two = await make(), await make()
    heard: list[str] = []

    def raising(notice: Notice) -> None:
        raise RuntimeError("callback")

    async def raising_later(notice: Notice) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("callback")

    two.on_notice(raising)
    two.on_notice(lambda notice: heard.append(notice.backend))
    two.on_notice(raising_later)
    for name in ("a", "b"):
        await one.report_rate_limit(name, 10.0)
    await eventually(lambda: two.health.callback_errors == 4)
    assert heard == ["a", "b"]
    assert set(two.active_limits) == {"a", "b"}
    assert len([record for record in caplog.records if "callback" in record.getMessage()]) == 4


async def test_a_slow_callback_does_not_hold_up_the_mirror(place: Place, make: Make) -> None:
    """P30: the buffer is bounded, and what was dropped is counted."""
    one, two = await make(), await make(notice_buffer=4)
    release = asyncio.Event()
    heard: list[str] = []

    async def stuck(notice: Notice) -> None:
        await release.wait()
        heard.append(notice.backend)

    handle = two.on_notice(stuck)
    stream = two.notices()
    for number in range(20):
        await one.report_rate_limit(f"b{number}", 10.0)
    await eventually(lambda: len(two.active_limits) == 20)
    assert stream.dropped == 16
    assert handle.dropped == 15
    assert two.health.notices_dropped == 31
    release.set()
    await eventually(lambda: heard == ["b0", "b16", "b17", "b18", "b19"])
    async with asyncio.timeout(5):
        assert [(await anext(stream)).backend for _ in range(4)] == ["b16", "b17", "b18", "b19"]


async def test_a_callback_may_use_the_coordinator(place: Place, make: Make) -> None:
    """P30: re-entrant use, closing included."""
    one, two = await make(), await make()
    closed = asyncio.Event()

    async def echo(notice: Notice) -> None:
        if notice.backend == "ping":
            await two.report_rate_limit("pong", 10.0)
            two.on_notice(lambda _: None).cancel()
        elif notice.backend == "stop":
            await two.aclose()
            closed.set()

    two.on_notice(echo)
    await one.report_rate_limit("ping", 10.0)
    await eventually(lambda: "pong" in one.active_limits)
    await one.report_rate_limit("stop", 10.0)
    async with asyncio.timeout(5):
        await closed.wait()
    assert two.health.state == "closed"


async def test_a_cancelled_handle_hears_no_more(place: Place, make: Make) -> None:
    coordinator = await make()
    heard: list[str] = []
    handle = coordinator.on_notice(lambda notice: heard.append(notice.backend))
    await coordinator.report_rate_limit("a", 10.0)
    await eventually(lambda: heard == ["a"])
    handle.cancel()
    handle.cancel()
    other: list[str] = []
    coordinator.on_notice(lambda notice: other.append(notice.backend))
    await coordinator.report_rate_limit("b", 10.0)
    await eventually(lambda: other == ["b"])
    assert heard == ["a"]


async def test_cancellation_passes_through_an_async_callback(place: Place, make: Make) -> None:
    """P30."""
    coordinator = await make()
    began, ended = asyncio.Event(), asyncio.Event()

    async def stuck(notice: Notice) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    handle = coordinator.on_notice(stuck)
    await coordinator.report_rate_limit("a", 10.0)
    async with asyncio.timeout(5):
        await began.wait()
        handle.cancel()
        await ended.wait()


async def test_a_stream_starts_the_coordinator_and_ends_with_it(place: Place, make: Make) -> None:
    coordinator, other = await make(start=False), await make()

    async def listen() -> list[str]:
        return [notice.backend async for notice in coordinator.notices()]

    task = asyncio.create_task(listen())
    await eventually(lambda: coordinator.health.state == "connected")
    await other.report_rate_limit("a", 10.0)
    await eventually(lambda: coordinator.active_limits)
    await coordinator.aclose()
    async with asyncio.timeout(5):
        assert await task == ["a"]


async def test_a_closed_stream_and_a_forgotten_one_take_no_more(place: Place, make: Make) -> None:
    coordinator = await make(notice_buffer=1)
    async with coordinator.notices() as stream:
        pass
    assert [notice async for notice in stream] == []
    forgotten = coordinator.notices()
    del forgotten
    gc.collect()
    for number in range(5):
        await coordinator.report_rate_limit(f"b{number}", 10.0)
    await eventually(lambda: coordinator.health.notices_received == 5)
    assert coordinator.health.notices_dropped == 0


async def test_what_is_no_callback_is_refused(place: Place, make: Make) -> None:
    coordinator = await make()
    callback: Any = "print"
    with pytest.raises(ValueError, match="print"):
        coordinator.on_notice(callback)


UNREADABLE = [
    b"",
    b"hello",
    b"\xff\xfe\x00",
    b"[]",
    b"null",
    b"{}",
    b'{"kind":"limit"}',
    b'{"kind":5}',
    b"[" * 10_000,
    b'{"version":1,"kind":"limit","epoch":"e","id":"x","previous_id":"0-0","backend":"a","now_ms":1,"resume_at_ms":5}',
    b'{"version":1,"kind":"limit","epoch":"e","id":"1-1","previous_id":"0-0","backend":"","now_ms":1,"resume_at_ms":5}',
    b'{"version":1,"kind":"limit","epoch":"e","id":"1-1","previous_id":"0-0","backend":"a","now_ms":-1}',
    b'{"version":1,"kind":"limit","epoch":"e","id":"1-1","previous_id":"0-0","backend":"a","now_ms":1e400}',
    b"x" * 1_000_000,
]


async def test_unreadable_messages_are_counted_and_logged_and_never_fatal(
    real: Place, make: Make, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await make(), await make()
    caplog.set_level(logging.WARNING)
    for message in UNREADABLE:
        admin.publish(real.keys.notices, message)
    await eventually(lambda: two.health.notices_unreadable == len(UNREADABLE))
    await one.report_rate_limit("openai", 10.0)
    await eventually(lambda: "openai" in two.active_limits)
    assert two.health.reconnects == 0
    told = [vars(record)["trouble"] for record in caplog.records if "unreadable" in record.getMessage()]
    assert sorted(told) == sorted(2 * ["not_json", "not_a_notice", "too_large"]), "one warning of each kind for each"


async def test_unknown_fields_and_unknown_kinds_are_ignored(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make()
    heard: list[Notice] = []
    coordinator.on_notice(heard.append)
    await coordinator.report_rate_limit("openai", 10.0)
    await eventually(lambda: heard)
    admin.publish(real.keys.notices, json.dumps({"version": 9, "kind": "colour", "red": 5}))
    later = heard[0].model_dump() | {"version": 2, "previous_id": heard[0].id, "colour": "red", "backend": "future"}
    later["id"] = f"{heard[0].now_ms + 1}-0"
    admin.publish(real.keys.notices, json.dumps(later))
    await eventually(lambda: len(heard) == 2)
    assert heard[1].backend == "future"
    assert coordinator.health.notices_unreadable == 0


async def test_a_plain_client_can_read_notices(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make(reporter="worker 1")
    with admin.pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(real.keys.notices)
        listener.get_message(timeout=5)
        await coordinator.report_rate_limit("claude", 12.5, "jöb", 3)
        message: Any = None
        deadline = time.monotonic() + 5
        while message is None and time.monotonic() < deadline:
            message = listener.get_message(timeout=1)
    told = json.loads(message["data"])
    assert told == {
        "version": 1,
        "kind": "limit",
        "epoch": told["epoch"],
        "id": told["id"],
        "previous_id": "0-0",
        "now_ms": told["now_ms"],
        "resume_at_ms": told["now_ms"] + 12_500,
        "wait_ms": 12_500,
        "backend": "claude",
        "model": None,
        "job_id": "jöb",
        "sheet_num": 3,
        "reason": "rate_limit",
        "asked_wait_seconds": 12.5,
        "clamped": None,
        "late_ms": 0,
        "call_age_ms": None,
        "reporter": "worker 1",
    }
