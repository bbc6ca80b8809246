"""Hands notices to those in this process who want them, without ever being held up by one of them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self
from weakref import WeakSet

from rate_coordinator import clock
from rate_coordinator.models import Notice

logger = logging.getLogger(__name__)

NoticeCallback = Callable[[Notice], object] | Callable[[Notice], Awaitable[object]]
"""What ``on_notice`` takes: a plain or an async function of one notice."""

SLOW_CALLBACK_SECONDS = 0.1
"""A plain callback that takes longer holds up the event loop noticeably; that is logged."""


class _Buffer:
    """Notices on their way to one consumer; when it is full the oldest are dropped."""

    def __init__(self, size: int) -> None:
        self.dropped = 0
        self.closed = False
        self._notices: deque[Notice] = deque(maxlen=size)
        self._size = size
        self._ready = asyncio.Event()

    def put(self, notice: Notice) -> bool:
        """Add a notice; return False if another had to go for it."""
        fits = len(self._notices) < self._size
        self.dropped += not fits
        self._notices.append(notice)
        self._ready.set()
        return fits

    def close(self) -> None:
        self.closed = True
        self._ready.set()

    async def get(self) -> Notice | None:
        """Return the next notice, or None at the end."""
        while not self._notices:
            if self.closed:
                return None
            # Several readers may share a stream; those who find it empty again wait on.
            self._ready.clear()
            await self._ready.wait()
        return self._notices.popleft()


class NoticeStream:
    """An asynchronous iterator over notices, from the moment that it was made.

    It ends when the coordinator is closed. What a slow reader loses is counted in ``dropped``.
    """

    def __init__(self, hub: NoticeHub, start: Callable[[], Awaitable[object]], size: int) -> None:
        self.buffer = _Buffer(size)
        self._hub = hub
        self._start = start

    @property
    def dropped(self) -> int:
        """Notices that were lost because they were not read in time."""
        return self.buffer.dropped

    def __aiter__(self) -> AsyncIterator[Notice]:
        """Return itself."""
        return self

    async def __anext__(self) -> Notice:
        """Return the next notice, starting the coordinator if need be."""
        if not self.buffer.closed:
            await self._start()
        notice = await self.buffer.get()
        if notice is None:
            raise StopAsyncIteration
        return notice

    async def aclose(self) -> None:
        """Stop listening. Reading on ends the iteration."""
        self._hub.forget(self)
        self.buffer.close()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        await self.aclose()


class NoticeHandle:
    """What ``on_notice`` returns."""

    def __init__(self, hub: NoticeHub, callback: NoticeCallback, size: int) -> None:
        self.buffer = _Buffer(size)
        self.callback = callback
        self.task: asyncio.Task[None] | None = None
        self._hub = hub

    @property
    def dropped(self) -> int:
        """Notices that were lost because the callback was too slow."""
        return self.buffer.dropped

    def cancel(self) -> None:
        """Call the callback no more."""
        self._hub.remove(self)


class NoticeHub:
    """All consumers of notices in this process.

    Args:
        size: How many notices are kept for each.
    """

    def __init__(self, size: int) -> None:
        self.dropped = 0
        self.callback_errors = 0
        self._size = size
        # A reader who forgets its stream must not keep it filled for ever; it is forgotten with its reader.
        self._streams: WeakSet[NoticeStream] = WeakSet()
        self._handles: list[NoticeHandle] = []
        self._running = False

    def stream(self, start: Callable[[], Awaitable[object]]) -> NoticeStream:
        """Return a new stream of notices; ``start`` is awaited before each read."""
        stream = NoticeStream(self, start, self._size)
        self._streams.add(stream)
        return stream

    def forget(self, stream: NoticeStream) -> None:
        """Hand it no more notices."""
        self._streams.discard(stream)

    def add(self, callback: NoticeCallback) -> NoticeHandle:
        """Call a function with every notice from now on."""
        if not callable(callback):
            raise ValueError(f"the callback must be callable, not {callback!r:.80}")
        handle = NoticeHandle(self, callback, self._size)
        self._handles.append(handle)
        if self._running:
            handle.task = asyncio.get_running_loop().create_task(self._serve(handle))
        return handle

    def remove(self, handle: NoticeHandle) -> None:
        """Call its function no more."""
        if handle in self._handles:
            self._handles.remove(handle)
        handle.buffer.close()
        if handle.task is not None and handle.task is not _current_task():
            handle.task.cancel()

    def start(self) -> None:
        """Begin to call the callbacks. Needs a running event loop."""
        self._running = True
        for handle in self._handles:
            if handle.task is None:
                handle.task = asyncio.get_running_loop().create_task(self._serve(handle))

    def publish(self, notice: Notice) -> None:
        """Hand a notice to everyone, without waiting for anyone."""
        for stream in self._streams:
            self.dropped += not stream.buffer.put(notice)
        for handle in self._handles:
            self.dropped += not handle.buffer.put(notice)

    async def aclose(self, spare: asyncio.Task[object] | None = None) -> None:
        """End all streams and callbacks; the task ``spare`` is not cancelled, it may be the one that closes."""
        self._running = False
        for stream in list(self._streams):
            stream.buffer.close()
        tasks = [handle.task for handle in self._handles if handle.task is not None and handle.task is not spare]
        for handle in self._handles:
            handle.buffer.close()
        self._handles.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, handle: NoticeHandle) -> None:
        while (notice := await handle.buffer.get()) is not None and not handle.buffer.closed:
            started = clock.now()
            try:
                outcome = handle.callback(notice)
                if inspect.isawaitable(outcome):
                    await outcome
                elif clock.now() - started > SLOW_CALLBACK_SECONDS:
                    logger.warning("a plain callback held up the event loop", extra={"callback": repr(handle.callback)})
            except Exception:
                self.callback_errors += 1
                logger.exception("a callback for notices raised", extra={"callback": repr(handle.callback)})
            # Everything else gets its turn between two notices, however many there are.
            await asyncio.sleep(0)


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
