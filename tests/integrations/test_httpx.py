"""Requests of httpx and httpx2 that are coordinated by their transport, against an upstream of our own."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import itertools
import json
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES, is_telling
from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator
from tests.conftest import Make, Place
from tests.integrations.httpx_kit import ENCODED, LIBRARIES, QUOTA, Kit, warnings_of
from tests.integrations.upstream import Reply, Upstream, refused, refused_within_a_success, told
from tests.servers import eventually

HOST = "127.0.0.1"


@pytest.fixture(params=LIBRARIES)
def kit(request: pytest.FixtureRequest) -> Kit:
    return Kit.of(request.param)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
async def coordinator() -> AsyncIterator[RateLimitCoordinator]:
    """One on its own: what is shared is tested on real servers."""
    async with RateLimitCoordinator.from_url("memory://") as made:
        yield made


# What is shared.


async def test_a_refusal_stops_everybody_who_shares_the_limit_until_it_lifts(
    real: Place, make: Make, kit: Kit, upstream: Upstream
) -> None:
    one, other = await make(), await make()
    upstream.replies.append(refused(0.4))

    async with kit.client(one) as first, kit.client(other) as second:
        response = await first.get(upstream.url)
        assert (response.status_code, response.headers["retry-after"]) == (429, "0.4")
        await other.refresh()
        assert (await second.get(upstream.url)).status_code == 200

    refusal, served = upstream.asked
    assert served.at - refusal.at >= 0.4
    (event,) = one.recent_events
    assert (event.backend_type, event.suggested_wait_seconds, event.reason) == (HOST, 0.4, "rate_limit")


async def test_a_limit_of_one_host_or_model_holds_nobody_else(
    real: Place, make: Make, kit: Kit, upstream: Upstream
) -> None:
    """P48."""
    coordinator = await make()

    def names(request: Any) -> tuple[str, str | None]:
        return request.url.host, json.loads(request.content)["model"] if request.content else None

    async with kit.client(coordinator, backend=names, timeout=0) as client:
        upstream.replies.append(refused(60))
        assert (await client.post(upstream.url, json={"model": "large"})).status_code == 429
        assert list(coordinator.active_limits) == [f"{HOST}/large"]
        with pytest.raises(LimitWaitTimeout):
            await client.post(upstream.url, json={"model": "large"})
        assert (await client.post(upstream.url, json={"model": "small"})).status_code == 200
        assert (await client.get(upstream.url)).status_code == 200

        upstream.replies.append(refused(60))
        assert (await client.get(upstream.url)).status_code == 429
        with pytest.raises(LimitWaitTimeout):
            await client.post(upstream.url, json={"model": "small"})
        assert (await client.get(f"http://localhost:{upstream.port}")).status_code == 200
    assert len(upstream.asked) == 5


async def test_a_name_for_all_requests_is_whom_they_count_against(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(refused(60))
    async with kit.client(coordinator, backend="acme") as client:
        await client.get(upstream.url)
    assert list(coordinator.active_limits) == ["acme"]


async def test_a_served_answer_that_tells_what_is_left_slows_everybody_down(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.otherwise = told({}, 200, ratelimit_remaining="10", ratelimit_reset="20")
    async with kit.client(coordinator) as client:
        assert (await client.get(upstream.url)).status_code == 200
    pace = await coordinator.pace(HOST)
    assert pace is not None
    assert pace.rate == pytest.approx(0.5, rel=0.1)


async def test_where_nothing_is_wrapped_the_librarys_own_transport_sends(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    async with kit.client_library.AsyncClient(transport=kit.module.AsyncCoordinatedTransport(coordinator)) as client:
        assert (await client.get(upstream.url)).status_code == 200


# Again.


async def test_a_request_is_sent_again_as_soon_as_its_limit_lifts(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies += [refused(0.3), refused(0.3)]
    async with kit.client(coordinator, attempts=3) as client:
        response = await client.post(upstream.url, json={"n": 1})

    assert response.status_code == 200
    assert [asked.body for asked in upstream.asked] == [upstream.asked[0].body] * 3
    times = [asked.at for asked in upstream.asked]
    assert all(later - earlier >= 0.3 for earlier, later in itertools.pairwise(times))


async def test_after_the_last_attempt_the_caller_gets_the_refusal(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.otherwise = refused(0.01)
    async with kit.client(coordinator, attempts=2) as client:
        response = await client.post(upstream.url, content=b"x")
    assert (response.status_code, response.json()["error"]["message"]) == (429, "slow down")
    assert len(upstream.asked) == 2
    assert len(coordinator.recent_events) == 2


async def pieces() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


@pytest.mark.parametrize("body", [{"content": pieces}, {"files": lambda: {"file": b"data"}}], ids=["stream", "files"])
async def test_what_cannot_be_sent_again_is_not(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream, body: dict[str, Callable[[], Any]]
) -> None:
    upstream.otherwise = refused(0.01)
    async with kit.client(coordinator, attempts=3) as client:
        response = await client.post(upstream.url, **{name: make() for name, make in body.items()})
    assert response.status_code == 429
    assert len(upstream.asked) == 1


@pytest.mark.parametrize("status", [200, 302, 400, 404, 500])
async def test_only_a_refusal_is_sent_again(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream, status: int
) -> None:
    upstream.otherwise = told({"error": "no"}, status)
    async with kit.client(coordinator, attempts=3) as client:
        assert (await client.post(upstream.url)).status_code == status
    assert len(upstream.asked) == 1
    assert coordinator.recent_events == []


async def test_a_wait_that_is_too_long_after_a_refusal_is_not_begun_and_the_refusal_returned(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.otherwise = refused(600)
    async with kit.client(coordinator, attempts=3, timeout=20) as client:
        began = time.monotonic()
        response = await client.post(upstream.url, json={})
        assert time.monotonic() - began < 15
    assert (response.status_code, response.json()) == (429, {"error": {"message": "slow down"}})
    assert len(upstream.asked) == 1


async def test_a_wait_that_is_too_long_at_first_is_a_timeout_of_the_library_and_of_ours(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    await coordinator.report_rate_limit(HOST, 600)
    async with kit.client(coordinator, timeout=1) as client:
        with pytest.raises(kit.client_library.TimeoutException) as raised:
            await client.get(upstream.url)
    assert isinstance(raised.value, LimitWaitTimeout)
    assert isinstance(raised.value, kit.module.AdmissionTimeout)
    assert raised.value.request.url == upstream.url
    assert HOST in str(raised.value)
    assert upstream.asked == []


async def test_the_clients_own_timeouts_do_not_count_while_a_request_waits(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    await coordinator.report_rate_limit(HOST, 0.5)
    transport = kit.module.AsyncCoordinatedTransport(coordinator)
    async with kit.client_library.AsyncClient(
        transport=transport, timeout=kit.client_library.Timeout(30, pool=0.1)
    ) as client:
        assert (await client.get(upstream.url)).status_code == 200


async def test_a_refusal_that_is_not_returned_gives_its_connection_back_before_the_next_attempt(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    long = refused(0.01)
    long.body = b"x" * (4 * REFUSAL_BODY_BYTES)
    upstream.replies += [long, long]
    wrapped = kit.client_library.AsyncHTTPTransport(limits=kit.client_library.Limits(max_connections=1))
    async with kit.client(coordinator, wrapped, attempts=3) as client:
        assert (await client.get(upstream.url, timeout=kit.client_library.Timeout(30, pool=1))).status_code == 200


async def test_a_request_that_waits_to_be_sent_again_holds_no_connection(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(refused(60))
    wrapped = kit.client_library.AsyncHTTPTransport(limits=kit.client_library.Limits(max_connections=1))
    async with kit.client(coordinator, wrapped, attempts=2, backend=lambda request: request.url.path) as client:
        waiting = asyncio.create_task(client.get(f"{upstream.url}/one"))
        await eventually(lambda: coordinator.active_limits)
        assert (await client.get(f"{upstream.url}/other")).status_code == 200
        assert not waiting.done()
        await coordinator.clear_limits()
        assert (await waiting).status_code == 200


# What callers get.


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("encoding", ENCODED)
async def test_a_refusal_is_recognised_by_its_body_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream, encoding: str | None, streamed: bool
) -> None:
    body = ENCODED[encoding](json.dumps(QUOTA).encode())
    headers = {"content-encoding": encoding} if encoding else {}
    upstream.replies.append(Reply(429, headers, [body[:20], body[20:]] if streamed else body))
    async with kit.client(coordinator) as client, client.stream("POST", upstream.url) as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert raw == body
    (event,) = coordinator.recent_events
    assert (event.reason, event.suggested_wait_seconds) == ("quota", 900.0)


async def test_a_long_body_of_a_refusal_is_not_read_to_its_end_before_its_reader_wants_it(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    rest = threading.Event()
    body = [b"a" * REFUSAL_BODY_BYTES, b"b" * REFUSAL_BODY_BYTES]
    upstream.replies.append(Reply(503, {"retry-after": "60"}, body, hold=rest))
    async with kit.client(coordinator) as client, client.stream("GET", upstream.url) as response:
        assert coordinator.recent_events[0].reason == "overloaded"
        rest.set()
        assert await response.aread() == b"".join(body)


async def test_a_body_that_swells_is_not_decoded_to_its_end(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    swelling = gzip.compress(bytes(50_000_000), compresslevel=1)
    headers = {"content-encoding": "gzip", "retry-after": "7"}
    upstream.replies.append(Reply(429, headers, swelling))
    async with kit.client(coordinator) as client:
        tracemalloc.start()
        try:
            async with client.stream("GET", upstream.url) as response:
                assert response.status_code == 429
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 5_000_000
    assert coordinator.recent_events[0].suggested_wait_seconds == 7.0


@pytest.mark.parametrize("encoding", ["gzip", "unknown", "gzip, deflate"])
async def test_a_body_that_is_not_encoded_as_it_says_is_no_trouble_of_ours(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream, encoding: str
) -> None:
    upstream.replies.append(Reply(429, {"content-encoding": encoding, "retry-after": "7"}, b"{}"))
    async with kit.client(coordinator) as client, client.stream("GET", upstream.url) as response:
        assert b"".join([chunk async for chunk in response.aiter_raw()]) == b"{}"
    assert coordinator.recent_events[0].suggested_wait_seconds == 7.0


async def test_a_refusal_whose_body_breaks_off_is_reported_and_its_reader_gets_the_error(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(Reply(429, {"retry-after": "7"}, b"half of", cut=True))
    async with kit.client(coordinator) as client, client.stream("GET", upstream.url) as response:
        chunks = response.aiter_raw()
        read = await anext(chunks)
        with pytest.raises(kit.client_library.RemoteProtocolError):
            await anext(chunks)
    assert read == b"half of"
    assert coordinator.recent_events[0].suggested_wait_seconds == 7.0


async def test_a_stream_that_is_served_is_handed_on_at_once_and_holds_up_nobody(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    rest = threading.Event()
    upstream.replies.append(Reply(200, {}, [b"first", b"second"], hold=rest))
    coordinator.hint(HOST, max_in_flight=1)
    async with kit.client(coordinator) as client, client.stream("GET", upstream.url) as response:
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"first"
        assert (await client.get(upstream.url)).status_code == 200
        rest.set()
        assert await anext(chunks) == b"second"


async def test_an_answer_that_was_made_from_bytes_is_looked_at_as_well(
    coordinator: RateLimitCoordinator, kit: Kit
) -> None:
    wrapped = kit.client_library.MockTransport(lambda request: kit.client_library.Response(429, json=QUOTA))
    async with kit.client(coordinator, wrapped) as client:
        response = await client.get("http://acme.test")
    assert response.json() == QUOTA
    assert coordinator.recent_events[0].reason == "quota"


async def test_an_answer_that_a_wrapped_transport_has_read_is_looked_at_as_well(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    class Logging(kit.client_library.AsyncHTTPTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            await response.aread()
            return response

    upstream.replies.append(Reply(429, {"content-encoding": "gzip"}, gzip.compress(json.dumps(QUOTA).encode())))
    async with kit.client(coordinator, Logging(verify=False)) as client:
        assert (await client.get(upstream.url)).json() == QUOTA
    assert coordinator.recent_events[0].reason == "quota"


async def test_a_refusal_within_a_short_success_is_recognised_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(refused_within_a_success())
    async with kit.client(coordinator) as client:
        response = await client.post(upstream.url)
        assert response.json()["errors"] == [{"message": "Throttled"}]
    assert coordinator.recent_events[0].suggested_wait_seconds == 10.0


@pytest.mark.parametrize(
    ("status", "kind", "length", "is_looked_at"),
    [
        (200, "application/json; charset=utf-8", "65536", True),
        (207, "Application/Problem+JSON", "0", True),
        (200, "application/json", "65537", False),
        (200, "application/json", "", False),
        (200, "application/json", "-1", False),
        (200, "application/json", "9" * 5000, False),
        (200, "text/event-stream", "100", False),
        (302, "application/json", "100", False),
        (101, "application/json", "100", False),
        (400, "", "", True),
    ],
)
def test_of_successes_only_what_says_that_it_is_short_and_json_is_looked_at(
    status: int, kind: str, length: str, is_looked_at: bool
) -> None:
    assert is_telling(status, {"content-type": kind, "content-length": length}) is is_looked_at


async def test_the_provider_that_is_named_says_how_its_answers_are_read(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(told({"code": -1003, "msg": "Too many requests."}, 418, retry_after="30"))
    async with kit.client(coordinator, provider="binance") as client:
        await client.get(upstream.url)
    assert coordinator.recent_events[0].suggested_wait_seconds == 30.0


async def test_a_refusal_that_tells_no_wait_is_heeded_for_as_long_as_is_guessed(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    upstream.replies.append(Reply(429))
    async with kit.client(coordinator, guess_seconds=42) as client:
        await client.get(upstream.url)
    assert coordinator.recent_events[0].suggested_wait_seconds == 42.0


# Errors, cancellation, closing.


async def test_an_error_of_the_transport_passes_through_and_tells_nothing(
    coordinator: RateLimitCoordinator, kit: Kit
) -> None:
    with Upstream() as gone:
        url = gone.url
    async with kit.client(coordinator, attempts=3) as client:
        with pytest.raises(kit.client_library.ConnectError):
            await client.get(url)
    assert coordinator.recent_events == []
    assert coordinator.active_limits == {}


class Watched:
    """Answers whose streams tell whether they were closed."""

    def __init__(self, kit: Kit, status: int, read: Callable[[], Awaitable[bytes]]) -> None:
        self.begun = asyncio.Event()
        self.closed = 0
        watched = self

        class Stream(kit.client_library.AsyncByteStream):  # type: ignore[misc,name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                watched.begun.set()
                yield await read()

            async def aclose(self) -> None:
                watched.closed += 1

        class Transport(kit.client_library.AsyncBaseTransport):  # type: ignore[misc,name-defined]
            async def handle_async_request(self, request: Any) -> Any:
                return kit.client_library.Response(status, headers={"retry-after": "0.01"}, stream=Stream())

        self.transport = Transport()


async def test_a_request_that_is_cancelled_while_a_refusal_is_looked_at_lets_go_of_it(
    coordinator: RateLimitCoordinator, kit: Kit
) -> None:
    watched = Watched(kit, 429, asyncio.Event().wait)  # type: ignore[arg-type]
    async with kit.client(coordinator, watched.transport) as client:
        task = asyncio.create_task(client.get("http://acme.test"))
        await watched.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert watched.closed == 1
    assert coordinator.active_limits == {}


async def test_a_request_that_is_cancelled_while_it_waits_to_be_sent_again_lets_go_of_the_refusal(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    async def read() -> bytes:
        return b"x" * REFUSAL_BODY_BYTES

    watched = Watched(kit, 429, read)
    async with kit.client(coordinator, watched.transport, attempts=2) as client:
        task = asyncio.create_task(client.get("http://acme.test"))
        await watched.begun.wait()
        await coordinator.report_rate_limit("acme.test", 60)
        assert watched.closed == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert watched.closed == 1


async def test_a_request_that_is_cancelled_while_it_waits_its_turn_was_never_sent(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    await coordinator.report_rate_limit(HOST, 60)
    async with kit.client(coordinator) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get(upstream.url)
    assert upstream.asked == []


async def test_closing_a_client_closes_what_is_wrapped_and_not_the_coordinator(
    coordinator: RateLimitCoordinator, kit: Kit
) -> None:
    told: list[str] = []

    class Wrapped(kit.client_library.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def __aenter__(self) -> Any:
            told.append("opened")
            return self

        async def __aexit__(self, *_: object) -> None:
            told.append("left")

        async def aclose(self) -> None:
            told.append("closed")

    async with kit.client(coordinator, Wrapped()):
        assert told == ["opened"]
    await kit.client(coordinator, Wrapped()).aclose()
    assert told == ["opened", "left", "closed"]
    assert coordinator.health.state == "connected"


# Beneath an SDK, and wrong use.


async def test_an_sdk_that_repeats_calls_by_itself_is_warned_of_once(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """P49."""
    async with kit.client(coordinator) as client:
        await client.get(upstream.url, headers={"x-stainless-retry-count": "0"})
        assert warnings_of(caplog) == []
        for _ in range(2):
            await client.get(upstream.url, headers={"X-Stainless-Retry-Count": "1"})
    (record,) = warnings_of(caplog)
    assert "max_retries=0" in record.getMessage()
    assert record.__dict__["backend"] == HOST


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attempts": 0}, "attempts must be a whole number of at least 1, not 0"),
        ({"attempts": True}, "attempts must be"),
        ({"timeout": -1}, "timeout must be"),
        ({"priority": float("nan")}, "priority must be"),
        ({"guess_seconds": float("inf")}, "guess_seconds must be a finite number"),
        ({"guess_seconds": "5"}, "guess_seconds must be a finite number"),
        ({"provider": "nobody"}, "nobody"),
        ({"backend": ""}, "backend must be a name"),
        ({"backend": 7}, "backend must be a name, a function of the request or None, not 7"),
        ({"transport": object()}, "transport must be an .*AsyncBaseTransport, not <object"),
    ],
)
def test_what_cannot_be_used_is_told_when_the_transport_is_made(
    kit: Kit, settings: dict[str, Any], message: str
) -> None:
    coordinator = RateLimitCoordinator.from_url("memory://")
    with pytest.raises(ValueError, match=message):
        kit.module.AsyncCoordinatedTransport(coordinator, **settings)


def test_a_coordinator_of_the_other_kind_is_told(kit: Kit) -> None:
    one, other = RateLimitCoordinator.from_url("memory://"), SyncCoordinator.from_url("memory://")
    with pytest.raises(ValueError, match=r"coordinator must be a rate_coordinator.sync.RateLimitCoordinator"):
        kit.module.CoordinatedTransport(one)
    with pytest.raises(ValueError, match=r"coordinator must be a rate_coordinator.RateLimitCoordinator"):
        kit.module.AsyncCoordinatedTransport(other)
    with pytest.raises(ValueError, match="transport must be an"):
        kit.module.AsyncCoordinatedTransport(one, kit.client_library.HTTPTransport())


async def test_a_function_that_names_nobody_is_told_and_nothing_is_sent(
    coordinator: RateLimitCoordinator, kit: Kit, upstream: Upstream
) -> None:
    async with kit.client(coordinator, backend=lambda request: "") as client:
        with pytest.raises(ValueError, match="a backend must have a name") as raised:
            await client.get(f"{upstream.url}?key=secret")
    assert "secret" not in str(raised.value)
    assert upstream.asked == []


@pytest.mark.parametrize("name", LIBRARIES)
def test_where_the_library_is_missing_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"rate_coordinator.integrations.{name}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"needs the extra '{name}'"):
        importlib.import_module(f"rate_coordinator.integrations.{name}")
