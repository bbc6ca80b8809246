"""An answer of urllib3 of which the beginning is looked at, and the whole left to whoever reads it."""

from __future__ import annotations

import io
from collections.abc import Iterator

try:
    from urllib3 import BaseHTTPResponse, HTTPResponse
    from urllib3.exceptions import HTTPError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.urllib3_bodies needs the extra 'urllib3': "
        "pip install 'rate-coordinator[urllib3]'",
        name=error.name,
    ) from error

from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES
from rate_coordinator.integrations.replaying import Replay
from rate_coordinator.integrations.transports import Seen

_PIECE_BYTES = 16 * 1024


class LookedAt(HTTPResponse):
    """The same answer as another one, over the same connection, with a body that can be looked at first.

    Args:
        response: An answer whose body was not read.
        method: That of the request: the answer to a ``HEAD`` has none.
    """

    def __init__(self, response: HTTPResponse, method: str | None) -> None:
        self._response = response
        self._replay = Replay(_Stream(response))
        super().__init__(
            body=_File(self._replay),
            headers=response.headers,
            status=response.status,
            version=response.version,
            reason=response.reason,
            preload_content=False,
            decode_content=response.decode_content,
            # Where requests finds the cookies.
            original_response=response._original_response,
            msg=response.msg,
            retries=response.retries,
            # The other one enforces it.
            enforce_content_length=False,
            request_method=method,
            request_url=response.url,
        )

    def look(self) -> Seen:
        """Read the beginning of the body, which stays there to be read."""
        return seen(self, self._replay.begin(), decoded=False)

    def release_conn(self) -> None:
        """Give the connection back to its pool."""
        self._response.release_conn()


def seen(response: BaseHTTPResponse, body: bytes | None = None, *, decoded: bool = True) -> Seen:
    """Return what is looked at of an answer.

    Args:
        response: The answer.
        body: The beginning of its body.
        decoded: Whether that is as its ``Content-Encoding`` has left it.
    """
    encoding = response.headers.get("content-encoding")
    if body and encoding is not None and not decoded:
        body = _decode(body, encoding)
    return Seen(response.status, list(response.headers.items()), body[:REFUSAL_BODY_BYTES] if body else None)


def _decode(body: bytes, encoding: str) -> bytes:
    copy = HTTPResponse(io.BytesIO(body), {"content-encoding": encoding}, preload_content=False)
    decoded = b""
    try:
        for piece in copy.stream(_PIECE_BYTES, decode_content=True):
            decoded += piece
            if len(decoded) >= REFUSAL_BODY_BYTES:
                break
    except HTTPError:
        # Of what ends in the middle, or is not what it says, the beginning counts.
        pass
    return decoded


class _Stream:
    """The body of an answer as it was sent, in pieces."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response.stream(_PIECE_BYTES, decode_content=False))

    def close(self) -> None:
        self._response.close()
        self._response.release_conn()


class _File(io.RawIOBase):
    """Pieces as a file, which is how urllib3 reads a body."""

    def __init__(self, replay: Replay) -> None:
        super().__init__()
        self._replay = replay
        self._pieces = iter(replay)
        self._piece = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = piece
        size = min(len(buffer), len(self._piece))
        buffer[:size], self._piece = self._piece[:size], self._piece[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._replay.close()
        super().close()
