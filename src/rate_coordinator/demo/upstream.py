"""The upstream: a local HTTP server that accepts so many calls a window and answers the rest with 429.

``POST /<account>`` is a call; ``GET /<account>`` tells how many were accepted and refused.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections import defaultdict
from http import HTTPStatus

from rate_coordinator.demo.child import run_child
from rate_coordinator.demo.messages import Count, Ready, tell
from rate_coordinator.demo.plan import Plan, UpstreamJob

REQUEST_SECONDS = 10.0


class Window:
    """Accepts a number of calls per window. A window begins with its first call.

    Args:
        calls: How many calls are accepted ...
        seconds: ... in each window of so many seconds.
    """

    def __init__(self, calls: int, seconds: float) -> None:
        self.accepted = 0
        self.refused = 0
        self._calls = calls
        self._seconds = seconds
        self._ends_at = -math.inf
        self._left = 0

    def take(self, now: float) -> float:
        """Ask for one call; return 0.0 if it is accepted, else in how many seconds the next window begins."""
        if now >= self._ends_at:
            self._ends_at = now + self._seconds
            self._left = self._calls
        if self._left:
            self._left -= 1
            self.accepted += 1
            return 0.0
        self.refused += 1
        return self._ends_at - now


class Upstream:
    """Answers HTTP requests, each account within its own limit."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._windows: defaultdict[str, Window] = defaultdict(
            lambda: Window(plan.calls_per_window, plan.window_seconds)
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, _ = head.decode("latin-1").split(" ", 2)
                writer.write(await self.answer(method, path))
                await writer.drain()
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError):
            pass  # whoever called left in the middle, or spoke something else than HTTP
        finally:
            writer.close()

    async def answer(self, method: str, path: str) -> bytes:
        """Return the whole response to a request."""
        window = self._windows[path]
        if method == "GET":
            count = Count(accepted=window.accepted, refused=window.refused)
            return response(HTTPStatus.OK, content=count.model_dump_json().encode())
        wait_seconds = window.take(time.monotonic())
        if wait_seconds > 0.0:
            # The header knows whole seconds only; rounded down it would send the caller into the next refusal.
            return response(HTTPStatus.TOO_MANY_REQUESTS, f"Retry-After: {math.ceil(wait_seconds)}")
        await asyncio.sleep(random.uniform(self._plan.shortest_call_seconds, self._plan.longest_call_seconds))
        return response(HTTPStatus.OK)


def response(status: HTTPStatus, *headers: str, content: bytes = b"") -> bytes:
    """Return an HTTP/1.1 response as it goes over the wire."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *headers, f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


async def work(told: UpstreamJob) -> None:
    """Serve on a free port until cancelled."""
    server = await asyncio.start_server(Upstream(told.plan).serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    tell(Ready(address=f"{host}:{port}"))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    job = UpstreamJob.model_validate_json(sys.argv[1])
    run_child(lambda go: work(job))
