"""Coordinates what is sent with urllib3 itself (extra ``urllib3``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

try:
    from urllib3 import BaseHTTPResponse, HTTPHeaderDict, HTTPResponse, PoolManager, ProxyManager
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.exceptions import TimeoutError as Urllib3Timeout
    from urllib3.util import Retry, Url
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.urllib3 needs the extra 'urllib3': pip install 'rate-coordinator[urllib3]'",
        name=error.name,
    ) from error

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.common import Names, is_telling
from rate_coordinator.integrations.sending import Sender
from rate_coordinator.integrations.transports import Policy, Seen
from rate_coordinator.integrations.urllib3_bodies import LookedAt, seen
from rate_coordinator.integrations.urllib3_retries import RetriesBeneath
from rate_coordinator.sync import RateLimitCoordinator

__all__ = ["AdmissionTimeout", "CoordinatedPoolManager", "CoordinatedProxyManager", "Request"]


class AdmissionTimeout(Urllib3Timeout, LimitWaitTimeout):
    """A request was not sent, because its limit outlasts the timeout."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is about to be sent, for a function that tells whom it counts against."""

    method: str
    # Keys can be in any of these.
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Found by names in any case."""
    body: object = field(repr=False)
    """Bytes, text, a file, an iterable, or None."""


class CoordinatedPoolManager(PoolManager):
    """Sends each request when its turn has come, and tells the coordinator what was answered.

    A refusal is recognised by ``rate_coordinator.answers``; where the body is not preloaded, by the headers and its
    beginning (64 KiB), which stays there to be read. Of a success the body is looked at only where the headers say that
    it is JSON of up to 64 KiB. A call is over when urllib3 hands on its answer: with the whole body, or with
    ``preload_content=False`` with the headers. Errors pass through, and count as neither. Each request of a chain of
    redirects is a call of its own.

    What a ``Retry`` repeats is repeated as part of one call, but for refusals: they are left to ``attempts``, and
    whoever asked for them (``status_forcelist``) is warned once.

    Args:
        coordinator: Who shares the limits. It is not closed with the manager.
        arguments: Those of the manager that this one extends, likewise ``keywords``: its ``timeout``, ``retries``, …
        backend: Whom a request counts against: a name for all, or a function of the ``Request`` that returns a name, or
            a name and a model; None for its host.
        provider: Who answers, as registered with ``rate_coordinator.answers``; None finds out by the answer.
        attempts: How often a request is sent at most, 1 or more: once more after each refusal, as soon as the limit
            allows it. Only one whose body is all there (no file, no iterable) is sent again. Where the wait is longer
            than ``admission_timeout``, or no attempt is left, the caller gets the last refusal.
        admission_timeout: Longest wait before each attempt, in seconds; None waits as long as it takes. The ``timeout``
            of urllib3 does not count while a request waits.
        priority: Of the requests that wait in this process, who has a lower one goes first.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.
        keywords: See ``arguments``.

    Raises:
        ValueError: An argument cannot be used.
    """

    def __init__(
        self,
        coordinator: RateLimitCoordinator,
        *arguments: Any,
        backend: str | Callable[[Request], Names] | None = None,
        provider: str | None = None,
        attempts: int = 1,
        admission_timeout: float | None = None,
        priority: float = 0,
        guess_seconds: float = 5.0,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        policy = Policy(backend, provider, attempts, admission_timeout, priority, guess_seconds)
        self._sender = Sender(coordinator, policy)
        self._retries_beneath = RetriesBeneath()

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: dict[str, Any] | None = None,
    ) -> HTTPConnectionPool:
        """Return where requests to a host are sent from: this is where urllib3 gets it for each one."""
        pool = super().connection_from_host(host, port, scheme, pool_kwargs)
        origin = Url(scheme=scheme, host=host, port=port)
        return cast(HTTPConnectionPool, _Pool(pool, origin, self._sender, self._retries_beneath))


class CoordinatedProxyManager(CoordinatedPoolManager, ProxyManager):
    """The same through a proxy: ``CoordinatedProxyManager(coordinator, "http://proxy:3128")``."""


class _Pool:
    """A pool of urllib3 whose requests are sent in turn.

    It is none itself: what that repeats beneath calls its own ``urlopen``, and must not wait for a turn within a turn.
    """

    def __init__(
        self, pool: HTTPConnectionPool, origin: Url, sender: Sender[Request], retries_beneath: RetriesBeneath
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._sender = sender
        self._retries_beneath = retries_beneath

    # They call the ``urlopen`` of what they belong to.
    request = HTTPConnectionPool.request
    request_encode_url = HTTPConnectionPool.request_encode_url
    request_encode_body = HTTPConnectionPool.request_encode_body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def urlopen(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        retries: Retry | bool | int | None = None,
        redirect: bool = True,
        *arguments: Any,
        **keywords: Any,
    ) -> BaseHTTPResponse:
        whole = self._origin.url + url if url.startswith("/") else url
        shown = HTTPHeaderDict(self._pool.headers if headers is None else headers)
        made = Retry.from_int(retries, redirect=redirect, default=self._pool.retries)
        left = self._retries_beneath.leave_refusals(made)

        def send() -> BaseHTTPResponse:
            return self._pool.urlopen(method, url, body, headers, left, redirect, *arguments, **keywords)

        exchange = _Exchange(self._origin.host, Request(method, whole, shown, body), send)
        exchange.decodes = keywords.get("decode_content", True)
        return self._sender.send(exchange)


class _Exchange:
    decodes = True

    def __init__(self, host: str | None, request: Request, send: Callable[[], BaseHTTPResponse]) -> None:
        self.host = host
        self.request = request
        self._send = send

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def repeatable(self) -> bool:
        return self.request.body is None or isinstance(self.request.body, (bytes, str))

    def timed_out(self, error: LimitWaitTimeout) -> Exception:
        return AdmissionTimeout(str(error))

    def send(self) -> BaseHTTPResponse:
        response = self._send()
        if (
            isinstance(response, HTTPResponse)
            and is_telling(response.status, response.headers)
            and not response.isclosed()
        ):
            return LookedAt(response, self.request.method)
        return response

    def look(self, response: BaseHTTPResponse) -> Seen:
        if isinstance(response, LookedAt):
            return response.look()
        preloaded = is_telling(response.status, response.headers) and response.closed
        return seen(response, response.data if preloaded else None, decoded=self.decodes)

    def close(self, response: BaseHTTPResponse) -> None:
        response.close()
        response.release_conn()
