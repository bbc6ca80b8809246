"""Looks at the beginning of an answer's body and leaves the whole of it to whoever reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import AsyncGeneratorType
from typing import Protocol

from rate_coordinator.integrations.common import REFUSAL_BODY_BYTES


class AsyncStream(Protocol):
    """A body, as httpx knows it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Begin to read it."""
        ...

    async def aclose(self) -> None:
        """Let go of it."""
        ...


class Stream(Protocol):
    """Likewise, without ``await``."""

    def __iter__(self) -> Iterator[bytes]:
        """Begin to read it."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class AsyncReplay:
    """A body that was begun: it yields what was read of it, and then the rest, or the error that ended it."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream
        self._chunks = stream.__aiter__()
        self._begun: list[bytes] = []
        self._error: Exception | None = None
        self._closed = False

    async def begin(self) -> bytes:
        """Read the beginning of it, and let go of it where that is all.

        An error is kept for whoever reads on: the answer's status and headers have told enough.
        """
        try:
            size = 0
            async for chunk in self._chunks:
                self._begun.append(chunk)
                size += len(chunk)
                if size >= REFUSAL_BODY_BYTES:
                    break
            else:
                await self.aclose()
        except Exception as error:
            self._error = error
        return b"".join(self._begun)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield all of it, once."""
        while self._begun:
            yield self._begun.pop(0)
        if self._error is not None:
            raise self._error
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """Let go of it."""
        if not self._closed:
            self._closed = True
            if isinstance(self._chunks, AsyncGeneratorType) and not self._chunks.ag_running:
                await self._chunks.aclose()
            await self._stream.aclose()


class Replay:
    """Likewise, without ``await``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._chunks = iter(stream)
        self._begun: list[bytes] = []
        self._error: Exception | None = None
        self._closed = False

    def begin(self) -> bytes:
        """See ``AsyncReplay``."""
        try:
            size = 0
            for chunk in self._chunks:
                self._begun.append(chunk)
                size += len(chunk)
                if size >= REFUSAL_BODY_BYTES:
                    break
            else:
                self.close()
        except Exception as error:
            self._error = error
        return b"".join(self._begun)

    def __iter__(self) -> Iterator[bytes]:
        """Yield all of it, once."""
        while self._begun:
            yield self._begun.pop(0)
        if self._error is not None:
            raise self._error
        yield from self._chunks

    def close(self) -> None:
        """Let go of it."""
        if not self._closed:
            self._closed = True
            self._stream.close()
