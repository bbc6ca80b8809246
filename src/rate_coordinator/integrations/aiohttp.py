"""A client middleware for aiohttp: ``ClientSession(middlewares=(coordinated(coordinator),))``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES, Names, is_telling
from rate_coordinator.integrations.sending import AsyncSender
from rate_coordinator.integrations.transports import Policy, Seen

try:
    from aiohttp import (
        ClientError,
        ClientHandlerType,
        ClientMiddlewareType,
        ClientRequest,
        ClientResponse,
        StreamReader,
    )
    from aiohttp.payload import BytesPayload
except ImportError as error:
    raise ModuleNotFoundError(
        "this module needs the extra 'aiohttp', 3.12 or newer: pip install 'rate-coordinator[aiohttp]'", name="aiohttp"
    ) from error

__all__ = ["coordinated"]


def coordinated(
    coordinator: RateLimitCoordinator,
    backend: str | Callable[[ClientRequest], Names] | None = None,
    *,
    provider: str | None = None,
    attempts: int = 1,
    timeout: float | None = None,
    priority: float = 0,
    guess_seconds: float = 5.0,
) -> ClientMiddlewareType:
    """Return a middleware that sends each request when its turn has come, and tells the coordinator what was answered.

    A refusal is recognised by ``rate_coordinator.answers``. Of an answer with a status of 400 or more, and of a success
    whose headers say that it is JSON of up to 64 KiB, the beginning of the body (64 KiB) is read for that, and stays
    there to be read; any other answer is handed on as soon as its headers are there, and that is when its call counts
    as served. What is raised instead of an answer passes through, and counts as neither. Every request of a redirection
    is one of its own, of its own host.

    The session's ``ClientTimeout(total=…)``, 5 minutes unless told otherwise, goes on while a request waits here.

    Args:
        coordinator: Who shares the limits.
        backend: Whom a request counts against: a name for all, or a function of the request that returns a name, or a
            name and a model; None for its host.
        provider: Who answers, as registered with ``rate_coordinator.answers``; None finds out by the answer.
        attempts: How often a request is sent at most, 1 or more: once more after each refusal, as soon as the limit
            allows it. Only one whose body is all there (bytes, text, JSON, a form without files) is sent again. Where
            the wait is longer than ``timeout``, or no attempt is left, the caller gets the last refusal.
        timeout: Longest wait before each attempt, in seconds; None waits as long as it takes. Before the first one, a
            longer wait raises ``LimitWaitTimeout``, which is a ``TimeoutError``.
        priority: Of the requests that wait in this process, who has a lower one goes first.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.

    Raises:
        ValueError: An argument cannot be used.
    """
    policy = Policy(backend, provider, attempts, timeout, priority, guess_seconds)
    sender = AsyncSender(coordinator, policy)

    async def coordinate(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await sender.send(_Exchange(request, handler))

    return coordinate


class _Exchange:
    """A request and what sends it; see ``sending.AsyncExchange``."""

    def __init__(self, request: ClientRequest, handler: ClientHandlerType) -> None:
        self.request = request
        self._handler = handler

    @property
    def host(self) -> str | None:
        return self.request.url.host

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def repeatable(self) -> bool:
        return not self.request.body or isinstance(self.request.body, BytesPayload)

    def timed_out(self, error: LimitWaitTimeout) -> Exception:
        return LimitWaitTimeout(str(error))

    async def send(self) -> ClientResponse:
        return await self._handler(self.request)

    async def look(self, response: ClientResponse) -> Seen:
        body = await _begin(response.content) if is_telling(response.status, response.headers) else None
        return Seen(response.status, response.headers.items(), body)

    async def close(self, response: ClientResponse) -> None:
        response.release()


async def _begin(content: StreamReader) -> bytes:
    """Read the beginning of a body, and put it back."""
    begun = b""
    # An error stays with the body, and is raised to whoever reads it: the status and the headers have told enough.
    with suppress(ClientError, OSError):
        while len(begun) < REFUSAL_BODY_BYTES and (some := await content.readany()):
            begun += some
    if begun:
        with warnings.catch_warnings():
            # Deprecated since 2018 without a substitute: https://github.com/aio-libs/aiohttp/issues/3260
            warnings.filterwarnings("ignore", "unread_data", DeprecationWarning)
            content.unread_data(begun)
    return begun
