"""Coordinates what is sent with httpx2, as the SDKs of OpenAI and Anthropic do (extra ``httpx2``)."""

from __future__ import annotations

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.httpx_family import Library
from rate_coordinator.integrations.httpx_transports import AsyncCoordinated, Coordinated
from rate_coordinator.integrations.replaying import AsyncReplay, Replay

try:
    import httpx2
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.httpx2 needs the extra 'httpx2': pip install 'rate-coordinator[httpx2]'",
        name=error.name,
    ) from error

__all__ = ["AdmissionTimeout", "AsyncCoordinatedTransport", "CoordinatedTransport"]


class AdmissionTimeout(httpx2.TimeoutException, LimitWaitTimeout):
    """A request was not sent, because its limit outlasts the timeout."""


class _AsyncReplay(AsyncReplay, httpx2.AsyncByteStream):
    pass


class _Replay(Replay, httpx2.SyncByteStream):
    pass


_LIBRARY = Library(
    response=httpx2.Response,
    byte_stream=httpx2.ByteStream,
    request_error=httpx2.RequestError,
    base_transports=(httpx2.AsyncBaseTransport, httpx2.BaseTransport),
    default_transports=(httpx2.AsyncHTTPTransport, httpx2.HTTPTransport),
    async_replay=_AsyncReplay,
    replay=_Replay,
    timed_out=lambda message, request: AdmissionTimeout(message, request=request),
)


class AsyncCoordinatedTransport(AsyncCoordinated[httpx2.Request, httpx2.Response], httpx2.AsyncBaseTransport):
    """For ``httpx2.AsyncClient(transport=AsyncCoordinatedTransport(coordinator))``; see ``AsyncCoordinated``."""

    _library = _LIBRARY


class CoordinatedTransport(Coordinated[httpx2.Request, httpx2.Response], httpx2.BaseTransport):
    """For ``httpx2.Client(transport=CoordinatedTransport(coordinator))``; see ``Coordinated``."""

    _library = _LIBRARY
