"""The same without ``await``: what of it is written a second time, and what only threads can do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES
from rate_coordinator.sync import RateLimitCoordinator
from tests.conftest import Place
from tests.integrations.httpx_kit import ENCODED, LIBRARIES, QUOTA, Kit
from tests.integrations.upstream import Reply, Upstream, refused, refused_within_a_success

HOST = "127.0.0.1"


@pytest.fixture(params=LIBRARIES)
def kit(request: pytest.FixtureRequest) -> Kit:
    return Kit.of(request.param)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def coordinator() -> Iterator[RateLimitCoordinator]:
    with RateLimitCoordinator.from_url("memory://") as made:
        yield made


def test_a_refusal_stops_everybody_who_shares_the_limit_until_it_lifts(
    real: Place, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(refused(0.4))
    with (
        RateLimitCoordinator.from_url(real.url, real.namespace) as one,
        RateLimitCoordinator.from_url(real.url, real.namespace) as other,
        kit.sync_client(one) as first,
        kit.sync_client(other) as second,
    ):
        assert first.get(upstream.url).status_code == 429
        other.refresh()
        assert second.get(upstream.url).status_code == 200

    refusal, served = upstream.asked
    assert served.at - refusal.at >= 0.4


def test_a_limit_of_one_model_holds_no_other(coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream) -> None:
    """P48."""

    def names(request: Any) -> tuple[str, str]:
        return "acme", json.loads(request.content)["model"]

    upstream.replies.append(refused(60))
    with kit.sync_client(coordinator, backend=names, timeout=0) as client:
        assert client.post(upstream.url, json={"model": "large"}).status_code == 429
        with pytest.raises(LimitWaitTimeout):
            client.post(upstream.url, json={"model": "large"})
        assert client.post(upstream.url, json={"model": "small"}).status_code == 200
    assert list(coordinator.active_limits) == ["acme/large"]


def test_a_request_is_sent_again_as_soon_as_its_limit_lifts(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(refused(0.3))
    with kit.sync_client(coordinator, attempts=3) as client:
        assert client.post(upstream.url, json={"n": 1}).status_code == 200
    first, second = upstream.asked
    assert (second.body, second.at - first.at >= 0.3) == (first.body, True)


def test_after_the_last_attempt_the_caller_gets_the_refusal(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.otherwise = refused(0.01)
    with kit.sync_client(coordinator, attempts=2) as client:
        response = client.post(upstream.url, content=b"x")
    assert (response.status_code, response.json()["error"]["message"]) == (429, "slow down")
    assert len(upstream.asked) == 2


def test_what_cannot_be_sent_again_is_not(coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream) -> None:
    upstream.otherwise = refused(0.01)
    with kit.sync_client(coordinator, attempts=3) as client:
        assert client.post(upstream.url, content=iter([b"one", b"two"])).status_code == 429
    assert len(upstream.asked) == 1


def test_a_wait_that_is_too_long_after_a_refusal_is_not_begun_and_the_refusal_returned(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.otherwise = refused(600)
    with kit.sync_client(coordinator, attempts=3, timeout=20) as client:
        began = time.monotonic()
        assert client.post(upstream.url, json={}).json() == {"error": {"message": "slow down"}}
        assert time.monotonic() - began < 15
        with pytest.raises(kit.client_library.TimeoutException) as raised:
            client.post(upstream.url, json={})
    assert isinstance(raised.value, kit.module.AdmissionTimeout)
    assert isinstance(raised.value, LimitWaitTimeout)
    assert len(upstream.asked) == 1


def test_a_refusal_that_is_not_returned_gives_its_connection_back_before_the_next_attempt(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    long = refused(0.01)
    long.body = b"x" * (4 * REFUSAL_BODY_BYTES)
    upstream.replies += [long, long]
    wrapped = kit.client_library.HTTPTransport(limits=kit.client_library.Limits(max_connections=1))
    with kit.sync_client(coordinator, wrapped, attempts=3) as client:
        assert client.get(upstream.url, timeout=kit.client_library.Timeout(30, pool=1)).status_code == 200


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("encoding", ENCODED)
def test_a_refusal_is_recognised_by_its_body_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream, encoding: str | None, streamed: bool
) -> None:
    body = ENCODED[encoding](json.dumps(QUOTA).encode())
    headers = {"content-encoding": encoding} if encoding else {}
    upstream.replies.append(Reply(429, headers, [body[:20], body[20:]] if streamed else body))
    with kit.sync_client(coordinator) as client, client.stream("POST", upstream.url) as response:
        assert b"".join(response.iter_raw()) == body
    assert coordinator.recent_events[0].reason == "quota"


def test_a_long_body_of_a_refusal_is_not_read_to_its_end_before_its_reader_wants_it(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    rest = threading.Event()
    body = [b"a" * REFUSAL_BODY_BYTES, b"b" * REFUSAL_BODY_BYTES]
    upstream.replies.append(Reply(503, {"retry-after": "60"}, body, hold=rest))
    with kit.sync_client(coordinator) as client, client.stream("GET", upstream.url) as response:
        assert coordinator.recent_events[0].reason == "overloaded"
        rest.set()
        assert response.read() == b"".join(body)


def test_a_refusal_whose_body_breaks_off_is_reported_and_its_reader_gets_the_error(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(Reply(429, {"retry-after": "7"}, b"half of", cut=True))
    with kit.sync_client(coordinator) as client, client.stream("GET", upstream.url) as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"half of"
        with pytest.raises(kit.client_library.RemoteProtocolError):
            next(chunks)
    assert coordinator.recent_events[0].suggested_wait_seconds == 7.0


def test_a_stream_that_is_served_is_handed_on_at_once_and_holds_up_nobody(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    rest = threading.Event()
    upstream.replies.append(Reply(200, {}, [b"first", b"second"], hold=rest))
    coordinator.hint(HOST, max_in_flight=1)
    with kit.sync_client(coordinator) as client, client.stream("GET", upstream.url) as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"first"
        assert client.get(upstream.url).status_code == 200
        rest.set()
        assert next(chunks) == b"second"


def test_a_refusal_within_a_short_success_is_recognised_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(refused_within_a_success())
    with kit.sync_client(coordinator) as client:
        assert client.post(upstream.url).json()["errors"] == [{"message": "Throttled"}]
    assert coordinator.recent_events[0].suggested_wait_seconds == 10.0


def test_an_answer_that_was_made_from_bytes_is_looked_at_as_well(coordinator: RateLimitCoordinator, kit: Kit) -> None:
    wrapped = kit.client_library.MockTransport(lambda request: kit.client_library.Response(429, json=QUOTA))
    with kit.sync_client(coordinator, wrapped) as client:
        assert client.get("http://acme.test").json() == QUOTA
    assert coordinator.recent_events[0].reason == "quota"


def test_threads_that_share_a_client_all_wait_for_the_limit(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    began = time.monotonic()
    coordinator.report_rate_limit(HOST, 0.2)
    with kit.sync_client(coordinator) as client, ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(lambda _: client.post(upstream.url).status_code, range(4)))
    assert statuses == [200] * 4
    assert min(asked.at for asked in upstream.asked) - began >= 0.2


def test_an_error_of_the_transport_passes_through_and_tells_nothing(
    coordinator: RateLimitCoordinator, kit: Kit
) -> None:
    with Upstream() as gone:
        url = gone.url
    with kit.sync_client(coordinator, attempts=3) as client, pytest.raises(kit.client_library.ConnectError):
        client.get(url)
    assert coordinator.recent_events == []


def test_an_interrupted_request_lets_go_of_the_refusal_that_it_looks_at(
    coordinator: RateLimitCoordinator, kit: Kit
) -> None:
    closed: list[bool] = []

    class Stream(kit.client_library.SyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Iterator[bytes]:
            raise KeyboardInterrupt
            yield b""

        def close(self) -> None:
            closed.append(True)

    wrapped = kit.client_library.MockTransport(lambda request: kit.client_library.Response(429, stream=Stream()))
    with kit.sync_client(coordinator, wrapped) as client, pytest.raises(KeyboardInterrupt):
        client.get("http://acme.test")
    assert closed == [True]
    assert coordinator.active_limits == {}


def test_closing_a_client_closes_what_is_wrapped_and_not_the_coordinator(
    coordinator: RateLimitCoordinator, kit: Kit
) -> None:
    told: list[str] = []

    class Wrapped(kit.client_library.BaseTransport):  # type: ignore[misc,name-defined]
        def __enter__(self) -> Any:
            told.append("opened")
            return self

        def __exit__(self, *_: object) -> None:
            told.append("left")

        def close(self) -> None:
            told.append("closed")

    with kit.sync_client(coordinator, Wrapped()):
        assert told == ["opened"]
    kit.sync_client(coordinator, Wrapped()).close()
    assert told == ["opened", "left", "closed"]
    assert coordinator.health.state == "connected"
