"""A minimal HTTP/1.1 client: one request at a time over a connection that is kept alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.harness import monotonic_ns
from benchmarks.herd.upstream import SENT_HEADER

REQUEST = b"GET / HTTP/1.1\r\nHost: upstream\r\n" + SENT_HEADER + b": %d\r\n\r\n"
RETRY_AFTER = b"retry-after:"


class HttpClient:
    """One connection to the upstream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int) -> AsyncIterator[HttpClient]:
        """Connect to the upstream for as long as the context lasts."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def get(self) -> float | None:
        """Send a request and read its answer.

        Returns:
            None if it was served, else the seconds that its 429 says in ``Retry-After``.
        """
        self._writer.write(REQUEST % monotonic_ns())
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, *headers = head.split(b"\r\n")
        if b" 200 " in status:
            return None
        line = next(line for line in headers if line.lower().startswith(RETRY_AFTER))
        return float(line[len(RETRY_AFTER) :])
