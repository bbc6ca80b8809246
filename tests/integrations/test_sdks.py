"""The SDKs of OpenAI and Anthropic, coordinated by the ``http_client`` that they are given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.integrations import httpx as for_httpx
from rate_coordinator.integrations import httpx2 as for_httpx2
from tests.conftest import Make, Place
from tests.integrations.upstream import Reply, Upstream, refused, told

HOST = "127.0.0.1"
MESSAGES: Any = [{"role": "user", "content": "hello"}]
OPENAI_SAYS = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
}
ANTHROPIC_SAYS = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@dataclass(frozen=True)
class Sdk:
    """An SDK: how its client is made, and how one call of it is made that returns the text of the answer."""

    library: Any
    says: dict[str, Any]
    async_client: Callable[..., Any]
    async_http: Callable[..., Any]

    async def ask(
        self, coordinator: RateLimitCoordinator, upstream: Upstream, retries: dict[str, int], **settings: Any
    ) -> str:
        http = self.async_http(transport=for_httpx2.AsyncCoordinatedTransport(coordinator, **settings))
        async with self.async_client(api_key="k", base_url=upstream.url, http_client=http, **retries) as client:
            if self.library is openai:
                completion = await client.chat.completions.create(model="m", messages=MESSAGES)
                return str(completion.choices[0].message.content)
            message = await client.messages.create(model="m", max_tokens=9, messages=MESSAGES)
            return str(message.content[0].text)


SDKS = [
    Sdk(openai, OPENAI_SAYS, openai.AsyncOpenAI, openai.DefaultAsyncHttpxClient),
    Sdk(anthropic, ANTHROPIC_SAYS, anthropic.AsyncAnthropic, anthropic.DefaultAsyncHttpxClient),
]


@pytest.fixture(params=SDKS, ids=lambda sdk: sdk.library.__name__)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    made: Sdk = request.param
    return made


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


async def test_it(real: Place, make: Make, sdk: Sdk, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    coordinator = await make()
    upstream.otherwise = told(sdk.says)
    upstream.replies.append(refused(0.2))
    assert await sdk.ask(coordinator, upstream, {"max_retries": 0}, attempts=2) == "hi"
    upstream.otherwise = refused(0.01)
    with pytest.raises(sdk.library.RateLimitError):
        await sdk.ask(coordinator, upstream, {}, attempts=2)
    print([a.headers["x-stainless-retry-count"] for a in upstream.asked], caplog.messages)
    await coordinator.report_rate_limit(HOST, 600)
    with pytest.raises(sdk.library.APITimeoutError) as raised:
        await sdk.ask(coordinator, upstream, {"max_retries": 0}, timeout=0)
    print(repr(raised.value.__cause__))
