"""The sync coordinator: any number of threads, over one async engine."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

import rate_coordinator
from rate_coordinator import (
    CoordinatorClosed,
    CoordinatorMisuse,
    CoordinatorUnavailable,
    LimitWaitTimeout,
    Notice,
    RateLimited,
)
from rate_coordinator import sync as sync_package
from rate_coordinator.answers import read_answer
from rate_coordinator.sync import NoticeStream, RateLimitCoordinator
from rate_coordinator.sync.portal import Portal
from tests.conftest import NEWEST, Place
from tests.integrations.prefork import CHILDREN
from tests.servers import RedisServer, free_port

ROOT = Path(__file__).parents[2]
REFUSED = read_answer(429, {"retry-after": "20"})
LONG = 10.0
"""What would have been done long before: seconds."""


class MakeSync(Protocol):
    def __call__(self, **settings: Any) -> RateLimitCoordinator: ...


@pytest.fixture
def make_sync(real: Place) -> Iterator[MakeSync]:
    """Make started sync coordinators of one place, and close them after the test."""
    made: list[RateLimitCoordinator] = []

    def make(**settings: Any) -> RateLimitCoordinator:
        coordinator = RateLimitCoordinator.from_url(real.url, real.namespace, **settings)
        made.append(coordinator)
        coordinator.start()
        return coordinator

    yield make
    for coordinator in made:
        coordinator.close()


@pytest.fixture
def embedded() -> Iterator[RateLimitCoordinator]:
    with RateLimitCoordinator.from_url("memory://") as coordinator:
        yield coordinator


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def soon(condition: Callable[[], object]) -> bool:
    """Wait for what happens in other threads, with a bound."""
    deadline = time.monotonic() + LONG
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def public(kind: type) -> dict[str, object]:
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


def parameters(function: Any) -> list[tuple[str, object, object]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


# The same names.


@pytest.mark.parametrize("name", ["RateLimitCoordinator", "Admission", "NoticeStream", "NoticeHandle"])
def test_it_has_the_names_parameters_and_defaults_of_the_async_one(name: str) -> None:
    asynchronous, synchronous = public(getattr(rate_coordinator, name)), public(getattr(sync_package, name))
    if "aclose" in asynchronous:
        asynchronous["close"] = asynchronous.pop("aclose")
    beside = {"NoticeHandle": {"listen"}, "Admission": {"waited_seconds"}}.get(name, set())

    assert synchronous.keys() - beside == asynchronous.keys()
    for member in asynchronous:
        one, other = asynchronous[member], synchronous[member]
        assert isinstance(one, property) == isinstance(other, property), member
        assert inspect.getdoc(other), member
        if not isinstance(one, property):
            assert parameters(one) == parameters(other), member
            assert not inspect.iscoroutinefunction(other), member


# What it does.


def test_what_one_reports_the_other_knows_and_all_methods_answer(make_sync: MakeSync) -> None:
    one, other = make_sync(), make_sync()
    assert other.is_rate_limited("openai") == (False, 0.0)

    result = one.report_rate_limit("openai", 20.0, "job", 7, model="m", reason="quota")

    assert result.delivered
    assert one.is_rate_limited("openai", "m")[0]
    assert soon(lambda: other.is_rate_limited("openai", "m")[0])
    assert other.is_rate_limited("openai", model=None) == (False, 0.0)
    assert 15.0 < other.active_limits["openai/m"] <= 20.0
    assert [(limit.job_id, limit.reason) for limit in other.limits] == [("job", "quota")]
    assert [event.sheet_num for event in other.recent_events] == [7]
    assert [event.id for event in other.events(since=60.0, count=5)] == [result.event_id]
    assert one.hold("claude", 60.0, "maintenance").extended
    assert soon(lambda: "maintenance" in {limit.note for limit in other.limits})
    assert other.release("claude")
    assert not one.release("claude", "m")
    cause = other.explain("openai", "m").cause
    assert cause is not None
    assert cause.job_id == "job"
    with pytest.raises(LimitWaitTimeout):
        other.wait_until_clear("openai", "m", timeout=0.1)
    assert other.wait_until_any_clear([("openai", "m"), ("openai", None)]) == ("openai", None)
    assert other.pace("openai") is None
    assert other.forget_pace("openai") is False
    assert other.prune_stale() == 0
    assert other.clear_limits("openai", model="m") == 1
    one.refresh()
    assert one.is_rate_limited("openai", "m") == (False, 0.0)
    assert one.observe("openai", read_answer(200, {})) is None
    observed = one.observe("openai", REFUSED)
    assert observed is not None
    assert observed.wait_seconds == 20.0
    assert (one.address, one.health.state) == (other.address, "connected")


def test_a_call_is_admitted_and_its_refusal_shared(make_sync: MakeSync) -> None:
    one, other = make_sync(), make_sync()
    with one.admit("openai") as call:
        assert call.waited_seconds < LONG
        assert call.observe(read_answer(200, {})) is None
        assert call.observe(REFUSED) is not None
    assert soon(lambda: other.is_rate_limited("openai")[0])
    with pytest.raises(LimitWaitTimeout), other.admit("openai", timeout=0.1):
        pass
    with pytest.raises(RateLimited), one.admit("gemini"):
        raise RateLimited(20.0)
    assert one.is_rate_limited("gemini")[0]
    with one.admit("github") as call:
        assert call.limited(15.0, "job", 3, reason="overloaded").delivered
    with pytest.raises(CoordinatorMisuse, match="after it was admitted"):
        one.admit("github").limited(1.0)


def test_a_refused_call_is_made_again_in_the_callers_thread(embedded: RateLimitCoordinator) -> None:
    tries: list[threading.Thread] = []

    def ask(question: str, *, loudly: bool = False) -> str:
        tries.append(threading.current_thread())
        if len(tries) < 3:
            raise RateLimited(0.01)
        return f"{question}{loudly}"

    assert embedded.call("openai", ask, "why ", loudly=True) == "why True"
    assert tries == [threading.current_thread()] * 3

    @embedded.paced("openai", attempts=2)
    def never() -> None:
        tries.append(threading.current_thread())
        raise RateLimited(0.01)

    with pytest.raises(RateLimited):
        never()
    assert len(tries) == 5
    assert never.__name__ == "never"


def test_what_cannot_be_used_is_told_at_once(embedded: RateLimitCoordinator) -> None:
    async def asynchronous(*_: object) -> None: ...

    with pytest.raises(ValueError, match="URL"):
        RateLimitCoordinator.from_url("http://localhost")
    with pytest.raises(ValueError, match="connect_timeout"):
        RateLimitCoordinator.from_url("memory://", connect_timeout=0)
    for refused in (
        lambda: embedded.is_rate_limited(""),
        lambda: embedded.admit(""),
        lambda: embedded.paced("openai", attempts=0),
        lambda: embedded.hint("openai", max_in_flight=0),
        lambda: embedded.paced("openai")(asynchronous),
        lambda: embedded.call("openai", asynchronous),
        lambda: embedded.on_notice(asynchronous),
        lambda: embedded.wait_until_clear("openai", timeout=-1.0),
    ):
        with pytest.raises(ValueError, match=r"must|needs"):
            refused()


def test_it_can_be_started_without_redis_and_a_start_that_failed_can_be_tried_again() -> None:
    coordinator = RateLimitCoordinator.from_url(f"redis://user:secret@127.0.0.1:{free_port()}", connect_timeout=0.5)
    with pytest.raises(CoordinatorUnavailable):
        coordinator.is_rate_limited("openai")
    with pytest.raises(CoordinatorUnavailable):
        coordinator.start()

    coordinator.start(degraded_ok=True)

    assert not coordinator.report_rate_limit("openai", 20.0).delivered
    assert coordinator.is_rate_limited("openai")[0]
    assert "degraded" in repr(coordinator)
    assert "secret" not in repr(coordinator)
    coordinator.close()


# Threads.


def blocked(coordinator: RateLimitCoordinator, until: threading.Event) -> threading.Thread:
    """Hold up the coordinator's own thread."""
    holds = threading.Event()

    async def block() -> None:
        holds.set()
        until.wait(LONG)

    thread = threading.Thread(target=lambda: coordinator._home.run(lambda _: block()))
    thread.start()
    assert holds.wait(LONG)
    return thread


def test_reads_are_answered_in_the_callers_thread(embedded: RateLimitCoordinator) -> None:
    embedded.report_rate_limit("openai", 20.0, model="m")
    embedded.is_rate_limited("openai", "m")
    until = threading.Event()
    thread = blocked(embedded, until)

    began = time.monotonic()
    assert embedded.is_rate_limited("openai", "m")[0]
    assert embedded.is_rate_limited("openai") == (False, 0.0)
    assert embedded.active_limits
    assert embedded.limits
    assert embedded.recent_events
    assert embedded.health.state == "connected"

    assert thread.is_alive()
    assert time.monotonic() - began < LONG / 2
    until.set()
    thread.join()


def test_readers_are_never_disturbed_by_what_changes_meanwhile(
    embedded: RateLimitCoordinator, threads: ThreadPoolExecutor
) -> None:
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    until = time.monotonic() + 1.5

    def read() -> int:
        count = 0
        while time.monotonic() < until:
            limited = [name for name, remaining in embedded.active_limits.items() if remaining <= 0]
            assert limited == []
            assert all(limit.seconds_remaining > 0 for limit in embedded.limits)
            events = embedded.recent_events
            assert [event.id for event in events] == sorted((event.id for event in events), key=in_order, reverse=True)
            assert embedded.health.state == "connected"
            embedded.is_rate_limited(f"backend {count % 50}")
            count += 1
        return count

    def report(number: int) -> int:
        count = 0
        while time.monotonic() < until:
            embedded.report_rate_limit(f"backend {number} {count}", 0.05)
            with pytest.raises(RateLimited), embedded.admit(f"paced {number} {count}"):
                raise RateLimited(0.01)
            if count % 20 == 0:
                embedded.clear_limits()
            count += 1
        return count

    doing = [threads.submit(report, number) for number in range(3)] + [threads.submit(read) for _ in range(3)]
    try:
        assert all(done.result(LONG) for done in doing)
    finally:
        sys.setswitchinterval(often)


def in_order(entry_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split("-"))


def test_no_more_threads_are_admitted_at_once_than_a_hint_allows(
    make_sync: MakeSync, threads: ThreadPoolExecutor
) -> None:
    coordinator = make_sync()
    coordinator.hint("openai", max_in_flight=2)
    inside: list[int] = []
    most: list[int] = []

    def call(_: int) -> None:
        with coordinator.admit("openai"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    assert len(list(threads.map(call, range(20)))) == 20
    assert max(most) == 2


def test_a_clear_releases_every_thread_that_waits(make_sync: MakeSync, threads: ThreadPoolExecutor) -> None:
    one, other = make_sync(), make_sync()
    one.report_rate_limit("openai", 600.0)
    assert soon(lambda: other.is_rate_limited("openai")[0])
    waits = [threads.submit(other.wait_until_clear, "openai") for _ in range(10)]
    time.sleep(0.05)

    one.clear_limits("openai")

    assert all(wait.result(LONG) < LONG for wait in waits)


def test_whoever_waits_in_the_coordinators_own_thread_is_told_so(embedded: RateLimitCoordinator) -> None:
    async def inside() -> None:
        embedded.wait_until_clear("openai")

    with pytest.raises(CoordinatorMisuse, match="another thread"):
        embedded._home.run(lambda _: inside())

    async def closing() -> None:
        embedded.close()

    with pytest.raises(CoordinatorMisuse, match="another thread"):
        embedded._home.run(lambda _: closing())


def test_a_call_that_was_admitted_in_the_moment_of_an_interruption_is_given_back(
    embedded: RateLimitCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.hint("openai", max_in_flight=1)

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            super().wait(timeout)
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading, "Event", Interrupted)
    with pytest.raises(KeyboardInterrupt), embedded.admit("openai"):
        pass

    with embedded.admit("openai", timeout=0.0):
        pass


# Closing.


def test_closing_releases_those_who_wait_and_refuses_those_who_come(
    make_sync: MakeSync, threads: ThreadPoolExecutor
) -> None:
    before = set(threading.enumerate())
    coordinator = make_sync()
    coordinator.report_rate_limit("openai", 600.0)
    waits: list[Callable[[], object]] = [
        lambda: coordinator.wait_until_clear("openai"),
        lambda: coordinator.admit("openai").__enter__(),
    ]
    waiting = [threads.submit(wait) for wait in waits]
    time.sleep(0.05)

    closing = [threads.submit(coordinator.close) for _ in range(2)]

    for wait in waiting:
        with pytest.raises(CoordinatorClosed):
            wait.result(LONG)
    assert [done.result(LONG) for done in closing] == [None, None]
    assert coordinator.health.state == "closed"
    for refused in (
        lambda: coordinator.is_rate_limited("openai"),
        lambda: coordinator.report_rate_limit("openai", 1.0),
        lambda: coordinator.admit("openai"),
        coordinator.start,
        coordinator.notices,
    ):
        with pytest.raises(CoordinatorClosed):
            refused()
    assert {thread for thread in threading.enumerate() if thread.name == "rate_coordinator"} <= before


def test_what_was_never_used_starts_no_thread_and_closes() -> None:
    before = threading.enumerate()
    coordinator = RateLimitCoordinator.from_url("memory://")
    coordinator.hint("openai", max_in_flight=1)
    coordinator.on_notice(print)
    assert "new" in repr(coordinator)
    assert threading.enumerate() == before

    coordinator.close()

    assert "closed" in repr(coordinator)


def test_closing_takes_a_bounded_time_while_redis_stands_still(own_server: RedisServer) -> None:
    coordinator = RateLimitCoordinator.from_url(own_server.url, command_timeout=0.5)
    coordinator.start()
    own_server.pause()
    assert not coordinator.report_rate_limit("openai", 600.0).delivered

    began = time.monotonic()
    coordinator.close()

    assert time.monotonic() - began < 0.5 + 6.0
    own_server.resume()


# Notices.


def test_notices_are_read_one_by_one_until_the_stream_is_closed(
    make_sync: MakeSync, threads: ThreadPoolExecutor
) -> None:
    one, other = make_sync(), make_sync()
    stream = other.notices()
    heard: list[str] = []

    def read() -> None:
        heard.extend(notice.backend for notice in stream)

    reading = threads.submit(read)
    one.report_rate_limit("openai", 20.0)
    one.report_rate_limit("gemini", 20.0)
    assert soon(lambda: len(heard) == 2)

    stream.close()

    reading.result(LONG)
    assert heard == ["openai", "gemini"]
    assert stream.dropped == 0
    assert list(stream) == []


def test_a_stream_ends_with_its_coordinator_and_one_that_is_forgotten_is_let_go(
    make_sync: MakeSync, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = make_sync()
    hub = coordinator._home.room.coordinator._engine.hub
    forgotten_in: list[str] = []
    monkeypatch.setattr(hub, "forget", lambda _: forgotten_in.append(threading.current_thread().name))
    forgotten: NoticeStream = coordinator.notices()
    del forgotten
    assert soon(lambda: forgotten_in)
    assert forgotten_in == ["rate_coordinator"]
    assert soon(lambda: not len(hub._streams))
    monkeypatch.undo()

    with coordinator.notices() as stream:
        reading = threads.submit(list, stream)
        coordinator.close()
        assert reading.result(LONG) == []


def test_callbacks_may_block_use_the_coordinator_and_raise(
    make_sync: MakeSync, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = make_sync()
    until = threading.Event()
    asked: list[float] = []

    def block(notice: Notice) -> None:
        until.wait(LONG)

    def ask(notice: Notice) -> None:
        explanation = coordinator.explain(notice.backend)
        asked.append(explanation.seconds_remaining)

    def stop(notice: Notice) -> None:
        raise StopIteration

    handles = [coordinator.on_notice(callback) for callback in (block, ask, stop)]
    coordinator.report_rate_limit("openai", 20.0)
    coordinator.report_rate_limit("gemini", 20.0)

    assert soon(lambda: len(asked) == 2)
    assert soon(lambda: coordinator.health.callback_errors == 2)
    assert "stop" in str([record.__dict__ for record in caplog.records])
    until.set()
    for handle in handles:
        handle.cancel()
    coordinator.report_rate_limit("github", 20.0)
    assert soon(lambda: coordinator.is_rate_limited("github")[0])
    assert len(asked) == 2
    assert handles[0].dropped == 0


# Event loops.


async def test_a_wait_in_an_event_loops_thread_is_warned_of_once_and_a_read_is_not(
    real: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """P56: it blocks the loop; only the one who calls it can know better."""
    with ThreadPoolExecutor(1) as elsewhere:
        coordinator = RateLimitCoordinator.from_url(real.url, real.namespace)
        elsewhere.submit(coordinator.start).result()

        def warnings() -> int:
            return sum("blocks the event loop" in record.message for record in caplog.records)

        assert coordinator.is_rate_limited("openai") == (False, 0.0)
        assert coordinator.active_limits == {}
        assert warnings() == 0
        for _ in range(2):
            assert coordinator.wait_until_clear("openai") == 0.0
        assert warnings() == 1
        coordinator.close()


async def test_an_event_loop_goes_on_while_threads_wait(embedded: RateLimitCoordinator) -> None:
    """P56: the coordinator's own loop is in its own thread."""
    await asyncio.to_thread(embedded.report_rate_limit, "openai", 0.5)
    waiting = asyncio.ensure_future(asyncio.to_thread(embedded.wait_until_clear, "openai"))
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert await waiting > 0.0
    assert turns >= 5


def test_a_portal_that_is_closed_cancels_what_it_cannot_end(caplog: pytest.LogCaptureFixture) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    portal = Portal(never, 0.1)
    with ThreadPoolExecutor(1) as elsewhere, caplog.at_level(logging.WARNING):
        waiting = elsewhere.submit(portal.run, never)
        assert soon(lambda: portal.soon(int))
        portal.close()
        with pytest.raises(CoordinatorClosed):
            waiting.result(LONG)
    assert "could not be closed in time" in caplog.text


# Processes.


def run(program: str, url: str, namespace: str) -> tuple[list[list[Any]], str, float]:
    """Run a program of ``prefork``; return what it said, its errors, and how many seconds it took."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.integrations.prefork", program, url, namespace]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr, time.monotonic() - began


def test_a_forked_child_opens_afresh_whatever_other_threads_were_doing_and_the_parent_goes_on(real: Place) -> None:
    """P55: as in a prefork server."""
    said, errors, _ = run("forks", real.url, real.namespace)

    assert errors == ""
    children = [f"child {number}" for number in range(CHILDREN)]
    assert said == [
        ["codes", [0] * CHILDREN],
        ["parent knows", children],
        ["reconnects", 0],
        ["released", True],
    ]


@pytest.mark.parametrize("redis_server", [NEWEST], indirect=True, ids=["newest"])
def test_a_program_that_never_closes_ends_although_threads_wait(real: Place) -> None:
    said, errors, _ = run("ends", real.url, real.namespace)

    assert said == [["delivered", True]]
    assert errors == ""


def test_a_program_that_never_closes_ends_in_time_while_redis_is_away() -> None:
    said, errors, seconds = run("ends", f"redis://localhost:{free_port()}", "test")

    assert said == [["delivered", False]]
    assert "reports were never delivered" in errors
    assert seconds < 20.0


def test_an_interrupted_wait_takes_back_what_it_waits_for() -> None:
    said, errors, _ = run("interrupted", "memory://", "test")

    assert said == [["interrupted", True]] * 4 + [["given back", True], ["closed", "CoordinatorClosed"]]
    assert "Traceback" not in errors
