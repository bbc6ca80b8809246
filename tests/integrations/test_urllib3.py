"""urllib3, with a real upstream on the loopback interface."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from urllib3.util import Retry

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES
from rate_coordinator.integrations.urllib3 import (
    AdmissionTimeout,
    CoordinatedPoolManager,
    CoordinatedProxyManager,
    Request,
)
from rate_coordinator.sync import RateLimitCoordinator
from tests.conftest import Place
from tests.integrations.httpx_kit import ENCODED, QUOTA, warnings_of
from tests.integrations.upstream import Reply, Upstream, refused, refused_within_a_success

HOST = "127.0.0.1"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def coordinator() -> Iterator[RateLimitCoordinator]:
    with RateLimitCoordinator.from_url("memory://") as made:
        yield made


def test_a_refusal_stops_everybody_who_shares_the_limit_until_it_lifts(real: Place, upstream: Upstream) -> None:
    upstream.replies.append(refused(0.4))
    with (
        RateLimitCoordinator.from_url(real.url, real.namespace) as one,
        RateLimitCoordinator.from_url(real.url, real.namespace) as other,
        CoordinatedPoolManager(one) as first,
        CoordinatedPoolManager(other) as second,
    ):
        assert first.request("GET", upstream.url).status == 429
        other.refresh()
        assert second.request("GET", upstream.url).status == 200

    refusal, served = upstream.asked
    assert served.at - refusal.at >= 0.4


def test_a_limit_of_one_model_holds_no_other(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    """P48."""
    requests: list[Request] = []

    def names(request: Request) -> tuple[str, str]:
        requests.append(request)
        assert isinstance(request.body, bytes)
        return "acme", json.loads(request.body)["model"]

    upstream.replies.append(refused(60))
    with CoordinatedPoolManager(coordinator, headers={"X-Api-Key": "s"}, backend=names, admission_timeout=0) as manager:
        assert manager.request("POST", f"{upstream.url}/v1?q=1", json={"model": "large"}).status == 429
        with pytest.raises(LimitWaitTimeout):
            manager.request("POST", upstream.url, json={"model": "large"})
        assert manager.request("POST", upstream.url, json={"model": "small"}).status == 200
    assert list(coordinator.active_limits) == ["acme/large"]
    assert (requests[0].method, requests[0].url, requests[0].headers["x-api-key"]) == (
        "POST",
        f"{upstream.url}/v1?q=1",
        "s",
    )
    assert repr(requests[0]) == "Request(method='POST')"


def test_a_request_is_sent_again_as_soon_as_its_limit_lifts(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(refused(0.3))
    with CoordinatedPoolManager(coordinator, attempts=3, timeout=30.0) as manager:
        assert manager.request("POST", upstream.url, json={"n": 1}).status == 200
    first, second = upstream.asked
    assert (second.body, second.at - first.at >= 0.3) == (first.body, True)


def test_what_cannot_be_sent_again_is_not(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    upstream.otherwise = refused(0.01)
    with CoordinatedPoolManager(coordinator, attempts=3) as manager:
        assert manager.request("POST", upstream.url, body=io.BytesIO(b"a file")).status == 429
        assert manager.request("POST", upstream.url, body=iter([b"one", b"two"])).status == 429
    assert len(upstream.asked) == 2


def test_a_wait_that_is_too_long_after_a_refusal_is_not_begun_and_the_refusal_returned(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.otherwise = refused(600)
    with CoordinatedPoolManager(coordinator, attempts=3, admission_timeout=20) as manager:
        began = time.monotonic()
        assert manager.request("POST", upstream.url).json() == {"error": {"message": "slow down"}}
        assert time.monotonic() - began < 15
        with pytest.raises(urllib3.exceptions.TimeoutError) as raised:
            manager.request("POST", upstream.url)
    assert isinstance(raised.value, AdmissionTimeout)
    assert isinstance(raised.value, LimitWaitTimeout)
    assert len(upstream.asked) == 1


def test_refusals_are_not_repeated_beneath_and_who_asks_for_that_is_warned_once(
    coordinator: RateLimitCoordinator, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """P49."""
    upstream.otherwise = refused(0.01)
    with CoordinatedPoolManager(coordinator, attempts=2) as manager:
        # By default it would repeat each of them three times.
        assert manager.request("GET", upstream.url).status == 429
        assert len(upstream.asked) == 2
        assert warnings_of(caplog) == []
        for _ in range(2):
            assert manager.request("GET", upstream.url, retries=Retry(5, status_forcelist=[429])).status == 429
    assert len(upstream.asked) == 6
    assert len(warnings_of(caplog)) == 1


def test_what_is_repeated_beneath_waits_for_no_turn_within_a_turn(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies += [Reply(502), Reply(502), refused(60)]
    coordinator.hint(HOST, max_in_flight=1)
    with CoordinatedPoolManager(coordinator, retries=Retry(5, status_forcelist=[502])) as manager:
        assert manager.request("GET", upstream.url).status == 429
    assert len(upstream.asked) == 3
    assert list(coordinator.active_limits) == [HOST]


def test_each_request_of_a_chain_of_redirects_is_a_call_of_its_own(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies += [Reply(302, {"location": "/next"}), refused(0.2)]
    coordinator.hint(HOST, max_in_flight=1)
    with CoordinatedPoolManager(coordinator, attempts=2) as manager:
        response = manager.request("GET", upstream.url)
    assert (response.status, response.geturl()) == (200, "/next")
    assert [asked.path for asked in upstream.asked] == ["/", "/next", "/next"]
    assert upstream.asked[2].at - upstream.asked[1].at >= 0.2


def test_too_many_redirects_are_an_error_as_before(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    upstream.otherwise = Reply(302, {"location": "/next"})
    with CoordinatedPoolManager(coordinator) as manager, pytest.raises(urllib3.exceptions.MaxRetryError):
        manager.request("GET", upstream.url, retries=2)
    assert len(upstream.asked) == 3


def test_a_pool_of_the_manager_is_coordinated_as_well(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    upstream.replies.append(refused(60))
    with CoordinatedPoolManager(coordinator, admission_timeout=0) as manager:
        pool = manager.connection_from_url(upstream.url)
        assert pool.request("POST", "/v1", fields={"n": "1"}).status == 429
        with pytest.raises(AdmissionTimeout):
            pool.request("GET", "/v1")
        assert (pool.host, pool.num_requests) == (HOST, 1)


def test_behind_a_proxy_the_limit_is_that_of_the_host_that_is_meant(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(refused(60))
    with CoordinatedProxyManager(coordinator, upstream.url) as manager:
        assert manager.request("GET", "http://acme.test/v1").status == 429
        assert manager.request("GET", "http://other.test/v1").status == 200
    assert list(coordinator.active_limits) == ["acme.test"]
    assert upstream.asked[0].path == "http://acme.test/v1"


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("encoding", ENCODED)
def test_a_refusal_is_recognised_by_its_body_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, upstream: Upstream, encoding: str | None, preload: bool
) -> None:
    body = ENCODED[encoding](json.dumps(QUOTA).encode())
    headers = {"content-encoding": encoding} if encoding else {}
    upstream.replies.append(Reply(429, headers, [body[:20], body[20:]]))
    with CoordinatedPoolManager(coordinator) as manager:
        response = manager.request("POST", upstream.url, preload_content=preload)
        assert response.json() == QUOTA
    assert coordinator.recent_events[0].reason == "quota"


def test_a_body_that_is_preloaded_as_it_was_sent_is_understood(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    body = ENCODED["gzip"](json.dumps(QUOTA).encode())
    upstream.replies.append(Reply(429, {"content-encoding": "gzip"}, body))
    with CoordinatedPoolManager(coordinator) as manager:
        assert manager.request("POST", upstream.url, decode_content=False).data == body
    assert coordinator.recent_events[0].reason == "quota"


@pytest.mark.parametrize("preloaded", [False, True])
def test_a_refusal_within_a_short_success_is_recognised_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, upstream: Upstream, preloaded: bool
) -> None:
    upstream.replies.append(refused_within_a_success())
    with CoordinatedPoolManager(coordinator) as manager:
        response = manager.request("POST", upstream.url, preload_content=preloaded)
        assert coordinator.recent_events[0].suggested_wait_seconds == 10.0
        assert response.json()["errors"] == [{"message": "Throttled"}]


def test_a_long_body_of_a_refusal_is_not_read_to_its_end_before_its_reader_wants_it(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    rest = threading.Event()
    body = [b"a" * REFUSAL_BODY_BYTES, b"b" * REFUSAL_BODY_BYTES]
    upstream.replies.append(Reply(503, {"retry-after": "60"}, body, hold=rest))
    with CoordinatedPoolManager(coordinator) as manager:
        response = manager.request("GET", upstream.url, preload_content=False)
        assert coordinator.recent_events[0].reason == "overloaded"
        rest.set()
        assert response.read() == b"".join(body)


@pytest.mark.parametrize("let_go", ["close", "drain_conn", "release_conn"])
def test_a_refusal_that_is_not_read_gives_its_connection_back(
    coordinator: RateLimitCoordinator, upstream: Upstream, let_go: str
) -> None:
    long = refused(0)
    long.body = b"x" * (4 * REFUSAL_BODY_BYTES)
    upstream.replies += [long, long]
    with CoordinatedPoolManager(coordinator, maxsize=1, block=True, attempts=2) as manager:
        response = manager.request("GET", upstream.url, preload_content=False)
        assert response.status == 429
        getattr(response, let_go)()
        assert manager.request("GET", upstream.url, pool_timeout=1).status == 200


def test_a_stream_that_is_served_is_handed_on_at_once_and_holds_up_nobody(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    rest = threading.Event()
    upstream.replies.append(Reply(200, {}, [b"first", b"second"], hold=rest))
    coordinator.hint(HOST, max_in_flight=1)
    with CoordinatedPoolManager(coordinator) as manager:
        chunks = manager.request("GET", upstream.url, preload_content=False).stream()
        assert next(chunks) == b"first"
        assert manager.request("GET", upstream.url).status == 200
        rest.set()
        assert next(chunks) == b"second"


def test_threads_that_share_a_manager_all_wait_for_the_limit(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    began = time.monotonic()
    coordinator.report_rate_limit(HOST, 0.2)
    with CoordinatedPoolManager(coordinator) as manager, ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(lambda _: manager.request("POST", upstream.url).status, range(4)))
    assert statuses == [200] * 4
    assert min(asked.at for asked in upstream.asked) - began >= 0.2


def test_an_error_of_the_connection_passes_through_and_tells_nothing(coordinator: RateLimitCoordinator) -> None:
    with Upstream() as gone:
        url = gone.url
    with CoordinatedPoolManager(coordinator, attempts=3) as manager, pytest.raises(urllib3.exceptions.MaxRetryError):
        manager.request("GET", url, retries=0)
    assert coordinator.recent_events == []


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"provider": "nobody"}, {"guess_seconds": -1}])
def test_what_cannot_be_used_is_refused(coordinator: RateLimitCoordinator, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        CoordinatedPoolManager(coordinator, **settings)
