"""Tasks of Celery, run by real workers of it: one with a process, one with a thread, each with one slot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, Task, chain, chord
from celery.exceptions import Retry
from celery.result import AsyncResult

from rate_coordinator import LimitWaitTimeout, RateLimited
from rate_coordinator.integrations.celery import coordinated
from rate_coordinator.sync import RateLimitCoordinator
from tests.conftest import NEWEST
from tests.integrations import celery_app
from tests.integrations.workers import Upstream, worker_process
from tests.servers import RedisServer

WAIT = 0.6
WITHIN = 25.0


@dataclass(frozen=True)
class Running:
    """A worker, and what its tasks call."""

    upstream: Upstream
    coordinator: RateLimitCoordinator
    log: Path

    def errors_of(self, result: AsyncResult) -> list[str]:
        """Return what the worker logged as errors of a task."""
        return [line for line in self.log.read_text().splitlines() if result.id in line and "ERROR" in line]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(NEWEST.path) as running:
        celery_app.app.conf.update(broker_url=running.url, result_backend=running.url)
        yield running
        celery_app.app.close()


@pytest.fixture(scope="module", params=["prefork", "threads"])
def worker(
    request: pytest.FixtureRequest, server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("celery") / "log"
    options = ["--concurrency", "1", "--pool", request.param, "--loglevel", "INFO", "--without-mingle"]
    command = ["celery", "-A", "tests.integrations.celery_app", "worker", "--without-gossip", *options]
    with (
        worker_process(server.url, log, " ready.", *command),
        RateLimitCoordinator.from_url(server.url) as coordinator,
    ):
        yield Running(Upstream(server.url), coordinator, log)


@pytest.fixture
def name() -> str:
    """A backend of the test's own."""
    return f"backend {uuid4()}"


def test_a_limited_task_is_not_a_failed_attempt_and_runs_again_at_the_resume_time(worker: Running) -> None:
    """P53: no retry is allowed, also where every error leads to one; acknowledged early and late."""
    acknowledging = [celery_app.ask_early, celery_app.ask_late]
    tasks = [*acknowledging, celery_app.ask_always, celery_app.ask_retrying, celery_app.ask_bare]
    cases = [(task, wait, f"{kind} {uuid4()}") for task in tasks for kind, wait in (("limited", WAIT), ("http", 1))]
    for _, wait, name in cases:
        worker.upstream.will(name, f"{name.split()[0]} {wait}")

    results = [(task.delay(name, 7), wait, name) for task, wait, name in cases]

    for result, wait, name in results:
        assert result.get(timeout=WITHIN) == 7
        first, second = worker.upstream.calls(name)
        assert second.at - first.at >= wait
        assert (first.retries, second.retries) == (0, 0)
        assert worker.errors_of(result) == []
        reports = [event for event in worker.coordinator.recent_events if event.backend_type == name]
        assert [(event.model, event.suggested_wait_seconds) for event in reports] == [("large", wait)]


def test_while_a_task_is_put_off_the_only_slot_does_other_work(worker: Running, name: str) -> None:
    worker.upstream.will(name, "limited 1.2")
    limited, other = celery_app.ask_early.delay(name), celery_app.beside.delay(f"other {name}")

    other.get(timeout=WITHIN)
    limited.get(timeout=WITHIN)

    first, second = worker.upstream.calls(name)
    (between,) = worker.upstream.calls(f"other {name}")
    assert first.at < between.at < second.at
    assert f"[{limited.id}] retry: Retry in" in worker.log.read_text()


def test_a_task_whose_backend_is_limited_is_put_off_before_it_starts(worker: Running, name: str) -> None:
    """P53: nothing is called during the limit, and no retry is used up."""
    worker.coordinator.report_rate_limit(name, WAIT)
    # The worker may hear of it a moment after us.
    clear_at = time.time() + worker.coordinator.is_rate_limited(name)[1] - 0.001
    results = [celery_app.ask_late.delay(name, number) for number in range(3)]

    assert [result.get(timeout=WITHIN) for result in results] == [0, 1, 2]

    calls = worker.upstream.calls(name)
    assert len(calls) == 3
    assert min(call.at for call in calls) >= clear_at
    assert {call.retries for call in calls} == {0}


def test_a_task_that_is_put_off_keeps_its_place_in_chains_and_chords(worker: Running, name: str) -> None:
    ask, add = celery_app.ask_early, celery_app.add
    chained, joined = f"chain {name}", f"chord {name}"
    worker.upstream.will(chained, "limited 0.3")
    worker.upstream.will(joined, "limited 0.3", "limited 0.2")

    one = chain(ask.s(chained, 1), add.s(10)).delay()
    all_of_them = chord([ask.s(joined, 1), ask.s(joined, 2)])(add.s(100))

    assert (one.get(timeout=WITHIN), all_of_them.get(timeout=WITHIN)) == (11, 103)


def test_other_errors_fail_a_task_as_always(worker: Running, name: str) -> None:
    retrying = f"retrying {name}"
    worker.upstream.will(name, "error")
    worker.upstream.will(retrying, "error", "error")

    with pytest.raises(KeyError, match="nothing of a limit"):
        celery_app.ask_early.delay(name).get(timeout=WITHIN)
    with pytest.raises(KeyError, match="nothing of a limit"):
        celery_app.ask_retrying.delay(retrying).get(timeout=WITHIN)

    assert [call.retries for call in worker.upstream.calls(name)] == [0]
    assert [call.retries for call in worker.upstream.calls(retrying)] == [0, 1]
    assert name not in worker.coordinator.active_limits


def test_a_task_that_was_sent_again_by_itself_is_sent_once(worker: Running, name: str) -> None:
    worker.upstream.will(name, "error")

    assert celery_app.ask_again.delay(name, 7).get(timeout=WITHIN) == 7

    assert [call.retries for call in worker.upstream.calls(name)] == [0, 1]
    assert name not in worker.coordinator.active_limits


def test_what_would_be_put_off_for_too_long_fails_with_its_own_error(worker: Running, name: str) -> None:
    worker.upstream.will(name, "limited 30")

    refused = celery_app.ask_early.delay(name)
    with pytest.raises(RateLimited, match="come back later") as caught:
        refused.get(timeout=WITHIN)
    with pytest.raises(LimitWaitTimeout):
        celery_app.ask_early.delay(name).get(timeout=WITHIN)

    assert caught.value.wait_seconds == 30.0
    assert (refused.state, len(worker.upstream.calls(name))) == ("FAILURE", 1)


# Without a worker.


def eager_app(**settings: Any) -> Celery:
    app = Celery("eager", broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=True, task_store_eager_result=False, **settings)
    return app


def test_where_tasks_are_called_eagerly_there_is_no_queue_and_they_wait() -> None:
    with RateLimitCoordinator.from_url("memory://") as coordinator:
        app = eager_app()
        called_at: list[float] = []

        @app.task(base=coordinated(coordinator, "openai"), bind=True, max_retries=0)  # type: ignore[untyped-decorator]
        def ask(task: Any) -> int:
            called_at.append(time.monotonic())
            if len(called_at) == 1:
                raise RateLimited(0.3)
            return int(task.request.retries)

        assert ask.delay().get() == 0
        assert called_at[1] - called_at[0] >= 0.3


def test_a_task_that_is_called_is_just_a_function() -> None:
    with RateLimitCoordinator.from_url("memory://") as coordinator:

        @eager_app().task(base=coordinated(coordinator, "openai"))  # type: ignore[untyped-decorator]
        def ask() -> None:
            raise RateLimited(0.3)

        with pytest.raises(RateLimited):
            ask()
        assert coordinator.active_limits == {}


def test_a_base_of_ones_own_goes_on_calling_the_task() -> None:
    class InContext(Task):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return "within", self.run(*args, **kwargs)

    with RateLimitCoordinator.from_url("memory://") as coordinator:

        @eager_app().task(base=coordinated(coordinator, "openai", base=InContext))  # type: ignore[untyped-decorator]
        def ask() -> str:
            return "because"

        assert ask.delay().get() == ("within", "because")


@pytest.mark.parametrize(("visible", "longest"), [(None, 900.0), (60, 30.0), (3600, 900.0)])
def test_no_task_is_put_off_for_so_long_that_the_broker_takes_it_for_lost(visible: int | None, longest: float) -> None:
    sent: dict[str, Any] = {}

    def remember(*_: object, **options: Any) -> NotSent:
        sent.update(options)
        return NotSent()

    options = {} if visible is None else {"visibility_timeout": visible}
    with RateLimitCoordinator.from_url("memory://") as coordinator:
        app = Celery("far", broker="memory://", set_as_current=False)
        app.conf.broker_transport_options = options

        @app.task(base=coordinated(coordinator, "openai"))  # type: ignore[untyped-decorator]
        def ask() -> None: ...

        coordinator.report_rate_limit("openai", 3000.0)
        ask.signature_from_request = remember
        ask.push_request(called_directly=False, retries=2)
        with pytest.raises(Retry):
            ask.__call__()

    assert sent["countdown"] == longest
    assert sent["retries"] == 2


@pytest.mark.parametrize("seconds", [-1, float("nan"), "day", True])
def test_a_bound_that_cannot_be_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="give_up_after must be"):
        coordinated(RateLimitCoordinator.from_url("memory://"), "openai", give_up_after=seconds)


def test_a_backend_without_a_name_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="must have a name"):
        coordinated(RateLimitCoordinator.from_url("memory://"), "")


class NotSent:
    """A signature that goes nowhere."""

    def apply_async(self) -> None: ...
