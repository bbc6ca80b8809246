"""google-api-core, with a real server of gRPC on the loopback interface, and with answers of HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
import requests
from google.api_core import exceptions, gapic_v1
from google.api_core.retry import Retry
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.integrations.google_api_core import (
    AdmissionTimeout,
    CoordinatedAsyncRetry,
    CoordinatedRetry,
    if_limited,
)
from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator
from tests.conftest import Make, Place
from tests.integrations.upstream import Upstream, told
from tests.servers import eventually

METHOD = "/acme.Models/Predict"


@dataclass
class Service:
    """A server of gRPC that refuses as often as it is told to, and remembers when it was called."""

    port: int = 0
    refusals: deque[float] = field(default_factory=deque)
    """With what wait, in seconds."""
    asked: list[float] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked.append(time.monotonic())
        if self.refusals:
            detail = AnyMessage()
            detail.Pack(RetryInfo(retry_delay=Duration(nanos=int(self.refusals.popleft() * 1e9))))
            status = Status(code=8, message="Quota exceeded for requests per minute", details=[detail])
            context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, status.message)
        return b"answer to " + request


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    server = grpc.server(ThreadPoolExecutor(4))
    handler = grpc.unary_unary_rpc_method_handler(made.answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("acme.Models", {"Predict": handler})])
    made.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made
    server.stop(None).wait(10)


@pytest.fixture
def coordinator() -> Iterator[SyncCoordinator]:
    with SyncCoordinator.from_url("memory://") as made:
        yield made


@pytest.fixture
def predict(service: Service) -> Iterator[Callable[..., bytes]]:
    """A method as Google's clients have them."""
    with grpc.insecure_channel(service.address) as channel:
        yield gapic_v1.method.wrap_method(channel.unary_unary(METHOD))


def refusal(wait_seconds: float) -> exceptions.GoogleAPICallError:
    delay = RetryInfo(retry_delay=Duration(seconds=int(wait_seconds), nanos=int(wait_seconds % 1 * 1e9)))
    return exceptions.ResourceExhausted("Quota exceeded", details=[delay])


def failing(*errors: Exception) -> tuple[Callable[[], str], list[float]]:
    left, asked = list(errors), list[float]()

    def call() -> str:
        asked.append(time.monotonic())
        if left:
            raise left.pop(0)
        return "served"

    return call, asked


def test_a_refusal_is_repeated_at_the_resume_time_that_all_share(
    real: Place, service: Service, predict: Callable[..., bytes]
) -> None:
    service.refusals.append(0.4)
    with (
        SyncCoordinator.from_url(real.url, real.namespace) as one,
        SyncCoordinator.from_url(real.url, real.namespace) as other,
    ):
        # A delay that it would exceed if it were heeded.
        assert predict(b"x", retry=CoordinatedRetry(one, "vertex", initial=60, timeout=30)) == b"answer to x"
        assert one.recent_events[-1].suggested_wait_seconds == pytest.approx(0.4)
        other.refresh()
        assert other.recent_events[-1].backend_type == "vertex"

    refused, served = service.asked
    assert 0.4 <= served - refused < 20


async def test_async_clients_wait_likewise_without_blocking_their_loop(
    real: Place, make: Make, service: Service
) -> None:
    coordinator = await make()
    service.refusals += [0.3]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with grpc.aio.insecure_channel(service.address) as channel:
        predict = gapic_v1.method_async.wrap_method(channel.unary_unary(METHOD))
        retry = CoordinatedAsyncRetry(coordinator, "vertex", "gemini", initial=60, timeout=30)
        assert await predict(b"x", retry=retry) == b"answer to x"
    ticking.cancel()
    refused, served = service.asked
    assert served - refused >= 0.3
    assert ticks >= 5
    assert (coordinator.recent_events[-1].backend_type, coordinator.recent_events[-1].model) == ("vertex", "gemini")


def test_who_waits_goes_on_when_the_limit_is_lifted_before_its_time(coordinator: SyncCoordinator) -> None:
    call, asked = failing(refusal(25))
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(CoordinatedRetry(coordinator, "vertex")(call))
        for _ in range(2000):
            if coordinator.active_limits:
                break
            time.sleep(0.01)
        coordinator.clear_limits()
        assert result.result(20) == "served"
    assert asked[1] - asked[0] < 20


def test_a_limit_that_outlasts_the_timeout_is_not_waited_for(coordinator: SyncCoordinator) -> None:
    refused = refusal(600)
    call, asked = failing(refused)
    retry = CoordinatedRetry(coordinator, "vertex", timeout=20)
    began = time.monotonic()
    with pytest.raises(exceptions.RetryError) as raised:
        retry(call)()
    assert isinstance(raised.value, AdmissionTimeout)
    assert isinstance(raised.value, LimitWaitTimeout)
    assert raised.value.cause is refused
    with pytest.raises(AdmissionTimeout) as later:
        retry(call)()
    assert later.value.cause is None
    assert time.monotonic() - began < 15
    assert len(asked) == 1


def test_other_errors_are_repeated_as_before_and_tell_nothing(coordinator: SyncCoordinator) -> None:
    call, asked = failing(exceptions.InternalServerError("x"), exceptions.ServiceUnavailable("failed to connect"))
    told: list[Exception] = []
    assert CoordinatedRetry(coordinator, "vertex", initial=0.01, on_error=told.append)(call)() == "served"
    assert [type(error) for error in told] == [exceptions.InternalServerError, exceptions.ServiceUnavailable]
    call, asked = failing(exceptions.NotFound("x"))
    with pytest.raises(exceptions.NotFound):
        CoordinatedRetry(coordinator, "vertex")(call)()
    assert len(asked) == 1
    assert coordinator.recent_events == []


def test_a_delay_that_outlasts_the_timeout_is_not_slept(coordinator: SyncCoordinator) -> None:
    error = exceptions.InternalServerError("x")
    call, asked = failing(*[error] * 99)
    retry = CoordinatedRetry(coordinator, "vertex", initial=1e9, maximum=1e9, timeout=20, predicate=lambda _: True)
    began = time.monotonic()
    with pytest.raises(exceptions.RetryError, match=r"Timeout of 20\.0s exceeded, last exception: 500 x") as raised:
        retry(call)()
    assert (raised.value.cause, type(raised.value)) == (error, exceptions.RetryError)
    assert time.monotonic() - began < 15
    assert len(asked) == 1


def test_a_server_that_nobody_reaches_is_not_limited(coordinator: SyncCoordinator, service: Service) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        predict = gapic_v1.method.wrap_method(channel.unary_unary(METHOD))
        retry = CoordinatedRetry(coordinator, "vertex", predicate=lambda _: False)
        with pytest.raises(exceptions.ServiceUnavailable):
            predict(b"x", retry=retry, timeout=20)
    assert coordinator.recent_events == []


def test_a_refusal_is_repeated_whatever_the_predicate_says_and_a_predicate_repeats_no_timeout(
    coordinator: SyncCoordinator,
) -> None:
    call, asked = failing(refusal(0.1))
    assert CoordinatedRetry(coordinator, "vertex", predicate=lambda _: False)(call)() == "served"
    assert len(asked) == 2

    call, asked = failing(refusal(600))
    with pytest.raises(AdmissionTimeout):
        CoordinatedRetry(coordinator, "vertex", predicate=lambda _: True, timeout=10)(call)()
    assert len(asked) == 1


def test_a_refusal_that_asks_for_no_wait_is_not_repeated_in_a_tight_loop(coordinator: SyncCoordinator) -> None:
    class Overloaded(Exception):
        response = SimpleNamespace(status_code=503)

    call, asked = failing(*[Overloaded()] * 3)
    CoordinatedRetry(coordinator, "vertex", initial=0.2, maximum=0.2, guess_seconds=0)(call)()
    assert len(asked) == 4
    assert asked[-1] - asked[0] > 0.01


def test_its_copies_are_coordinated_as_well(coordinator: SyncCoordinator) -> None:
    retry = CoordinatedRetry(coordinator, "vertex", "gemini", guess_seconds=60)
    copies = [retry.with_timeout(1), retry.with_deadline(1), retry.with_delay(maximum=3), retry.with_predicate(bool)]
    for copy in copies:
        call, _ = failing(exceptions.TooManyRequests("x"))
        with pytest.raises(AdmissionTimeout):
            copy.with_timeout(0.5)(call)()
        assert list(coordinator.active_limits) == ["vertex/gemini"]
        coordinator.clear_limits()
    assert "maximum=3.0" in str(copies[2])
    assert copies[2].with_timeout(7).timeout == 7


@pytest.mark.parametrize("limited", [True, False])
def test_answers_of_http_are_understood(coordinator: SyncCoordinator, limited: bool) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.3s"}]
    body = {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED", "details": details}}
    asked: list[float] = []
    with Upstream(told({"served": True})) as upstream:
        upstream.replies.append(told(body, 429) if limited else told({"error": {"message": "x"}}, 500))

        def call() -> Any:
            asked.append(time.monotonic())
            response = requests.get(upstream.url, timeout=20)
            if response.status_code != 200:
                raise exceptions.from_http_response(response)
            return response.json()

        assert CoordinatedRetry(coordinator, "vertex", initial=0.01)(call)() == {"served": True}
    assert len(asked) == 2
    assert (len(coordinator.recent_events) > 0) == limited
    if limited:
        assert asked[1] - asked[0] >= 0.3


def test_only_one_call_at_a_time_goes_where_that_is_said(coordinator: SyncCoordinator) -> None:
    coordinator.hint("vertex", max_in_flight=1)
    under_way, most, lock = 0, 0, threading.Lock()

    def call() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(CoordinatedRetry(coordinator, "vertex")(call)) for _ in range(4)]:
            done.result(20)
    assert most == 1


async def test_a_call_that_is_cancelled_while_it_waits_ends_at_once() -> None:
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        await coordinator.report_rate_limit("vertex", 600)
        asked: list[int] = []

        @CoordinatedAsyncRetry(coordinator, "vertex", timeout=None)
        async def call() -> None:
            asked.append(1)

        task = asyncio.ensure_future(call())
        await eventually(lambda: coordinator.health.calls_avoided > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asked == []


def test_a_predicate_reports_refusals_and_lets_them_be_repeated(coordinator: SyncCoordinator) -> None:
    call, asked = failing(refusal(0.2), exceptions.NotFound("x"))
    with pytest.raises(exceptions.NotFound):
        Retry(predicate=if_limited(coordinator, "vertex", "gemini"), initial=0.01)(call)()
    assert len(asked) == 2
    (event,) = coordinator.recent_events
    assert (event.backend_type, event.model, event.suggested_wait_seconds) == ("vertex", "gemini", 0.2)


async def test_a_coordinator_of_the_other_kind_is_refused(coordinator: SyncCoordinator) -> None:
    other = RateLimitCoordinator.from_url("memory://")
    for make in (CoordinatedRetry, if_limited):
        with pytest.raises(ValueError, match="coordinator"):
            make(other, "vertex")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="coordinator"):
        CoordinatedAsyncRetry(coordinator, "vertex")  # type: ignore[arg-type]
