"""A request of httpx, or of a library that has its interface, on its way. None of them is imported here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES, AnyHeaders, is_telling
from rate_coordinator.integrations.replaying import AsyncReplay, Replay
from rate_coordinator.integrations.transports import Seen

# So much of a compressed body is decoded at once, so that one that swells to gigabytes does not get far.
_PIECE_BYTES = 256


class AnyUrl(Protocol):
    """What is needed of a URL."""

    @property
    def host(self) -> str:
        """Without the port; empty where there is none."""
        ...


class AnyAnswerHeaders(AnyHeaders, Protocol):
    """What is needed of an answer's headers."""

    def multi_items(self) -> list[tuple[str, str]]:
        """Return each of them as often as it was sent."""
        ...


class AnyRequest(Protocol):
    """What is needed of a request."""

    @property
    def url(self) -> AnyUrl:
        """Where it goes to."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Found by names in any case."""
        ...

    @property
    def stream(self) -> object:
        """Its body."""
        ...


class AnyResponse(Protocol):
    """What is needed of an answer."""

    stream: Any
    """Its body, which can be exchanged until it is read."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> AnyAnswerHeaders:
        """Its headers."""
        ...

    @property
    def is_stream_consumed(self) -> bool:
        """Whether its body was read, as is that of an answer that was made from bytes."""
        ...

    @property
    def content(self) -> bytes:
        """Its body, where that was read."""
        ...

    def close(self) -> None:
        """Let go of its connection."""
        ...

    async def aclose(self) -> None:
        """Let go of its connection."""
        ...


RequestT = TypeVar("RequestT", bound=AnyRequest)
ResponseT = TypeVar("ResponseT", bound=AnyResponse)


@dataclass(frozen=True, slots=True)
class Library:
    """What one library calls its own."""

    response: Callable[..., Any]
    byte_stream: type
    """A body that is all there, and can be sent as often as one likes."""
    request_error: type[Exception]
    base_transports: tuple[type, type]
    """What every transport of it is: the async ones, and the others."""
    default_transports: tuple[Callable[[], Any], Callable[[], Any]]
    """Make what sends where the user wraps nothing."""
    async_replay: Callable[[Any], AsyncReplay]
    replay: Callable[[Any], Replay]
    timed_out: Callable[[str, Any], Exception]

    def async_transport(self, transport: object) -> Any:
        """Return what is wrapped, or something new where that is None.

        Raises:
            ValueError: It is no async transport of this library.
        """
        return self.default_transports[0]() if transport is None else _checked(transport, self.base_transports[0])

    def transport(self, transport: object) -> Any:
        """Return what is wrapped, or something new where that is None.

        Raises:
            ValueError: It is no sync transport of this library.
        """
        return self.default_transports[1]() if transport is None else _checked(transport, self.base_transports[1])

    def seen(self, response: AnyResponse, body: bytes | None, *, decoded: bool = False) -> Seen:
        """Return what is looked at of an answer."""
        headers = response.headers.multi_items()
        if body and not decoded and any(name.lower() == "content-encoding" for name, _ in headers):
            body = self._decode(response, body)
        return Seen(response.status_code, headers, body[:REFUSAL_BODY_BYTES] if body else None)

    def _decode(self, response: AnyResponse, body: bytes) -> bytes:
        pieces = (body[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES))
        copy = self.response(response.status_code, headers=response.headers, content=pieces)
        decoded = b""
        try:
            for part in copy.iter_bytes():
                decoded += part
                if len(decoded) >= REFUSAL_BODY_BYTES:
                    break
        except self.request_error:
            # Of what ends in the middle, or is not what it says, the beginning counts.
            pass
        return decoded


def _checked(transport: object, base: type) -> object:
    if not isinstance(transport, base):
        raise ValueError(f"transport must be an {base.__module__}.{base.__name__}, not {transport!r:.80}")
    return transport


class _Outgoing(Generic[RequestT]):
    def __init__(self, library: Library, request: RequestT) -> None:
        self.client_library = library
        self.request = request

    @property
    def host(self) -> str | None:
        """See ``sending.Outgoing``."""
        return self.request.url.host

    @property
    def headers(self) -> Mapping[str, str]:
        """See ``sending.Outgoing``."""
        return self.request.headers

    @property
    def repeatable(self) -> bool:
        """See ``sending.Outgoing``."""
        return isinstance(self.request.stream, self.client_library.byte_stream)

    def timed_out(self, error: LimitWaitTimeout) -> Exception:
        """See ``sending.Outgoing``."""
        return self.client_library.timed_out(str(error), self.request)


class AsyncHttpxExchange(_Outgoing[RequestT], Generic[RequestT, ResponseT]):
    """A request and the function that sends it."""

    def __init__(self, library: Library, request: RequestT, handle: Callable[[RequestT], Awaitable[ResponseT]]) -> None:
        super().__init__(library, request)
        self._handle = handle

    async def send(self) -> ResponseT:
        """See ``sending.AsyncExchange``."""
        return await self._handle(self.request)

    async def look(self, response: ResponseT) -> Seen:
        """See ``sending.AsyncExchange``."""
        if not is_telling(response.status_code, response.headers):
            return self.client_library.seen(response, None)
        if response.is_stream_consumed:
            return self.client_library.seen(response, response.content, decoded=True)
        response.stream = replay = self.client_library.async_replay(response.stream)
        return self.client_library.seen(response, await replay.begin())

    async def close(self, response: ResponseT) -> None:
        """See ``sending.AsyncExchange``."""
        await response.aclose()


class HttpxExchange(_Outgoing[RequestT], Generic[RequestT, ResponseT]):
    """Likewise, without ``await``."""

    def __init__(self, library: Library, request: RequestT, handle: Callable[[RequestT], ResponseT]) -> None:
        super().__init__(library, request)
        self._handle = handle

    def send(self) -> ResponseT:
        """See ``sending.AsyncExchange``."""
        return self._handle(self.request)

    def look(self, response: ResponseT) -> Seen:
        """See ``sending.AsyncExchange``."""
        if not is_telling(response.status_code, response.headers):
            return self.client_library.seen(response, None)
        if response.is_stream_consumed:
            return self.client_library.seen(response, response.content, decoded=True)
        response.stream = replay = self.client_library.replay(response.stream)
        return self.client_library.seen(response, replay.begin())

    def close(self, response: ResponseT) -> None:
        """See ``sending.AsyncExchange``."""
        response.close()
