"""Coordinates what is sent with httpx (extra ``httpx``)."""

from __future__ import annotations

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.httpx_family import Library
from rate_coordinator.integrations.httpx_transports import AsyncCoordinated, Coordinated
from rate_coordinator.integrations.replaying import AsyncReplay, Replay

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.httpx needs the extra 'httpx': pip install 'rate-coordinator[httpx]'",
        name=error.name,
    ) from error

__all__ = ["AdmissionTimeout", "AsyncCoordinatedTransport", "CoordinatedTransport"]


class AdmissionTimeout(httpx.TimeoutException, LimitWaitTimeout):
    """A request was not sent, because its limit outlasts the timeout."""


class _AsyncReplay(AsyncReplay, httpx.AsyncByteStream):
    pass


class _Replay(Replay, httpx.SyncByteStream):
    pass


_LIBRARY = Library(
    response=httpx.Response,
    byte_stream=httpx.ByteStream,
    request_error=httpx.RequestError,
    base_transports=(httpx.AsyncBaseTransport, httpx.BaseTransport),
    default_transports=(httpx.AsyncHTTPTransport, httpx.HTTPTransport),
    async_replay=_AsyncReplay,
    replay=_Replay,
    timed_out=lambda message, request: AdmissionTimeout(message, request=request),
)


class AsyncCoordinatedTransport(AsyncCoordinated[httpx.Request, httpx.Response], httpx.AsyncBaseTransport):
    """For ``httpx.AsyncClient(transport=AsyncCoordinatedTransport(coordinator))``; see ``AsyncCoordinated``."""

    _library = _LIBRARY


class CoordinatedTransport(Coordinated[httpx.Request, httpx.Response], httpx.BaseTransport):
    """For ``httpx.Client(transport=CoordinatedTransport(coordinator))``; see ``Coordinated``."""

    _library = _LIBRARY
