"""What is told of changes, and that no reader holds up another."""

from __future__ import annotations

import asyncio
import json
import math
from functools import partial
from typing import Any

import pytest

from rate_coordinator import PaceStatus, RateLimitCoordinator
from rate_coordinator.web.board import Board, message
from rate_coordinator.web.feed import Feed
from rate_coordinator.web.history import KEPT_SECONDS, MOST_TARGETS, PaceHistory
from rate_coordinator.web.looks import Look, difference
from rate_coordinator.web.stream import Stream
from tests.conftest import Make
from tests.servers import eventually

CONNECTED = {"state": "connected", "degraded_seconds": 0.0, "last_error": None}


def look(at: float, *limits: dict[str, Any]) -> Look:
    return Look(at, math.inf, {(limit["backend"], limit["model"]): limit for limit in limits}, {}, CONNECTED)


def limit(backend: str, left: float, **more: Any) -> dict[str, Any]:
    return {"backend": backend, "model": None, "seconds_remaining": left, "reporter": "one", **more}


def pace(rate: float, backend: str = "openai") -> PaceStatus:
    return PaceStatus(
        backend=backend,
        model=None,
        rate=rate,
        ceiling=20.0,
        forgets_seconds=900.0,
        waiting=0,
        admitted_per_second=0.0,
        fleet_per_second=5.0,
        processes=1,
        alone=False,
    )


# Differences.


def test_a_countdown_that_goes_on_is_no_difference() -> None:
    assert difference(look(100.0, limit("openai", 60.0)), look(107.5, limit("openai", 52.5))) is None


def test_what_is_new_extended_otherwise_reported_or_gone_is_one() -> None:
    before = look(100.0, limit("kept", 60.0), limit("longer", 60.0), limit("other", 60.0), limit("over", 0.5))
    new, longer, other = limit("new", 30.0), limit("longer", 90.0), limit("other", 59.0, reporter="two")

    found = difference(before, look(101.0, limit("kept", 59.0), longer, other, new))

    assert found == {"limits": [longer, other, new], "limits_gone": [{"backend": "over", "model": None}]}


def test_that_redis_is_away_is_one() -> None:
    away = {"state": "degraded", "degraded_seconds": 1.0, "last_error": "gone"}

    assert difference(look(1.0), Look(2.0, math.inf, {}, {}, away)) == {"health": away}
    assert (
        difference(Look(2.0, math.inf, {}, {}, away), Look(3.0, math.inf, {}, {}, {**away, "degraded_seconds": 2.0}))
        is None
    )


# The feed.


async def test_a_reader_gets_every_message_that_it_has_not_got_yet() -> None:
    feed = Feed(3)
    feed.publish(b"1")
    feed.publish(b"2")

    assert feed.after(0) == [b"1", b"2"]
    assert feed.after(1) == [b"2"]
    assert feed.after(2) == []


async def test_a_reader_that_is_too_far_behind_is_told_so() -> None:
    feed = Feed(3)
    for number in range(5):
        feed.publish(b"%d" % number)

    assert feed.after(1) is None
    assert feed.after(2) == [b"2", b"3", b"4"]


async def test_whoever_waits_is_woken_by_a_message_by_the_end_and_by_the_clock() -> None:
    feed = Feed(3)
    waiting = asyncio.create_task(feed.wait(0, 60))
    await asyncio.sleep(0)
    feed.publish(b"1")
    await waiting
    await feed.wait(1, 0.01)
    waiting = asyncio.create_task(feed.wait(1, 60))
    await asyncio.sleep(0)
    feed.close()
    await waiting
    await feed.wait(1, 60)


# The history of paces.


def test_a_history_has_a_point_where_something_changed_and_knows_when_it_was_forgotten() -> None:
    history = PaceHistory()
    for at in range(10):
        history.record([pace(10.0)], at)
    for at in range(10, 20):
        history.record([pace(12.34567)], at)
    history.record([], 20)

    points = history.ages(30.0)["openai", None]

    assert points == [(30.0, 10.0, 20.0, 5.0), (20.0, 12.35, 20.0, 5.0), (10.0, 0.0, 0.0, 0.0)]


def test_a_history_is_bounded_in_time_and_in_targets() -> None:
    history = PaceHistory()
    for at in range(2000):
        history.record([pace(float(at + 1))], at)
    assert len(history.ages(2000.0)["openai", None]) <= KEPT_SECONDS / 2 + 3
    oldest, *_ = history.ages(2000.0)["openai", None]
    assert KEPT_SECONDS <= oldest[0] <= KEPT_SECONDS + 4

    history.record([pace(1.0, f"backend-{number}") for number in range(1000)], 2000)
    assert len(history.ages(2000.0)) == MOST_TARGETS
    for at in range(2001, 2003 + int(KEPT_SECONDS)):
        history.record([], at)
    assert history.ages(2400.0) == {}


# The stream of one reader.


class Reader:
    """Takes what an ASGI application sends, when it is let."""

    def __init__(self) -> None:
        self.body = b""
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        self.ended = False

    def has(self, text: str) -> bool:
        return text.encode() in self.body

    @property
    def kinds(self) -> list[str]:
        return [line.removeprefix("event: ") for line in self.body.decode().splitlines() if line.startswith("event: ")]

    @property
    def states(self) -> list[dict[str, Any]]:
        parts = self.body.decode().split("event: state\ndata: ")[1:]
        return [json.loads(part.splitlines()[0]) for part in parts]

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            await self.ready.wait()
            self.body += message.get("body", b"")
            self.ended = not message.get("more_body", False)

    def read(self, board: Board, method: str = "GET") -> asyncio.Task[None]:
        return asyncio.create_task(Stream(board)({"type": "http", "method": method}, self.receive, self.send))


@pytest.fixture
async def board(make: Make) -> Any:
    coordinator = await make()
    board = Board(coordinator, {"version": "1"})
    running = asyncio.create_task(board.run())
    yield board
    running.cancel()
    await asyncio.wait([running])


async def test_a_slow_reader_loses_messages_and_begins_anew_and_no_other_notices(board: Board) -> None:
    slow, quick = Reader(), Reader()
    quick.ready.set()
    reading = [slow.read(board), quick.read(board)]
    await eventually(lambda: quick.states)
    for number in range(1000):
        board.feed.publish(message("change", {"number": number}))
        if number % 100 == 0:
            # As many as are kept, so that a quick reader gets each.
            await eventually(partial(quick.has, f'"number": {number}}}'))

    await eventually(lambda: b'"number": 999}' in quick.body)
    assert quick.kinds.count("state") == 1
    assert quick.body.count(b'"number"') == 1000
    slow.ready.set()
    await eventually(lambda: len(slow.states) == 2)
    assert slow.body.count(b'"number"') == 0
    for reader in (slow, quick):
        reader.gone.set()
    await asyncio.wait(reading)
    assert board.viewers == 0


async def test_a_stream_begins_with_everything_and_goes_on_with_changes(make: Make) -> None:
    coordinator, other = await make(), await make()
    await other.report_rate_limit("before", 600, "nightly")
    await eventually(lambda: coordinator.active_limits)
    board = Board(coordinator, {"version": "1"})
    running = asyncio.create_task(board.run())
    reader = Reader()
    reader.ready.set()
    reading = reader.read(board)
    await eventually(lambda: reader.states)
    assert [limit["backend"] for limit in reader.states[0]["limits"]] == ["before"]

    await other.report_rate_limit("after", 600)
    await eventually(lambda: b'"limits": [{"target": "after"' in reader.body)
    await other.clear_limits("before")
    await eventually(lambda: b'"limits_gone": [{"backend": "before"' in reader.body)
    await eventually(lambda: b'"kind": "clear", "target": "before"' in reader.body)
    assert reader.kinds.count("state") == 1

    running.cancel()
    await asyncio.wait([running])
    await reading
    assert reader.ended


async def test_a_limit_that_came_and_went_between_two_looks_stays_on_no_page(board: Board, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 600)
    first = Reader()
    first.ready.set()
    reading = first.read(board)
    # Whoever begins between two looks may see more than the last one told.
    await eventually(lambda: first.has('"target": "openai"'))
    await coordinator.clear_limits("openai")

    await eventually(lambda: first.has('"limits_gone": [{"backend": "openai"'))
    first.gone.set()
    await reading


async def test_when_it_cannot_go_on_the_streams_end_and_the_log_says_why(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(**_: object) -> None:
        raise RuntimeError("what nobody expected")

    coordinator = await make()
    monkeypatch.setattr(coordinator, "events", fail)
    board = Board(coordinator, {})
    running = asyncio.create_task(board.run())
    reader = Reader()
    reader.ready.set()
    await reader.read(board)
    await running

    assert reader.ended
    assert board.feed.closed
    assert "no more changes" in caplog.text


async def test_while_nobody_looks_redis_is_asked_for_nothing(make: Make) -> None:
    coordinator: RateLimitCoordinator = await make(resync_interval=600.0)
    for refused in (False, True):
        async with coordinator.admit("mistral") as call:
            if refused:
                await call.limited(0.05)
    await eventually(lambda: coordinator.health.paces)
    board = Board(coordinator, {})
    running = asyncio.create_task(board.run())
    await asyncio.sleep(0.3)
    calls = coordinator.health.script_calls
    await asyncio.sleep(1.5)
    assert coordinator.health.script_calls == calls

    reader = Reader()
    reader.ready.set()
    reading = reader.read(board)
    await eventually(lambda: coordinator.health.script_calls > calls)
    reader.gone.set()
    await reading
    running.cancel()
    await asyncio.wait([running])


async def test_a_head_of_the_stream_has_an_end(board: Board) -> None:
    reader = Reader()
    reader.ready.set()
    await reader.read(board, "HEAD")
    assert reader.ended
    assert reader.body == b""
