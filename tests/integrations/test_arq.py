"""Jobs of arq, run by a real worker of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from arq import ArqRedis, Worker, create_pool, func
from arq.connections import RedisSettings
from arq.jobs import Job, JobResult
from arq.worker import Function

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator, RateLimited
from rate_coordinator.integrations import deferrals
from rate_coordinator.integrations.arq import coordinated
from tests.conftest import NEWEST, Make, Place
from tests.servers import RedisServer, eventually

WAIT = 0.8


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


@pytest.fixture
async def queue(server: RedisServer) -> AsyncIterator[ArqRedis]:
    pool = await create_pool(RedisSettings(port=server.port), default_queue_name=f"queue {uuid4()}")
    yield pool
    await pool.aclose()


@asynccontextmanager
async def worker(queue: ArqRedis, *functions: Function, max_jobs: int = 1) -> AsyncIterator[Worker]:
    """Run a worker that tries each job once."""
    working = Worker(
        functions,
        redis_pool=queue,
        queue_name=queue.default_queue_name,
        max_jobs=max_jobs,
        max_tries=1,
        poll_delay=0.05,
        handle_signals=False,
    )
    task = asyncio.create_task(working.async_run())
    try:
        yield working
    finally:
        # Once is not enough: redis-py may swallow it, with which arq talks to its queue.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.1)


class Upstream:
    """What a job calls: it refuses so many calls, or all within so many seconds after the first."""

    def __init__(self, refusal: Callable[[], Exception], times: int = 1) -> None:
        self.refusal = refusal
        self.times = times
        self.called_at: list[float] = []
        self.tries: list[int] = []

    async def ask(self, ctx: dict[Any, Any], question: str, *, loud: bool = False) -> str:
        self.called_at.append(time.monotonic())
        self.tries.append(ctx["job_try"])
        if len(self.called_at) <= self.times:
            raise self.refusal()
        return question.upper() if loud else question


async def beside(ctx: dict[Any, Any]) -> float:
    return time.monotonic()


def too_many_requests() -> Exception:
    request = httpx.Request("GET", "http://localhost/")
    response = httpx.Response(429, headers={"Retry-After": "1"}, request=request)
    return httpx.HTTPStatusError("too many", request=request, response=response)


async def result_of(job: Job | None) -> Any:
    # `Job.result` looks for the result and then into the queue, and fails if the job ended in between.
    assert job is not None
    ended: JobResult = await eventually(job.result_info, within=20)
    if isinstance(ended.result, Exception):
        raise ended.result
    return ended.result


def job_of(coordinator: RateLimitCoordinator, upstream: Upstream, **settings: Any) -> Function:
    return func(coordinated(coordinator, "openai", **settings)(upstream.ask), name="ask")


async def test_a_limited_job_is_not_a_failed_try_and_runs_again_at_the_resume_time(
    make: Make, queue: ArqRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """P53: the worker allows one try only."""
    coordinator = await make()
    waits = {"ours": WAIT, "a library's": 1.0}
    upstreams = {"ours": Upstream(lambda: RateLimited(WAIT)), "a library's": Upstream(too_many_requests)}
    functions = [func(coordinated(coordinator, name)(upstream.ask), name=name) for name, upstream in upstreams.items()]
    async with worker(queue, *functions) as working:
        jobs = [await queue.enqueue_job(name, "why", loud=True) for name in upstreams]
        assert [await result_of(job) for job in jobs] == ["WHY", "WHY"]

    for name, upstream in upstreams.items():
        assert upstream.tries == [1, 1]
        assert upstream.called_at[1] - upstream.called_at[0] >= waits[name]
    assert (working.jobs_failed, working.jobs_retried, working.jobs_complete) == (0, 2, 2)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert {event.backend_type: event.suggested_wait_seconds for event in coordinator.recent_events} == waits
    assert await queue.keys(f"{deferrals.KEY}:*") == []


async def test_while_a_job_is_put_off_the_only_worker_does_other_work(make: Make, queue: ArqRedis) -> None:
    coordinator = await make()
    upstream = Upstream(lambda: RateLimited(1.2))
    async with worker(queue, job_of(coordinator, upstream), func(beside)):
        # Of those that came in the same millisecond the first by name is the first to run.
        limited = await queue.enqueue_job("ask", "why", _job_id=f"1 {uuid4()}")
        other = await queue.enqueue_job("beside", _job_id=f"2 {uuid4()}")
        ran_at = await result_of(other)
        await result_of(limited)

    assert upstream.called_at[0] < ran_at < upstream.called_at[1]


async def test_a_job_whose_backend_is_limited_is_put_off_before_it_starts(make: Make, queue: ArqRedis) -> None:
    """P53: nothing is called during the limit, and no try is used up."""
    coordinator = await make()
    upstream = Upstream(lambda: RateLimited(WAIT), times=0)
    await coordinator.report_rate_limit("openai", WAIT)
    clear_at = time.monotonic() + (await coordinator.is_rate_limited("openai"))[1]
    async with worker(queue, job_of(coordinator, upstream), max_jobs=3) as working:
        jobs = [await queue.enqueue_job("ask", str(number)) for number in range(3)]
        assert [await result_of(job) for job in jobs if job] == ["0", "1", "2"]

    assert min(upstream.called_at) >= clear_at
    assert upstream.tries == [1, 1, 1]
    assert working.jobs_failed == 0
    assert len(coordinator.recent_events) == 1


async def test_other_errors_fail_a_job_as_always(make: Make, queue: ArqRedis) -> None:
    coordinator = await make()
    upstream = Upstream(lambda: KeyError("nothing of a limit"))
    async with worker(queue, job_of(coordinator, upstream)) as working:
        job = await queue.enqueue_job("ask", "why")
        with pytest.raises(KeyError, match="nothing of a limit"):
            await result_of(job)

    assert (working.jobs_failed, len(upstream.called_at)) == (1, 1)
    assert coordinator.recent_events == []


async def test_what_would_be_put_off_for_too_long_fails_with_its_own_error(make: Make, queue: ArqRedis) -> None:
    coordinator = await make()
    upstream = Upstream(lambda: RateLimited(30.0, "come back later"))
    async with worker(queue, job_of(coordinator, upstream, give_up_after=10)):
        with pytest.raises(RateLimited, match="come back later"):
            await result_of(await queue.enqueue_job("ask", "why"))
        with pytest.raises(LimitWaitTimeout):
            await result_of(await queue.enqueue_job("ask", "when"))

    assert len(upstream.called_at) == 1


async def test_who_has_to_wait_for_a_turn_leaves_the_worker_and_comes_back(make: Make, queue: ArqRedis) -> None:
    coordinator = await make()
    coordinator.hint("openai", max_in_flight=1)
    upstream = Upstream(lambda: RateLimited(WAIT), times=0)
    async with worker(queue, job_of(coordinator, upstream), max_jobs=2) as working:
        async with coordinator.admit("openai"):
            job = await queue.enqueue_job("ask", "why")
            await eventually(lambda: working.jobs_retried, within=20)
            assert upstream.called_at == []
        assert await result_of(job) == "why"

    assert (upstream.tries, working.jobs_failed) == ([1], 0)


async def test_a_job_names_its_backend_by_its_arguments(make: Make, queue: ArqRedis) -> None:
    coordinator = await make()
    upstream = Upstream(lambda: RateLimited(0.2))
    function = coordinated(coordinator, lambda question, loud: ("openai", question))(upstream.ask)
    async with worker(queue, func(function, name="ask")):
        job = await queue.enqueue_job("ask", "gpt-4o", loud=True)
        await result_of(job)

    assert [(event.backend_type, event.model) for event in coordinator.recent_events] == [("openai", "gpt-4o")]


@pytest.mark.parametrize("seconds", [-1, float("nan"), "day", True])
def test_a_bound_that_cannot_be_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="give_up_after must be"):
        coordinated(RateLimitCoordinator.from_url("memory://"), "openai", give_up_after=seconds)


def test_a_backend_without_a_name_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="must have a name"):
        coordinated(RateLimitCoordinator.from_url("memory://"), "")
