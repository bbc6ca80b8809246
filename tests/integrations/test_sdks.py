"""The SDKs of OpenAI and Anthropic, coordinated by the ``http_client`` that they are given."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any, Protocol
from uuid import uuid4

import anthropic
import httpx
import openai
import pytest

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.integrations import httpx as for_httpx
from rate_coordinator.integrations import httpx2 as for_httpx2
from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator
from tests.conftest import Place
from tests.integrations.httpx_kit import warnings_of
from tests.integrations.upstream import Reply, Upstream, refused, told

HOST = "127.0.0.1"
OFF = 0
LEFT_ON = openai.DEFAULT_MAX_RETRIES

QUESTION: Any = [{"role": "user", "content": "hello"}]
TO_OPENAI: Any = {"model": "m", "messages": QUESTION}
TO_ANTHROPIC: Any = {"model": "m", "max_tokens": 9, "messages": QUESTION}
FROM_OPENAI = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
}
FROM_ANTHROPIC = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


class Sdk(Protocol):
    """An SDK, and one call of it with a coordinator of its own at a place."""

    client_library: Any
    answer: dict[str, Any]

    def ask(self, place: Place, upstream: Upstream, retries: int, **settings: Any) -> str: ...


class AsyncOpenAI:
    client_library: Any = openai
    answer = FROM_OPENAI

    def ask(self, place: Place, upstream: Upstream, retries: int, **settings: Any) -> str:
        async def ask() -> str:
            async with RateLimitCoordinator.from_url(place.url, place.namespace) as coordinator:
                transport = for_httpx2.AsyncCoordinatedTransport(coordinator, **settings)
                http = openai.DefaultAsyncHttpxClient(transport=transport)
                async with openai.AsyncOpenAI(
                    api_key="k", base_url=upstream.url, http_client=http, max_retries=retries
                ) as client:
                    completion = await client.chat.completions.create(**TO_OPENAI)
                return str(completion.choices[0].message.content)

        return asyncio.run(ask())


class SyncOpenAI:
    client_library: Any = openai
    answer = FROM_OPENAI

    def ask(self, place: Place, upstream: Upstream, retries: int, **settings: Any) -> str:
        with SyncCoordinator.from_url(place.url, place.namespace) as coordinator:
            http = openai.DefaultHttpxClient(transport=for_httpx2.CoordinatedTransport(coordinator, **settings))
            with openai.OpenAI(api_key="k", base_url=upstream.url, http_client=http, max_retries=retries) as client:
                return str(client.chat.completions.create(**TO_OPENAI).choices[0].message.content)


class SyncOpenAIWithHttpx:
    """It still takes a client of the first httpx."""

    client_library: Any = openai
    answer = FROM_OPENAI

    def ask(self, place: Place, upstream: Upstream, retries: int, **settings: Any) -> str:
        with SyncCoordinator.from_url(place.url, place.namespace) as coordinator:
            http: Any = httpx.Client(transport=for_httpx.CoordinatedTransport(coordinator, **settings))
            with openai.OpenAI(api_key="k", base_url=upstream.url, http_client=http, max_retries=retries) as client:
                return str(client.chat.completions.create(**TO_OPENAI).choices[0].message.content)


class AsyncAnthropic:
    client_library: Any = anthropic
    answer = FROM_ANTHROPIC

    def ask(self, place: Place, upstream: Upstream, retries: int, **settings: Any) -> str:
        async def ask() -> str:
            async with RateLimitCoordinator.from_url(place.url, place.namespace) as coordinator:
                transport = for_httpx2.AsyncCoordinatedTransport(coordinator, **settings)
                http = anthropic.DefaultAsyncHttpxClient(transport=transport)
                async with anthropic.AsyncAnthropic(
                    api_key="k", base_url=upstream.url, http_client=http, max_retries=retries
                ) as client:
                    message = await client.messages.create(**TO_ANTHROPIC)
                return str(message.content[0].text)

        return asyncio.run(ask())


class SyncAnthropic:
    client_library: Any = anthropic
    answer = FROM_ANTHROPIC

    def ask(self, place: Place, upstream: Upstream, retries: int, **settings: Any) -> str:
        with SyncCoordinator.from_url(place.url, place.namespace) as coordinator:
            http = anthropic.DefaultHttpxClient(transport=for_httpx2.CoordinatedTransport(coordinator, **settings))
            with anthropic.Anthropic(
                api_key="k", base_url=upstream.url, http_client=http, max_retries=retries
            ) as client:
                return str(client.messages.create(**TO_ANTHROPIC).content[0].text)


SDKS: list[Sdk] = [AsyncOpenAI(), SyncOpenAI(), SyncOpenAIWithHttpx(), AsyncAnthropic(), SyncAnthropic()]


@pytest.fixture(params=SDKS, ids=lambda sdk: type(sdk).__name__)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    chosen: Sdk = request.param
    return chosen


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def alone() -> Place:
    """A place of which nothing is left after each call: what is shared is tested on real servers."""
    return Place("memory://", f"test {uuid4()}")


@pytest.mark.parametrize("retries", [OFF, LEFT_ON], ids=["off", "left on"])
def test_a_refused_call_of_an_sdk_is_made_again_when_its_limit_lifts(
    alone: Place, sdk: Sdk, upstream: Upstream, caplog: pytest.LogCaptureFixture, retries: int
) -> None:
    upstream.replies.append(refused(0.3))
    upstream.otherwise = told(sdk.answer)

    assert sdk.ask(alone, upstream, retries, attempts=2) == "hi"

    first, second = upstream.asked
    assert second.at - first.at >= 0.3
    assert second.body == first.body
    assert warnings_of(caplog) == []


def test_with_its_own_retries_off_an_sdk_makes_as_many_calls_as_it_is_allowed(
    alone: Place, sdk: Sdk, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """P49."""
    upstream.otherwise = refused(0.01)
    with pytest.raises(sdk.client_library.RateLimitError, match="slow down"):
        sdk.ask(alone, upstream, OFF, attempts=2)
    assert len(upstream.asked) == 2
    assert warnings_of(caplog) == []


def test_with_its_own_retries_left_on_an_sdk_multiplies_the_calls_and_that_is_warned_of_once(
    alone: Place, sdk: Sdk, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """P49."""
    upstream.otherwise = refused(0.01)
    with pytest.raises(sdk.client_library.RateLimitError, match="slow down"):
        sdk.ask(alone, upstream, LEFT_ON, attempts=2)
    assert len(upstream.asked) == 2 * (1 + LEFT_ON)
    assert len(warnings_of(caplog)) == 1


def test_whoever_uses_whichever_sdk_heeds_what_the_others_were_told(real: Place, upstream: Upstream) -> None:
    upstream.replies.append(refused(60))
    with SyncCoordinator.from_url(real.url, real.namespace) as watching:
        with pytest.raises(openai.RateLimitError):
            SyncOpenAI().ask(real, upstream, OFF)
        watching.refresh()
        assert list(watching.active_limits) == [HOST]
        for sdk in SDKS:
            with pytest.raises(sdk.client_library.APITimeoutError) as raised:
                sdk.ask(real, upstream, OFF, timeout=1)
            assert isinstance(raised.value.__cause__, LimitWaitTimeout)
    assert len(upstream.asked) == 1


def events(*data: dict[str, Any]) -> list[bytes]:
    return [f"event: {each.get('type', 'chunk')}\ndata: {json.dumps(each)}\n\n".encode() for each in data]


async def test_an_answer_is_streamed_to_the_sdk_while_it_is_made(upstream: Upstream) -> None:
    rest = threading.Event()
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    said = [{**chunk, "choices": [{"index": 0, "delta": {"content": word}}]} for word in ("a", "b")]
    upstream.replies.append(Reply(200, {"content-type": "text/event-stream"}, events(*said), hold=rest))
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        http = openai.DefaultAsyncHttpxClient(transport=for_httpx2.AsyncCoordinatedTransport(coordinator))
        async with openai.AsyncOpenAI(api_key="k", base_url=upstream.url, http_client=http, max_retries=OFF) as client:
            stream = await client.chat.completions.create(**TO_OPENAI, stream=True)
            words = []
            async for part in stream:
                words.append(part.choices[0].delta.content)
                rest.set()
    assert words == ["a", "b"]
