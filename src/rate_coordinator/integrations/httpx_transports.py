"""Coordinated transports for httpx and for the libraries that have its interface; none of them is imported here."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, Self, TypeVar

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.integrations.common import Names
from rate_coordinator.integrations.httpx_family import (
    AnyRequest,
    AnyResponse,
    AsyncHttpxExchange,
    HttpxExchange,
    Library,
)
from rate_coordinator.integrations.sending import AsyncSender, Sender
from rate_coordinator.integrations.transports import Policy

if TYPE_CHECKING:
    from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator

RequestT = TypeVar("RequestT", bound=AnyRequest)
ResponseT = TypeVar("ResponseT", bound=AnyResponse)
SentT = TypeVar("SentT", bound=AnyRequest, contravariant=True)
AnsweredT = TypeVar("AnsweredT", bound=AnyResponse, covariant=True)


class AsyncTransport(Protocol[SentT, AnsweredT]):
    """What is wrapped."""

    async def __aenter__(self) -> object:
        """Open it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close it."""
        ...

    async def handle_async_request(self, request: SentT) -> AnsweredT:
        """Send a request."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class Transport(Protocol[SentT, AnsweredT]):
    """Likewise, without ``await``."""

    def __enter__(self) -> object:
        """Open it."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close it."""
        ...

    def handle_request(self, request: SentT) -> AnsweredT:
        """Send a request."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class AsyncCoordinated(Generic[RequestT, ResponseT]):
    """Sends each request when its turn has come, and tells the coordinator what was answered.

    A refusal is recognised by ``rate_coordinator.answers``. Of an answer with a status of 400 or more, and of a success
    whose headers say that it is JSON of up to 64 KiB, the beginning of the body (64 KiB) is read for that, and stays
    there to be read; any other answer is handed on as soon as its headers are there, and that is when its call counts
    as served, so that nobody waits for the end of a stream. A transport's errors pass through, and count as neither.

    A client that is given a transport makes none by its ``limits``, ``verify``, ``cert`` and ``http2``, and heeds no
    proxies of the environment; its ``proxy`` and ``mounts`` lead around the transport. Give what is needed of these to
    the transport that is wrapped. The ``DefaultAsyncHttpxClient`` of an SDK, given a transport, has the timeouts of the
    SDK's own client and follows redirects as that does; set the SDK's ``max_retries`` to 0.

    Args:
        coordinator: Who shares the limits. It is not closed with the transport.
        transport: What sends; a new one with the library's defaults if left out. It is closed with this one.
        backend: Whom a request counts against: a name for all, or a function of the request that returns a name, or a
            name and a model; None for its host.
        provider: Who answers, as registered with ``rate_coordinator.answers``; None finds out by the answer.
        attempts: How often a request is sent at most, 1 or more: once more after each refusal, as soon as the limit
            allows it. Only one whose body is all there (bytes, text, JSON, a form; no stream, no files) is sent again.
            Where the wait is longer than ``timeout``, or no attempt is left, the caller gets the last refusal.
        timeout: Longest wait before each attempt, in seconds; None waits as long as it takes. The client's own timeouts
            do not count while a request waits.
        priority: Of the requests that wait in this process, who has a lower one goes first.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.

    Raises:
        ValueError: An argument cannot be used.
    """

    _library: ClassVar[Library]

    def __init__(
        self,
        coordinator: RateLimitCoordinator,
        transport: AsyncTransport[RequestT, ResponseT] | None = None,
        *,
        backend: str | Callable[[RequestT], Names] | None = None,
        provider: str | None = None,
        attempts: int = 1,
        timeout: float | None = None,
        priority: float = 0,
        guess_seconds: float = 5.0,
    ) -> None:
        policy = Policy(backend, provider, attempts, timeout, priority, guess_seconds)
        self._sender = AsyncSender(coordinator, policy)
        self._transport: AsyncTransport[RequestT, ResponseT] = self._library.async_transport(transport)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        """Send a request when its turn has come.

        Raises:
            LimitWaitTimeout: It may not be sent within the timeout. The error is a timeout of the library as well.
            ValueError: It has no backend.
        """
        return await self._sender.send(AsyncHttpxExchange(self._library, request, self._transport.handle_async_request))

    async def aclose(self) -> None:
        """Close the wrapped transport; the coordinator stays open."""
        await self._transport.aclose()


class Coordinated(Generic[RequestT, ResponseT]):
    """The same as ``AsyncCoordinated``, without ``await``; its coordinator is one of ``rate_coordinator.sync``."""

    _library: ClassVar[Library]

    def __init__(
        self,
        coordinator: SyncCoordinator,
        transport: Transport[RequestT, ResponseT] | None = None,
        *,
        backend: str | Callable[[RequestT], Names] | None = None,
        provider: str | None = None,
        attempts: int = 1,
        timeout: float | None = None,
        priority: float = 0,
        guess_seconds: float = 5.0,
    ) -> None:
        policy = Policy(backend, provider, attempts, timeout, priority, guess_seconds)
        self._sender = Sender(coordinator, policy)
        self._transport: Transport[RequestT, ResponseT] = self._library.transport(transport)

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)

    def handle_request(self, request: RequestT) -> ResponseT:
        """Send a request when its turn has come.

        Raises:
            LimitWaitTimeout: It may not be sent within the timeout. The error is a timeout of the library as well.
            ValueError: It has no backend.
        """
        return self._sender.send(HttpxExchange(self._library, request, self._transport.handle_request))

    def close(self) -> None:
        """Close the wrapped transport; the coordinator stays open."""
        self._transport.close()
