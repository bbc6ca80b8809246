"""Tasks of taskiq, run by a real receiver and a real scheduler of it, in a queue and a schedule of a real Redis."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from taskiq import InMemoryBroker, SmartRetryMiddleware, TaskiqScheduler
from taskiq.api import run_scheduler_task
from taskiq.receiver import Receiver
from taskiq_redis import ListQueueBroker, ListRedisScheduleSource, RedisAsyncResultBackend

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator, RateLimited
from rate_coordinator.integrations import deferrals
from rate_coordinator.integrations.taskiq import CoordinatedMiddleware
from tests.conftest import NEWEST, Make, Place
from tests.servers import RedisServer

WAIT = 1.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(NEWEST.path) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferrals, "JITTER_SECONDS", 0.05)


@pytest.fixture
def real(server: RedisServer) -> Place:
    return Place(server.url, f"test {uuid4()}")


@dataclass
class Queue:
    """A broker whose worker runs one task at a time, and the schedule that puts them off."""

    broker: ListQueueBroker
    coordinator: RateLimitCoordinator


@pytest.fixture
async def queue(server: RedisServer, make: Make) -> AsyncIterator[Queue]:
    name = f"queue {uuid4()}"
    broker = ListQueueBroker(server.url, queue_name=name)
    broker.result_backend = RedisAsyncResultBackend(server.url)
    source = ListRedisScheduleSource(server.url, prefix=name)
    coordinator = await make()
    # The retries are to see nothing of a limit: a task of theirs would fail at once.
    retries = SmartRetryMiddleware(default_retry_count=0, default_retry_label=True)
    broker.add_middlewares(retries, CoordinatedMiddleware(coordinator, source, give_up_after=20))
    broker.is_worker_process = True
    second = timedelta(seconds=1)
    schedule = run_scheduler_task(TaskiqScheduler(broker, [source]), interval=second, loop_interval=second)
    ended = asyncio.Event()
    with ThreadPoolExecutor(1) as threads:
        receiver = Receiver(broker, threads, max_async_tasks=1)
        receiving, scheduling = asyncio.create_task(receiver.listen(ended)), asyncio.create_task(schedule)
        yield Queue(broker, coordinator)
        scheduling.cancel()
        ended.set()
        await asyncio.wait([receiving], timeout=2)
        # It may wait for ever for a cancelled read of its queue, unless that is cut off: redis-py may swallow it.
        await broker.shutdown()
        while not (receiving.done() and scheduling.done()):
            receiving.cancel()
            scheduling.cancel()
            await asyncio.wait([receiving, scheduling], timeout=0.1)
        await asyncio.gather(receiving, scheduling, return_exceptions=True)
    await source.shutdown()
    del broker, source, receiver, receiving, scheduling, schedule, coordinator
    # The broker leaves the connections open that it listened with.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Upstream:
    """What a task calls: it refuses so many calls."""

    def __init__(self, refusal: Callable[[], Exception], times: int = 1) -> None:
        self.refusal = refusal
        self.times = times
        self.called_at: list[float] = []

    def ask(self) -> None:
        self.called_at.append(time.monotonic())
        if len(self.called_at) <= self.times:
            raise self.refusal()


def too_many_requests() -> Exception:
    request = httpx.Request("GET", "http://localhost/")
    response = httpx.Response(429, headers={"Retry-After": "1"}, request=request)
    return httpx.HTTPStatusError("too many", request=request, response=response)


async def test_a_limited_task_is_not_a_failed_attempt_and_runs_again_at_the_resume_time(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """P53: not even one retry is allowed. Meanwhile the only slot does other work."""
    ours, librarys = Upstream(lambda: RateLimited(WAIT)), Upstream(too_many_requests)
    came: list[tuple[datetime, float]] = []

    @queue.broker.task(task_name=f"ask {uuid4()}", backend="openai", model="gpt-4o", priority=3)
    async def ask(since: datetime, *, share: float) -> str:
        came.append((since, share))
        ours.ask()
        return "because"

    @queue.broker.task(task_name=f"plainly {uuid4()}", backend="github")
    def ask_plainly() -> str:
        librarys.ask()
        return "so"

    @queue.broker.task(task_name=f"other {uuid4()}", backend="slack")
    async def other() -> float:
        return time.monotonic()

    since = datetime.now(UTC)
    sent = await ask.kiq(since, share=0.5)
    sent_plainly = await ask_plainly.kiq()
    ran_at = (await (await other.kiq()).wait_result(timeout=20, check_interval=0.05)).return_value
    result = await sent.wait_result(timeout=20, check_interval=0.05)
    result_plainly = await sent_plainly.wait_result(timeout=20, check_interval=0.05)

    assert (result.return_value, result_plainly.return_value) == ("because", "so")
    assert came == [(since, 0.5)] * 2
    for upstream, wait in ((ours, WAIT), (librarys, 1.0)):
        first, second = upstream.called_at
        assert second - first >= wait
        assert first < ran_at < second
    assert result.labels["priority"] == 3
    assert "_retries" not in result.labels
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    reports = {
        (event.backend_type, event.model, event.suggested_wait_seconds) for event in queue.coordinator.recent_events
    }
    assert reports == {("openai", "gpt-4o", WAIT), ("github", None, 1.0)}


async def test_a_task_whose_backend_is_limited_is_put_off_before_it_starts(queue: Queue) -> None:
    """P53: nothing is called during the limit."""
    upstream = Upstream(lambda: RateLimited(WAIT), times=0)

    @queue.broker.task(task_name=f"ask {uuid4()}", backend=lambda question: ("openai", question))
    async def ask(question: str) -> str:
        upstream.ask()
        return question

    await queue.coordinator.report_rate_limit("openai", WAIT)
    clear_at = time.monotonic() + (await queue.coordinator.is_rate_limited("openai"))[1]
    sent = [await ask.kiq(str(number)) for number in range(3)]
    results = [await task.wait_result(timeout=20, check_interval=0.05) for task in sent]

    assert [result.return_value for result in results] == ["0", "1", "2"]
    assert len(upstream.called_at) == 3
    assert min(upstream.called_at) >= clear_at
    assert len(queue.coordinator.recent_events) == 1


async def test_other_errors_fail_a_task_as_always(queue: Queue) -> None:
    upstream = Upstream(lambda: KeyError("nothing of a limit"))

    @queue.broker.task(task_name=f"ask {uuid4()}", backend="openai", max_retries=2)
    async def ask() -> None:
        upstream.ask()
        raise KeyError("again")

    result = await (await ask.kiq()).wait_result(timeout=20, check_interval=0.05)

    # It was tried again by the other middleware; a broker on Redis cannot delay that.
    assert isinstance(result.error, KeyError)
    assert result.labels["_retries"] == 1
    assert queue.coordinator.recent_events == []


async def test_what_would_be_put_off_for_too_long_fails_with_its_own_error(queue: Queue) -> None:
    upstream = Upstream(lambda: RateLimited(30.0, "come back later"))

    @queue.broker.task(task_name=f"ask {uuid4()}", backend="openai")
    async def ask() -> None:
        upstream.ask()

    refused = await (await ask.kiq()).wait_result(timeout=20, check_interval=0.05)
    late = await (await ask.kiq()).wait_result(timeout=20, check_interval=0.05)

    assert isinstance(refused.error, RateLimited)
    assert refused.error.wait_seconds == 30.0
    assert isinstance(late.error, LimitWaitTimeout)
    assert len(upstream.called_at) == 1


async def test_a_task_without_a_backend_and_one_that_is_called_are_what_they_always_were(queue: Queue) -> None:
    @queue.broker.task(task_name=f"plain {uuid4()}")
    async def plain() -> int:
        return 1

    @queue.broker.task(task_name=f"double {uuid4()}", backend="openai")
    def double(number: int) -> int:
        return 2 * number

    @queue.broker.task(task_name=f"nested {uuid4()}", backend="openai")
    async def nested() -> int:
        return double(2)

    for task, value in ((plain, 1), (nested, 4)):
        assert (await (await task.kiq()).wait_result(timeout=20, check_interval=0.05)).return_value == value
    assert (await (await double.kiq(4)).wait_result(timeout=20, check_interval=0.05)).return_value == 8
    assert double(5) == 10


async def test_in_memory_there_is_no_queue_and_a_task_waits(make: Make) -> None:
    coordinator = await make(start=False)
    broker = InMemoryBroker(await_inplace=True)
    broker.add_middlewares(CoordinatedMiddleware(coordinator, ListRedisScheduleSource("redis://localhost:1")))
    upstream = Upstream(lambda: RateLimited(WAIT))

    @broker.task(task_name=f"ask {uuid4()}", backend="openai")
    async def ask() -> str:
        upstream.ask()
        return "because"

    await broker.startup()
    assert (await (await ask.kiq()).wait_result()).return_value == "because"
    await broker.shutdown()

    assert upstream.called_at[1] - upstream.called_at[0] >= WAIT
    assert coordinator.health.state == "closed"


def test_a_bound_that_cannot_be_is_refused() -> None:
    source: Any = None
    with pytest.raises(ValueError, match="give_up_after must be"):
        CoordinatedMiddleware(RateLimitCoordinator.from_url("memory://"), source, give_up_after=-1)
