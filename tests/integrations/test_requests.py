"""requests, with a real upstream on the loopback interface."""

from __future__ import annotations

import io
import json
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPDigestAuth
from urllib3 import BaseHTTPResponse
from urllib3.util import Retry

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES
from rate_coordinator.integrations.requests import AdmissionTimeout, CoordinatedAdapter
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


def session_of(
    coordinator: RateLimitCoordinator, adapter: BaseAdapter | None = None, **settings: Any
) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", CoordinatedAdapter(coordinator, adapter, **settings))
    return session


def test_a_refusal_stops_everybody_who_shares_the_limit_until_it_lifts(real: Place, upstream: Upstream) -> None:
    upstream.replies.append(refused(0.4))
    with (
        RateLimitCoordinator.from_url(real.url, real.namespace) as one,
        RateLimitCoordinator.from_url(real.url, real.namespace) as other,
        session_of(one) as first,
        session_of(other) as second,
    ):
        assert first.get(upstream.url).status_code == 429
        other.refresh()
        assert second.get(upstream.url).status_code == 200

    refusal, served = upstream.asked
    assert served.at - refusal.at >= 0.4


def test_a_limit_of_one_model_holds_no_other(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    """P48."""

    def names(request: requests.PreparedRequest) -> tuple[str, str]:
        return "acme", json.loads(request.body or b"")["model"]

    upstream.replies.append(refused(60))
    with session_of(coordinator, backend=names, timeout=0) as session:
        assert session.post(upstream.url, json={"model": "large"}).status_code == 429
        with pytest.raises(LimitWaitTimeout):
            session.post(upstream.url, json={"model": "large"})
        assert session.post(upstream.url, json={"model": "small"}).status_code == 200
    assert list(coordinator.active_limits) == ["acme/large"]


def test_a_request_is_sent_again_as_soon_as_its_limit_lifts(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(refused(0.3))
    with session_of(coordinator, attempts=3) as session:
        assert session.post(upstream.url, json={"n": 1}, timeout=30).status_code == 200
    first, second = upstream.asked
    assert (second.body, second.at - first.at >= 0.3) == (first.body, True)


def test_after_the_last_attempt_the_caller_gets_the_refusal(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.otherwise = refused(0.01)
    with session_of(coordinator, attempts=2) as session:
        response = session.post(upstream.url, data=b"x")
    assert (response.status_code, response.json()["error"]["message"]) == (429, "slow down")
    assert len(upstream.asked) == 2


def test_what_cannot_be_sent_again_is_not(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    upstream.otherwise = refused(0.01)
    with session_of(coordinator, attempts=3) as session:
        assert session.post(upstream.url, data=io.BytesIO(b"a file")).status_code == 429
        assert session.post(upstream.url, data=iter([b"one", b"two"])).status_code == 429
    assert len(upstream.asked) == 2


def test_a_wait_that_is_too_long_after_a_refusal_is_not_begun_and_the_refusal_returned(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.otherwise = refused(600)
    with session_of(coordinator, attempts=3, timeout=20) as session:
        began = time.monotonic()
        assert session.post(upstream.url, json={}).json() == {"error": {"message": "slow down"}}
        assert time.monotonic() - began < 15
        with pytest.raises(requests.Timeout) as raised:
            session.post(upstream.url, json={})
    assert isinstance(raised.value, AdmissionTimeout)
    assert isinstance(raised.value, LimitWaitTimeout)
    assert raised.value.request is not None
    assert len(upstream.asked) == 1


def test_a_refusal_that_is_not_returned_gives_its_connection_back_before_the_next_attempt(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    long = refused(0.01)
    long.body = b"x" * (4 * REFUSAL_BODY_BYTES)
    upstream.replies += [long, refused(0.01), long]
    wrapped = HTTPAdapter(pool_maxsize=1, pool_block=True)
    with session_of(coordinator, wrapped, attempts=4) as session:
        assert session.get(upstream.url, timeout=30).status_code == 200


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("encoding", ENCODED)
def test_a_refusal_is_recognised_by_its_body_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, upstream: Upstream, encoding: str | None, streamed: bool
) -> None:
    body = ENCODED[encoding](json.dumps(QUOTA).encode())
    headers = {"content-encoding": encoding} if encoding else {}
    upstream.otherwise = Reply(429, headers, [body[:20], body[20:]] if streamed else body)
    with session_of(coordinator) as session:
        assert session.post(upstream.url).json() == QUOTA
        assert coordinator.recent_events[0].reason == "quota"
        coordinator.clear_limits()
        with session.post(upstream.url, stream=True) as response:
            assert b"".join(response.iter_content(7)) == json.dumps(QUOTA).encode()
        coordinator.clear_limits()
        with session.post(upstream.url, stream=True) as response:
            assert response.raw.read() == body


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refusal_within_a_short_success_is_recognised_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, upstream: Upstream, streamed: bool
) -> None:
    upstream.replies.append(refused_within_a_success())
    with session_of(coordinator) as session, session.post(upstream.url, stream=streamed) as response:
        assert coordinator.recent_events[0].suggested_wait_seconds == 10.0
        assert response.json()["errors"] == [{"message": "Throttled"}]


def test_a_long_body_of_a_refusal_is_not_read_to_its_end_before_its_reader_wants_it(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    rest = threading.Event()
    body = [b"a" * REFUSAL_BODY_BYTES, b"b" * REFUSAL_BODY_BYTES]
    upstream.replies.append(Reply(503, {"retry-after": "60"}, body, hold=rest))
    with session_of(coordinator) as session, session.get(upstream.url, stream=True) as response:
        assert coordinator.recent_events[0].reason == "overloaded"
        rest.set()
        assert response.content == b"".join(body)


def test_a_refusal_whose_body_breaks_off_is_reported_and_its_reader_gets_the_error(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(Reply(429, {"retry-after": "7"}, b"half of", cut=True))
    with session_of(coordinator) as session, session.get(upstream.url, stream=True) as response:
        chunks = response.iter_content(7)
        assert next(chunks) == b"half of"
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            next(chunks)
    assert coordinator.recent_events[0].suggested_wait_seconds == 7.0


def test_a_refusal_without_a_body_and_its_cookies_reach_the_caller(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(refused(7, set_cookie="seen=1"))
    with session_of(coordinator) as session:
        response = session.head(upstream.url)
        assert (response.status_code, response.content) == (429, b"")
        assert session.cookies["seen"] == response.cookies["seen"] == "1"
    assert coordinator.recent_events[0].suggested_wait_seconds == 7.0


def test_a_stream_that_is_served_is_handed_on_at_once_and_holds_up_nobody(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    rest = threading.Event()
    upstream.replies.append(Reply(200, {}, [b"first", b"second"], hold=rest))
    coordinator.hint(HOST, max_in_flight=1)
    with session_of(coordinator) as session, session.get(upstream.url, stream=True) as response:
        chunks = response.iter_content(None)
        assert next(chunks) == b"first"
        assert session.get(upstream.url).status_code == 200
        rest.set()
        assert next(chunks) == b"second"


def test_each_request_of_a_chain_of_redirects_is_a_call_of_its_own(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies += [Reply(302, {"location": "/next"}), refused(0.2)]
    coordinator.hint(HOST, max_in_flight=1)
    with session_of(coordinator, attempts=2) as session:
        assert session.get(upstream.url).status_code == 200
    assert [asked.path for asked in upstream.asked] == ["/", "/next", "/next"]
    assert upstream.asked[2].at - upstream.asked[1].at >= 0.2


def test_what_a_login_sends_once_more_is_coordinated_as_well(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies += [Reply(401, {"www-authenticate": 'Digest realm="r", nonce="n", qop="auth"'}), refused(60)]
    with session_of(coordinator) as session:
        assert session.get(upstream.url, auth=HTTPDigestAuth("name", "word")).status_code == 429
    assert list(coordinator.active_limits) == [HOST]


def test_refusals_are_not_repeated_beneath_and_who_asks_for_that_is_warned_once(
    coordinator: RateLimitCoordinator, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """P49."""
    upstream.otherwise = refused(0.01)
    asks = HTTPAdapter(max_retries=Retry(5, status_forcelist=[429]))
    with session_of(coordinator, asks, attempts=2) as session:
        assert session.get(upstream.url).status_code == 429
        assert session.get(upstream.url).status_code == 429
    assert len(upstream.asked) == 4
    assert len(warnings_of(caplog)) == 1

    # A plain number repeats each refusal that tells a wait as well.
    with session_of(coordinator, HTTPAdapter(max_retries=5)) as session:
        assert session.get(upstream.url).status_code == 429
    assert len(upstream.asked) == 5
    assert len(warnings_of(caplog)) == 1


def test_other_answers_are_repeated_beneath_as_before(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    class Counted(Retry):
        repeated = 0

        def sleep(self, response: BaseHTTPResponse | None = None) -> None:
            Counted.repeated += 1

    upstream.replies += [Reply(502), Reply(502), refused(60)]
    with session_of(coordinator, HTTPAdapter(max_retries=Counted(5, status_forcelist=[502]))) as session:
        assert session.get(upstream.url).status_code == 429
    assert (len(upstream.asked), Counted.repeated) == (3, 2)
    assert list(coordinator.active_limits) == [HOST]


def test_threads_that_share_a_session_all_wait_for_the_limit(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    began = time.monotonic()
    coordinator.report_rate_limit(HOST, 0.2)
    with session_of(coordinator) as session, ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(lambda _: session.post(upstream.url).status_code, range(4)))
    assert statuses == [200] * 4
    assert min(asked.at for asked in upstream.asked) - began >= 0.2


def test_an_error_of_the_adapter_passes_through_and_tells_nothing(coordinator: RateLimitCoordinator) -> None:
    with Upstream() as gone:
        url = gone.url
    with session_of(coordinator, attempts=3) as session, pytest.raises(requests.ConnectionError):
        session.get(url)
    assert coordinator.recent_events == []


def test_an_interrupted_request_gives_its_turn_back(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    class Interrupted(HTTPAdapter):
        def send(self, *arguments: Any, **keywords: Any) -> requests.Response:
            raise KeyboardInterrupt

    coordinator.hint(HOST, max_in_flight=1)
    with session_of(coordinator, Interrupted()) as session, pytest.raises(KeyboardInterrupt):
        session.get(upstream.url)
    with session_of(coordinator, timeout=20) as session:
        assert session.get(upstream.url).status_code == 200


def test_an_answer_that_no_network_sent_is_looked_at_as_well(coordinator: RateLimitCoordinator) -> None:
    class Made(BaseAdapter):
        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
            response = requests.Response()
            response.status_code, response.request, response.url = 429, request, request.url or ""
            response.headers["Retry-After"], response.raw = "7", io.BytesIO(b"slow down")
            return response

        def close(self) -> None:
            pass

    with session_of(coordinator, Made()) as session:
        assert session.get("http://acme.test").content == b"slow down"
    assert coordinator.recent_events[0].suggested_wait_seconds == 7.0


def test_closing_a_session_closes_what_is_wrapped_and_not_the_coordinator(coordinator: RateLimitCoordinator) -> None:
    closed: list[bool] = []

    class Wrapped(HTTPAdapter):
        def close(self) -> None:
            closed.append(True)

    session_of(coordinator, Wrapped()).close()
    assert closed == [True]
    assert coordinator.health.state == "connected"


@pytest.mark.parametrize(
    "settings", [{"adapter": "x"}, {"attempts": 0}, {"provider": "nobody"}, {"guess_seconds": -1}, {"timeout": -1}]
)
def test_what_cannot_be_used_is_refused(coordinator: RateLimitCoordinator, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        CoordinatedAdapter(coordinator, **settings)


def test_an_adapter_cannot_be_pickled(coordinator: RateLimitCoordinator) -> None:
    with session_of(coordinator) as session, pytest.raises(TypeError, match="mount a new"):
        pickle.dumps(session)
