"""An upstream on the loopback interface that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Reply:
    """One answer.

    Args:
        status: The HTTP status.
        headers: Beside those that tell the size of the body.
        body: What follows them; several pieces are sent as a stream.
        hold: Awaited before each piece of a stream but the first.
        cut: Break the connection off after the body, as if more were to follow.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | list[bytes] = b"{}"
    hold: threading.Event | None = None
    cut: bool = False


def told(body: object, status: int = 200, **headers: str) -> Reply:
    """Return an answer in JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"content-type": "application/json", **named}, json.dumps(body).encode())


def refused(wait_seconds: float, **headers: str) -> Reply:
    """Return a 429 that tells how long to wait."""
    return told({"error": {"message": "slow down"}}, 429, retry_after=f"{wait_seconds:g}", **headers)


def refused_within_a_success() -> Reply:
    """Return a refusal for 10 seconds as Shopify's GraphQL tells it: https://shopify.dev/docs/api/usage/limits."""
    status = {"maximumAvailable": 1000.0, "currentlyAvailable": 252, "restoreRate": 50.0}
    cost = {"requestedQueryCost": 752, "throttleStatus": status}
    return told({"errors": [{"message": "Throttled"}], "extensions": {"cost": cost}})


@dataclass(frozen=True)
class Asked:
    """One request."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Clients may go away when they like."""


class Upstream:
    """Answers with what is left of its ``replies``, and with ``otherwise`` after that."""

    def __init__(self, otherwise: Reply | None = None) -> None:
        self.replies: deque[Reply] = deque()
        self.otherwise = otherwise or Reply()
        self.asked: list[Asked] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                at = time.monotonic()
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self._body(headers)
                upstream.asked.append(Asked(at, self.command, self.path, headers, body))
                reply = upstream.replies.popleft() if upstream.replies else upstream.otherwise
                try:
                    self._answer(reply)
                except OSError:
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST

            def _body(self, headers: dict[str, str]) -> bytes:
                if headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(headers.get("content-length", 0)))
                whole = b""
                while size := int(self.rfile.readline(), 16):
                    whole += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return whole

            def _answer(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if isinstance(reply.body, bytes):
                    self.send_header("content-length", str(len(reply.body) + reply.cut))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(reply.body)
                else:
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                    for number, piece in enumerate(reply.body):
                        if number and reply.hold is not None:
                            reply.hold.wait(30)
                        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    if not reply.cut:
                        self.wfile.write(b"0\r\n\r\n")
                if reply.cut:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
