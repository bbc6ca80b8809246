"""Notices on their way to those in this process who want them; no server takes part."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator.models import Notice
from rate_coordinator.notices import SLOW_CALLBACK_SECONDS, NoticeHub, _Buffer
from tests.servers import eventually
from tests.unit.model import SERVER_STARTED_MS


def notice(number: int) -> Notice:
    return Notice(
        kind="limit",
        epoch="epoch",
        id=f"{number + 1}-0",
        previous_id=f"{number}-0",
        backend=str(number),
        now_ms=SERVER_STARTED_MS,
    )


def numbers(notices: list[Notice]) -> list[int]:
    return [int(notice.backend) for notice in notices]


async def ready() -> None:
    """Stand in for the start of a coordinator."""


@pytest.fixture
async def hub() -> AsyncIterator[NoticeHub]:
    hub = NoticeHub(4)
    hub.start()
    yield hub
    await hub.aclose()


async def drain(buffer: _Buffer) -> list[Notice]:
    buffer.close()
    drained = []
    while (notice := await buffer.get()) is not None:
        drained.append(notice)
    return drained


@given(st.integers(1, 8), st.lists(st.integers(0, 3), max_size=12))
def test_a_buffer_keeps_the_newest_in_order_and_counts_what_it_drops(size: int, taken: list[int]) -> None:
    """P30: the buffer is bounded."""

    async def play() -> None:
        buffer = _Buffer(size)
        expected: list[int] = []
        read: list[Notice] = []
        told = 0
        for number, takes in enumerate(taken):
            told += not buffer.put(notice(number))
            expected.append(number)
            del expected[:-size]
            for _ in range(min(takes, len(expected))):
                received = await buffer.get()
                assert received is not None
                assert int(received.backend) == expected.pop(0)
                read.append(received)
        rest = await drain(buffer)
        assert numbers(rest) == expected
        assert buffer.dropped == told == len(taken) - len(read) - len(rest)

    asyncio.run(play())


async def test_a_reader_who_waits_is_woken_by_a_notice_and_by_the_end() -> None:
    buffer = _Buffer(4)
    waiting = asyncio.create_task(buffer.get())
    await asyncio.sleep(0)
    buffer.put(notice(1))
    assert numbers([await waiting or notice(-1)]) == [1]

    waiting = asyncio.create_task(buffer.get())
    await asyncio.sleep(0)
    buffer.close()
    assert await waiting is None


async def test_a_reader_who_gives_up_takes_no_notice_with_it() -> None:
    buffer = _Buffer(4)
    waiting = asyncio.create_task(buffer.get())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])

    buffer.put(notice(1))

    assert numbers(await drain(buffer)) == [1]


async def test_every_stream_and_every_callback_gets_every_notice(hub: NoticeHub) -> None:
    streams = [hub.stream(ready), hub.stream(ready)]
    called: list[Notice] = []
    hub.add(called.append)

    for number in range(3):
        hub.publish(notice(number))

    assert [numbers(await drain(stream.buffer)) for stream in streams] == [[0, 1, 2]] * 2
    await eventually(lambda: len(called) == 3)
    assert numbers(called) == [0, 1, 2]


async def test_a_slow_consumer_loses_its_own_oldest_notices_only(hub: NoticeHub) -> None:
    """P30."""
    slow, fast = hub.stream(ready), hub.stream(ready)
    read = []
    for number in range(10):
        hub.publish(notice(number))
        read.append(await anext(fast))

    assert numbers(read) == list(range(10))
    assert numbers(await drain(slow.buffer)) == [6, 7, 8, 9]
    assert (slow.dropped, fast.dropped, hub.dropped) == (6, 0, 6)


async def test_a_callback_that_raises_is_logged_and_gets_the_next_notice(
    hub: NoticeHub, caplog: pytest.LogCaptureFixture
) -> None:
    """P30."""
    seen: list[int] = []

    async def raises(received: Notice) -> None:
        seen.append(int(received.backend))
        raise RuntimeError("a bug of the user's")

    hub.add(raises)
    unharmed: list[Notice] = []
    hub.add(unharmed.append)
    with caplog.at_level(logging.ERROR):
        hub.publish(notice(1))
        hub.publish(notice(2))
        await eventually(lambda: len(seen) == len(unharmed) == 2)

    assert hub.callback_errors == 2
    assert "a bug of the user's" in caplog.text


async def test_an_async_callback_gets_its_notices_one_after_the_other(hub: NoticeHub) -> None:
    running, most, seen = 0, 0, []

    async def slow(received: Notice) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        seen.append(received)
        running -= 1

    hub.add(slow)
    for number in range(4):
        hub.publish(notice(number))
    await eventually(lambda: len(seen) == 4)

    assert most == 1
    assert numbers(seen) == [0, 1, 2, 3]


async def test_a_plain_callback_that_holds_up_the_event_loop_is_told_of(
    hub: NoticeHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P30."""
    now = 0.0
    monkeypatch.setattr("rate_coordinator.clock.now", lambda: now)

    def blocks(_: Notice) -> None:
        nonlocal now
        now += 2 * SLOW_CALLBACK_SECONDS

    hub.add(blocks)
    with caplog.at_level(logging.WARNING):
        hub.publish(notice(1))
        await eventually(lambda: "held up the event loop" in caplog.text)


async def test_a_cancelled_callback_is_called_no_more(hub: NoticeHub) -> None:
    seen: list[Notice] = []
    handle = hub.add(seen.append)
    hub.publish(notice(1))
    await eventually(lambda: seen)

    handle.cancel()
    handle.cancel()
    hub.publish(notice(2))

    assert handle.task is not None
    await asyncio.wait([handle.task])
    assert numbers(seen) == [1]


async def test_a_callback_may_cancel_itself_and_add_another(hub: NoticeHub) -> None:
    """P30: re-entrant use."""
    seen: list[tuple[str, int]] = []

    def once(received: Notice) -> None:
        seen.append(("once", int(received.backend)))
        handle.cancel()
        hub.add(lambda received: seen.append(("then", int(received.backend))))

    handle = hub.add(once)
    hub.publish(notice(1))
    await eventually(lambda: seen)
    hub.publish(notice(2))
    await eventually(lambda: len(seen) == 2)

    assert seen == [("once", 1), ("then", 2)]


async def test_an_async_callback_that_cancels_itself_runs_to_its_end(hub: NoticeHub) -> None:
    """P30: it is not cut off in the middle."""
    seen: list[int] = []

    async def last(received: Notice) -> None:
        handle.cancel()
        await asyncio.sleep(0)
        seen.append(int(received.backend))

    handle = hub.add(last)
    hub.publish(notice(1))
    hub.publish(notice(2))
    assert handle.task is not None
    await asyncio.wait([handle.task])

    assert seen == [1]


async def test_callbacks_that_were_added_before_the_start_are_called_after_it() -> None:
    hub = NoticeHub(4)
    seen: list[Notice] = []
    handle = hub.add(seen.append)
    hub.publish(notice(1))
    assert handle.task is None

    hub.start()
    await eventually(lambda: seen)

    await hub.aclose()
    assert numbers(seen) == [1]


async def test_closing_ends_all_streams_and_leaves_no_task(hub: NoticeHub) -> None:
    stream = hub.stream(ready)
    handle = hub.add(lambda _: asyncio.Event().wait())
    reading = asyncio.create_task(anext(stream, None))
    hub.publish(notice(1))
    assert await reading is not None
    reading = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)

    await hub.aclose()

    assert await reading is None
    assert handle.task is not None
    assert handle.task.done()
    hub.publish(notice(2))


async def test_a_stream_that_was_closed_hears_no_more(hub: NoticeHub) -> None:
    async with hub.stream(ready) as stream:
        hub.publish(notice(1))
    hub.publish(notice(2))

    assert numbers([received async for received in stream]) == [1]


async def test_a_stream_that_its_reader_forgot_is_forgotten(hub: NoticeHub) -> None:
    stream = hub.stream(ready)
    for number in range(5):
        hub.publish(notice(number))
    assert hub.dropped == 1

    del stream
    gc.collect()
    hub.publish(notice(5))

    assert hub.dropped == 1


async def test_what_cannot_be_called_is_refused(hub: NoticeHub) -> None:
    with pytest.raises(ValueError, match="must be callable"):
        hub.add("print")  # type: ignore[arg-type]
