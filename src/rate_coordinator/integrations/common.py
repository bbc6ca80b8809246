"""What the HTTP integrations share: whose limit a request counts against, and when its answer's body is looked at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

Request = TypeVar("Request")

Names: TypeAlias = str | tuple[str, str | None]
"""A backend, or a backend and a model of it."""

REFUSAL_BODY_BYTES = 64 * 1024
"""No more of a body is looked at: what tells of a limit is short."""


def names_of(
    backend: str | Callable[[Request], Names] | None, request: Request, host: str | None
) -> tuple[str, str | None]:
    """Return the backend and the model that a request counts against.

    Args:
        backend: A name for all requests; or a function of the request that returns a name, or a name and a model; None
            for the host.
        request: The library's own request.
        host: The host that it goes to, without the port.

    Raises:
        ValueError: There is no name: the function returned none, or the request has no host.
    """
    named = backend(request) if callable(backend) else backend if backend is not None else host
    name, model = named if isinstance(named, tuple) else (named, None)
    if not name:
        # Not the request itself: keys can be in its URL.
        raise ValueError(f"a backend must have a name, but that of a {type(request).__name__} is {named!r:.80}")
    return name, model


class AnyHeaders(Protocol):
    """The headers of an answer."""

    def get(self, name: str, default: str, /) -> str:
        """Return one, found by its name in any case."""
        ...


def is_telling(status: int, headers: AnyHeaders) -> bool:
    """Tell whether the body of an answer is looked at.

    That of every error is, and of a success what says itself that it is short and JSON: some upstreams refuse within a
    200. Any other success may be a stream without end, and is left alone.
    """
    if not 200 <= status < 300:
        return status >= 400
    kind, length = headers.get("content-type", "").partition(";")[0].strip().lower(), headers.get("content-length", "")
    is_short = re.fullmatch("[0-9]{1,6}", length) is not None and int(length) <= REFUSAL_BODY_BYTES
    return is_short and (kind == "application/json" or kind.endswith("+json"))


def check_attempts(attempts: object) -> int:
    """Return how often a request is sent at most.

    Raises:
        ValueError: ``attempts`` is not a whole number of at least 1.
    """
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        raise ValueError(f"attempts must be a whole number of at least 1, not {attempts!r:.80}")
    return attempts
