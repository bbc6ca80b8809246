"""One HTTP call with the standard library's client."""

from __future__ import annotations

from http.client import HTTPConnection
from typing import NamedTuple

CALL_SECONDS = 10.0


class Reply(NamedTuple):
    """What the upstream answered."""

    status: int
    retry_after_seconds: int
    """What the header ``Retry-After`` says; 0 where there is none."""
    body: bytes


def call(address: str, method: str, path: str) -> Reply:
    """Call an HTTP server and read its whole answer.

    Args:
        address: ``host:port``.
        method: ``"GET"`` or ``"POST"``.
        path: What to ask for.

    Raises:
        OSError: There was no answer.
    """
    connection = HTTPConnection(address, timeout=CALL_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return Reply(response.status, int(response.headers.get("Retry-After", "0")), response.read())
    finally:
        connection.close()
