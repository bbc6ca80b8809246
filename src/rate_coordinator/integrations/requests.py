"""Coordinates what is sent with requests (extra ``requests``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

try:
    import requests
    from requests.adapters import BaseAdapter, HTTPAdapter
    from urllib3 import HTTPResponse
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.requests needs the extra 'requests': pip install 'rate-coordinator[requests]'",
        name=error.name,
    ) from error

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.common import Names, is_telling
from rate_coordinator.integrations.sending import Sender
from rate_coordinator.integrations.transports import Policy, Seen
from rate_coordinator.integrations.urllib3_bodies import LookedAt
from rate_coordinator.integrations.urllib3_retries import RetriesBeneath
from rate_coordinator.sync import RateLimitCoordinator

__all__ = ["AdmissionTimeout", "CoordinatedAdapter"]


class AdmissionTimeout(requests.exceptions.Timeout, LimitWaitTimeout):
    """A request was not sent, because its limit outlasts the timeout."""


class CoordinatedAdapter(BaseAdapter):
    """Sends each request when its turn has come, and tells the coordinator what was answered.

    For ``session.mount("https://", CoordinatedAdapter(coordinator))``; a session has ``http://`` as well.

    A refusal is recognised by ``rate_coordinator.answers``. Of an answer with a status of 400 or more, and of a success
    whose headers say that it is JSON of up to 64 KiB, the beginning of the body (64 KiB) is read for that, and stays
    there to be read; any other answer is handed on as soon as its headers are there, and that is when its call counts
    as served. Errors pass through, and count as neither. Each request of a chain of redirects is a call of its own.

    What a ``max_retries`` of the wrapped adapter repeats is repeated as part of one call, but for refusals: they are
    left to ``attempts``, and whoever asked for them (``status_forcelist``) is warned once.

    Args:
        coordinator: Who shares the limits. It is not closed with the adapter.
        adapter: What sends; a new ``HTTPAdapter`` if left out. It belongs to this one, and is closed with it.
        backend: Whom a request counts against: a name for all, or a function of the prepared request that returns a
            name, or a name and a model; None for its host.
        provider: Who answers, as registered with ``rate_coordinator.answers``; None finds out by the answer.
        attempts: How often a request is sent at most, 1 or more: once more after each refusal, as soon as the limit
            allows it. Only one whose body is all there (no file, no iterator) is sent again. Where the wait is longer
            than ``timeout``, or no attempt is left, the caller gets the last refusal.
        timeout: Longest wait before each attempt, in seconds; None waits as long as it takes. The ``timeout`` of
            requests does not count while a request waits.
        priority: Of the requests that wait in this process, who has a lower one goes first.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.

    Raises:
        ValueError: An argument cannot be used.
    """

    def __init__(
        self,
        coordinator: RateLimitCoordinator,
        adapter: BaseAdapter | None = None,
        *,
        backend: str | Callable[[requests.PreparedRequest], Names] | None = None,
        provider: str | None = None,
        attempts: int = 1,
        timeout: float | None = None,
        priority: float = 0,
        guess_seconds: float = 5.0,
    ) -> None:
        super().__init__()
        self._sender = Sender(coordinator, Policy(backend, provider, attempts, timeout, priority, guess_seconds))
        self._adapter = _checked(HTTPAdapter() if adapter is None else adapter)
        if isinstance(self._adapter, HTTPAdapter):
            self._adapter.max_retries = RetriesBeneath().leave_refusals(self._adapter.max_retries)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **keywords: Any) -> requests.Response:
        """Send a request when its turn has come; the arguments are those of any adapter.

        Raises:
            AdmissionTimeout: It may not be sent within the timeout.
            ValueError: It has no backend.
        """

        def send() -> requests.Response:
            return self._adapter.send(request, *arguments, **keywords)

        response = self._sender.send(_Exchange(request, send))
        # By this, whoever authenticates with a digest sends the request once more.
        response.connection = self  # type: ignore[assignment]
        return response

    def close(self) -> None:
        """Close the wrapped adapter; the coordinator stays open."""
        self._adapter.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a coordinator cannot be pickled: mount a new CoordinatedAdapter")


class _Exchange:
    def __init__(self, request: requests.PreparedRequest, send: Callable[[], requests.Response]) -> None:
        self.request = request
        self._send = send

    @property
    def host(self) -> str | None:
        return urlsplit(self.request.url or "").hostname

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def repeatable(self) -> bool:
        return self.request.body is None or isinstance(self.request.body, (bytes, str))

    def timed_out(self, error: LimitWaitTimeout) -> Exception:
        return AdmissionTimeout(str(error), request=self.request)

    def send(self) -> requests.Response:
        response = self._send()
        if is_telling(response.status_code, response.headers) and isinstance(response.raw, HTTPResponse):
            response.raw = LookedAt(response.raw, self.request.method)
        return response

    def look(self, response: requests.Response) -> Seen:
        if isinstance(response.raw, LookedAt):
            return response.raw.look()
        headers = response.raw.headers if isinstance(response.raw, HTTPResponse) else response.headers
        return Seen(response.status_code, list(headers.items()))

    def close(self, response: requests.Response) -> None:
        response.close()


def _checked(adapter: object) -> BaseAdapter:
    if not isinstance(adapter, BaseAdapter):
        raise ValueError(f"adapter must be a requests.adapters.BaseAdapter, not {adapter!r:.80}")
    return adapter
