"""Messages of dramatiq, processed by a real worker of it with a single thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker
from dramatiq.results.errors import ResultFailure

from rate_coordinator import RateLimited
from rate_coordinator.integrations.dramatiq import CoordinatedMiddleware
from rate_coordinator.sync import RateLimitCoordinator
from tests.conftest import NEWEST
from tests.integrations import dramatiq_app
from tests.integrations.workers import Upstream, worker_process
from tests.servers import RedisServer

WAIT = 0.6
WITHIN = 25_000
"""Milliseconds."""


@dataclass(frozen=True)
class Running:
    """A worker, and what its actors call."""

    upstream: Upstream
    coordinator: RateLimitCoordinator
    log: Path


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("dramatiq") / "log"
    command = ["dramatiq", "tests.integrations.dramatiq_app", "--processes", "1", "--threads", "1"]
    with (
        RedisServer(NEWEST.path) as server,
        redis.Redis.from_url(server.url) as client,
        worker_process(server.url, log, "ready for action", *command, "--worker-shutdown-timeout", "1000"),
        RateLimitCoordinator.from_url(server.url) as coordinator,
    ):
        dramatiq_app.broker.client = dramatiq_app.results.client = client
        dramatiq_app.broker.scripts = {
            name: client.register_script(script.script) for name, script in dramatiq_app.broker.scripts.items()
        }
        yield Running(Upstream(server.url), coordinator, log)


@pytest.fixture
def name() -> str:
    """A backend of the test's own."""
    return f"backend {uuid4()}"


def result_of(message: Any) -> Any:
    return message.get_result(backend=dramatiq_app.results, block=True, timeout=WITHIN)


def test_a_limited_message_is_not_a_failed_attempt_and_is_processed_again_at_the_resume_time(worker: Running) -> None:
    """P53: no retry is allowed."""
    actors = [dramatiq_app.ask, dramatiq_app.ask_async]
    cases = [(actor, wait, f"{kind} {uuid4()}") for actor in actors for kind, wait in (("limited", WAIT), ("http", 1))]
    for _, wait, name in cases:
        worker.upstream.will(name, f"{name.split()[0]} {wait}")

    messages = [(actor.send(name, 7), wait, name) for actor, wait, name in cases]

    for message, wait, name in messages:
        assert result_of(message) == 7
        first, second = worker.upstream.calls(name)
        assert second.at - first.at >= wait
        assert (first.retries, second.retries) == (0, 0)
        reports = [event for event in worker.coordinator.recent_events if event.backend_type == name]
        assert [(event.model, event.suggested_wait_seconds) for event in reports] == [("large", wait)]
    assert "ERROR" not in worker.log.read_text()


def test_while_a_message_is_put_off_the_only_thread_does_other_work(worker: Running, name: str) -> None:
    worker.upstream.will(name, "limited 1.2")
    limited, other = dramatiq_app.ask.send(name), dramatiq_app.beside.send(f"other {name}")

    result_of(other)
    result_of(limited)

    first, second = worker.upstream.calls(name)
    (between,) = worker.upstream.calls(f"other {name}")
    assert first.at < between.at < second.at


def test_a_message_whose_backend_is_limited_is_put_off_before_its_actor_is_called(worker: Running, name: str) -> None:
    """P53: nothing is called during the limit, and no retry is used up."""
    worker.coordinator.report_rate_limit(name, WAIT)
    clear_at = time.time() + worker.coordinator.is_rate_limited(name)[1] - 0.001
    messages = [dramatiq_app.ask.send(name, number) for number in range(3)]

    assert [result_of(message) for message in messages] == [0, 1, 2]

    calls = worker.upstream.calls(name)
    assert len(calls) == 3
    assert min(call.at for call in calls) >= clear_at
    assert {call.retries for call in calls} == {0}


def test_a_message_that_is_put_off_keeps_its_place_in_a_pipeline(worker: Running, name: str) -> None:
    worker.upstream.will(name, "limited 0.3")

    pipeline: Any = dramatiq_app.ask.message(name, 1) | dramatiq_app.add.message(10)
    pipeline.run()

    assert pipeline.get_result(block=True, timeout=WITHIN) == 11


def test_other_errors_fail_a_message_as_always(worker: Running, name: str) -> None:
    retrying = f"retrying {name}"
    worker.upstream.will(name, "error")
    worker.upstream.will(retrying, "error", "error")

    with pytest.raises(ResultFailure, match="nothing of a limit"):
        result_of(dramatiq_app.ask.send(name))
    with pytest.raises(ResultFailure, match="nothing of a limit"):
        result_of(dramatiq_app.ask_retrying.send(retrying))

    assert [call.retries for call in worker.upstream.calls(name)] == [0]
    assert [call.retries for call in worker.upstream.calls(retrying)] == [0, 1]
    assert name not in worker.coordinator.active_limits


def test_what_would_be_put_off_for_too_long_fails_with_its_own_error(worker: Running, name: str) -> None:
    worker.upstream.will(name, "limited 30")

    with pytest.raises(ResultFailure, match="come back later"):
        result_of(dramatiq_app.ask.send(name))
    with pytest.raises(ResultFailure, match="LimitWaitTimeout"):
        result_of(dramatiq_app.ask.send(name))

    assert len(worker.upstream.calls(name)) == 1


def test_one_message_may_name_another_backend(worker: Running, name: str) -> None:
    worker.upstream.will(name, "limited 0.1")

    result_of(dramatiq_app.ask_retrying.send_with_options(args=(name,), backend=name))

    assert [event.backend_type for event in worker.coordinator.recent_events].count(name) == 1


def test_an_actor_that_is_called_is_just_a_function() -> None:
    with RateLimitCoordinator.from_url("memory://") as coordinator:
        broker = StubBroker()
        broker.add_middleware(CoordinatedMiddleware(coordinator))

        @dramatiq.actor(broker=broker, backend="openai")
        def ask() -> None:
            raise RateLimited(0.3)

        with pytest.raises(RateLimited):
            ask()
        assert coordinator.active_limits == {}
        broker.close()


def test_a_bound_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="give_up_after must be"):
        CoordinatedMiddleware(RateLimitCoordinator.from_url("memory://"), give_up_after=-1)
