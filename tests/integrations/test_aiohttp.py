"""Requests of aiohttp, as it is installed, that are coordinated by a middleware, against an upstream of our own."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, ClientTimeout, FormData

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator, sync
from rate_coordinator.integrations.aiohttp import coordinated
from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES
from tests.conftest import Make, Place
from tests.integrations.upstream import Reply, Upstream, refused, refused_within_a_success, told
from tests.servers import eventually, free_port

HOST = "127.0.0.1"
QUOTA = {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "exceeded your quota"}}


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
    real: Place, make: Make, upstream: Upstream
) -> None:
    one, other = await make(), await make()
    upstream.replies.append(refused(0.4))
    async with (
        ClientSession(middlewares=(coordinated(one),)) as first,
        ClientSession(middlewares=(coordinated(other),)) as second,
    ):
        async with first.get(upstream.url) as response:
            assert (response.status, await response.json()) == (429, {"error": {"message": "slow down"}})
        await other.refresh()
        async with second.get(upstream.url) as response:
            assert response.status == 200
    refusal, served = upstream.asked
    assert served.at - refusal.at >= 0.4
    (event,) = one.recent_events
    assert (event.backend_type, event.suggested_wait_seconds, event.reason) == (HOST, 0.4, "rate_limit")


async def test_a_limit_of_one_host_or_model_holds_nobody_else(real: Place, make: Make, upstream: Upstream) -> None:
    """P48."""
    coordinator = await make()

    def names(request: ClientRequest) -> tuple[str, str | None]:
        return str(request.url.host), request.headers.get("x-model")

    middleware = coordinated(coordinator, names, timeout=0)
    async with ClientSession(middlewares=(middleware,)) as session:
        upstream.replies.append(refused(60))
        async with session.get(upstream.url, headers={"x-model": "large"}) as response:
            assert response.status == 429
        assert list(coordinator.active_limits) == [f"{HOST}/large"]
        with pytest.raises(LimitWaitTimeout):
            await session.get(upstream.url, headers={"x-model": "large"})
        for headers in ({"x-model": "small"}, {}):
            async with session.get(upstream.url, headers=headers) as response:
                assert response.status == 200
        async with session.get(f"http://localhost:{upstream.port}", headers={"x-model": "large"}) as response:
            assert response.status == 200
    assert len(upstream.asked) == 4


async def test_a_redirection_is_a_request_to_each_host(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    await coordinator.report_rate_limit("localhost", 60)
    there = {"location": f"http://localhost:{upstream.port}/there"}
    async with ClientSession(middlewares=(coordinated(coordinator, timeout=0),)) as session:
        upstream.replies.append(Reply(307, there))
        with pytest.raises(LimitWaitTimeout):
            await session.post(upstream.url, data=b"body")
        await coordinator.clear_limits()
        upstream.replies.append(Reply(307, there))
        async with session.post(upstream.url, data=b"body") as response:
            assert (response.status, str(response.url)) == (200, there["location"])
    assert [asked.path for asked in upstream.asked] == ["/", "/", "/there"]
    assert upstream.asked[-1].body == b"body"


# Again.


FORM = {"name": "value"}
BODIES = [b"bytes", "text", FORM, None]


@pytest.mark.parametrize("body", BODIES, ids=repr)
async def test_a_request_is_sent_again_as_soon_as_its_limit_lifts(
    coordinator: RateLimitCoordinator, upstream: Upstream, body: object
) -> None:
    upstream.replies += [refused(0.2), refused(0.2)]
    async with (
        ClientSession(middlewares=(coordinated(coordinator, attempts=3),)) as session,
        session.post(upstream.url, data=body) as response,
    ):
        assert response.status == 200
    first, second, third = upstream.asked
    assert second.at - first.at >= 0.2
    assert third.at - second.at >= 0.2
    assert first.body == second.body == third.body
    assert bool(first.body) is (body is not None)


async def test_what_can_be_sent_only_once_is_sent_once(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"

    files = FormData()
    files.add_field("file", b"content", filename="name")
    async with ClientSession(middlewares=(coordinated(coordinator, attempts=3),)) as session:
        for body in (pieces(), files):
            upstream.replies.append(refused(0.05))
            async with session.post(upstream.url, data=body) as response:
                assert response.status == 429
    assert len(upstream.asked) == 2


async def test_after_the_last_attempt_the_caller_gets_the_refusal(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies += [refused(0.05), refused(0.05, x_last="yes")]
    async with (
        ClientSession(middlewares=(coordinated(coordinator, attempts=2),)) as session,
        session.get(upstream.url) as response,
    ):
        assert (response.status, response.headers["x-last"]) == (429, "yes")
        assert await response.json() == {"error": {"message": "slow down"}}


async def test_a_wait_that_is_longer_than_the_timeout_is_not_begun_after_a_refusal(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(refused(60))
    began = time.monotonic()
    async with ClientSession(middlewares=(coordinated(coordinator, attempts=5, timeout=1),)) as session:
        async with session.get(upstream.url) as response:
            assert (response.status, await response.json()) == (429, {"error": {"message": "slow down"}})
        with pytest.raises(LimitWaitTimeout) as raised:
            await session.get(upstream.url)
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.__cause__ is not raised.value
    assert time.monotonic() - began < 20
    assert len(upstream.asked) == 1


@pytest.mark.parametrize("size", [10, 50 * REFUSAL_BODY_BYTES], ids=["small", "large"])
async def test_a_refusal_that_nobody_gets_holds_no_connection(
    coordinator: RateLimitCoordinator, upstream: Upstream, size: int
) -> None:
    upstream.replies += [Reply(429, {"retry-after": "0.05"}, bytes(size))] * 3
    connector = aiohttp.TCPConnector(limit=1)
    async with (
        ClientSession(middlewares=(coordinated(coordinator, attempts=4),), connector=connector) as session,
        session.get(upstream.url, timeout=ClientTimeout(total=20)) as response,
    ):
        assert response.status == 200


# What is looked at.


@pytest.mark.parametrize("size", [10, REFUSAL_BODY_BYTES - 10, 3 * REFUSAL_BODY_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_body_of_a_refusal_is_there_to_be_read_however_it_is_read(
    coordinator: RateLimitCoordinator, upstream: Upstream, size: int, chunked: bool
) -> None:
    body = bytes(range(256)) * (size // 256) + b"end"
    pieces: bytes | list[bytes] = [body[:100], body[100:]] if chunked and body[100:] else body
    reply = Reply(429, {"retry-after": "0"}, pieces)
    upstream.replies += [reply, reply, reply]
    async with ClientSession(middlewares=(coordinated(coordinator),)) as session:
        async with session.get(upstream.url) as response:
            assert await response.read() == body
            assert await response.read() == body
        async with session.get(upstream.url) as response:
            assert b"".join([some async for some in response.content.iter_chunked(1000)]) == body
            assert response.content.at_eof()
        async with session.get(upstream.url) as response:
            response.release()
        async with session.get(upstream.url) as response:
            assert response.status == 200


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_what_the_body_tells_counts(coordinator: RateLimitCoordinator, upstream: Upstream, encoding: str) -> None:
    body = json.dumps(QUOTA).encode()
    headers = {"content-type": "application/json"}
    if encoding == "gzip":
        body, headers["content-encoding"] = gzip.compress(body), encoding
    upstream.replies.append(Reply(429, headers, body))
    async with (
        ClientSession(middlewares=(coordinated(coordinator, "acme", provider="openai"),)) as session,
        session.get(upstream.url) as response,
    ):
        assert await response.json() == QUOTA
    (event,) = coordinator.recent_events
    assert (event.backend_type, event.reason) == ("acme", "quota")


async def test_a_success_is_handed_on_before_its_body_has_come_and_counts_as_served(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    hold = threading.Event()
    upstream.replies += [refused(0.05), Reply(200, {}, [b"first", b"second"], hold)]
    async with ClientSession(middlewares=(coordinated(coordinator),)) as session:
        async with session.get(upstream.url):
            pass
        async with session.get(upstream.url) as streaming:
            assert await streaming.content.readany() == b"first"
            # The first call after a limit: whoever waits for it goes as soon as it was served.
            async with session.get(upstream.url) as other:
                assert other.status == 200
            hold.set()
            assert await streaming.content.readany() == b"second"


async def test_a_refusal_that_breaks_off_is_one_and_its_error_is_the_readers(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(Reply(429, {"retry-after": "60"}, b"cut off", cut=True))
    async with (
        ClientSession(middlewares=(coordinated(coordinator),)) as session,
        session.get(upstream.url) as response,
    ):
        assert list(coordinator.active_limits) == [HOST]
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_an_answer_without_a_body_is_left_alone(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    upstream.replies.append(Reply(429, {"retry-after": "60"}, b""))
    async with (
        ClientSession(middlewares=(coordinated(coordinator),)) as session,
        session.get(upstream.url) as response,
    ):
        assert await response.read() == b""
    assert list(coordinator.active_limits) == [HOST]


async def test_raise_for_status_is_raised_after_the_refusal_was_reported(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(refused(60))
    async with ClientSession(middlewares=(coordinated(coordinator),), raise_for_status=True) as session:
        with pytest.raises(aiohttp.ClientResponseError, match="429"):
            await session.get(upstream.url)
    assert list(coordinator.active_limits) == [HOST]


@pytest.mark.parametrize(
    "reply", [told({}, 500), told({"message": "no"}, 403), told({}, 404)], ids=lambda it: it.status
)
async def test_another_failure_is_no_refusal(
    coordinator: RateLimitCoordinator, upstream: Upstream, reply: Reply
) -> None:
    upstream.replies.append(reply)
    async with (
        ClientSession(middlewares=(coordinated(coordinator, attempts=3),)) as session,
        session.get(upstream.url) as response,
    ):
        assert response.status == reply.status
    assert coordinator.recent_events == []
    assert len(upstream.asked) == 1


# What ends otherwise.


async def test_a_connection_that_fails_is_no_refusal_and_hands_its_turn_on(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(refused(0.05))
    async with ClientSession(middlewares=(coordinated(coordinator, "acme"),)) as session:
        async with session.get(upstream.url):
            pass
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://{HOST}:{free_port()}")
        async with session.get(upstream.url) as response:
            assert response.status == 200
    assert len(coordinator.recent_events) == 1


async def test_the_sessions_timeout_and_cancellation_end_a_wait(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    await coordinator.report_rate_limit(HOST, 60)
    async with ClientSession(middlewares=(coordinated(coordinator),)) as session:
        with pytest.raises(TimeoutError):
            await session.get(upstream.url, timeout=ClientTimeout(total=0.1))
        getting = asyncio.create_task(session.get(upstream.url))
        await eventually(lambda: coordinator.health.calls_avoided == 2)
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        await coordinator.clear_limits()
        async with session.get(upstream.url) as response:
            assert response.status == 200
    assert len(upstream.asked) == 1


async def test_a_request_that_is_cancelled_while_its_refusal_is_looked_at_frees_its_connection(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    hold = threading.Event()
    upstream.replies.append(Reply(429, {}, [b"first", b"second"], hold))
    arrived = asyncio.Event()

    async def tell(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        arrived.set()
        return response

    middlewares = (coordinated(coordinator), tell)
    async with ClientSession(middlewares=middlewares, connector=aiohttp.TCPConnector(limit=1)) as session:
        getting = asyncio.create_task(session.get(upstream.url))
        await arrived.wait()
        await asyncio.sleep(0)
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        hold.set()
        async with session.get(upstream.url, timeout=ClientTimeout(total=20)) as response:
            assert response.status == 200
    assert coordinator.recent_events == []


async def test_a_fleet_of_tasks_shares_one_refusal(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    upstream.replies.append(refused(0.3))
    async with ClientSession(middlewares=(coordinated(coordinator, attempts=5),)) as session:

        async def get() -> int:
            async with session.get(upstream.url) as response:
                return response.status

        assert await get() == 200
        assert set(await asyncio.gather(*(get() for _ in range(3)))) == {200}
    assert len(upstream.asked) == 5


# What cannot be used.


async def test_a_refusal_within_a_short_success_is_recognised_and_stays_as_it_was(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(refused_within_a_success())
    async with (
        ClientSession(middlewares=(coordinated(coordinator),)) as session,
        session.post(upstream.url) as response,
    ):
        assert coordinator.recent_events[0].suggested_wait_seconds == 10.0
        assert (await response.json())["errors"] == [{"message": "Throttled"}]


@pytest.mark.parametrize(
    "settings",
    [{"attempts": 0}, {"backend": ""}, {"provider": "nobody"}, {"timeout": -1}, {"guess_seconds": "5"}],
    ids=repr,
)
async def test_what_cannot_be_used_is_refused_at_once(
    coordinator: RateLimitCoordinator, settings: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(settings))}|nobody"):
        coordinated(coordinator, **settings)  # type: ignore[arg-type]


def test_a_sync_coordinator_is_refused() -> None:
    with (
        sync.RateLimitCoordinator.from_url("memory://") as coordinator,
        pytest.raises(ValueError, match="coordinator must be"),
    ):
        coordinated(coordinator)  # type: ignore[arg-type]


def test_without_the_extra_it_says_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rate_coordinator.integrations.aiohttp")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ModuleNotFoundError, match=r"rate-coordinator\[aiohttp\]"):
        __import__("rate_coordinator.integrations.aiohttp")
