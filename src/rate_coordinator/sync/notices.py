"""Notices for those who do not await: as an iterator, or by a callback in a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

import rate_coordinator
from rate_coordinator import CoordinatorMisuse, Notice
from rate_coordinator.sync.portal import Portal

NoticeCallback = Callable[[Notice], object]
"""What ``on_notice`` takes: a plain function of one notice."""


class NoticeStream:
    """An iterator over notices, from the moment that it was made. Each read waits for the next one.

    It ends when it or the coordinator is closed, by whichever thread. What a slow reader loses is counted in
    ``dropped``.
    """

    def __init__(self, portal: Portal, stream: rate_coordinator.NoticeStream) -> None:
        self._portal = portal
        self._stream = stream
        # The loop goes through its streams: it must be the one to let go of one that nobody reads any more.
        weakref.finalize(self, portal.spawn, stream.aclose).atexit = False

    @property
    def dropped(self) -> int:
        """Notices that were lost because they were not read in time."""
        return self._stream.dropped

    def __iter__(self) -> Iterator[Notice]:
        """Return itself."""
        return self

    def __next__(self) -> Notice:
        """Return the next notice, starting the coordinator if need be."""
        try:
            return self._portal.run(self._stream.__anext__)
        except (StopAsyncIteration, rate_coordinator.CoordinatorClosed):
            raise StopIteration from None

    def close(self) -> None:
        """Stop listening. Reading on ends the iteration, also for a thread that waits in it."""
        with suppress(CoordinatorMisuse):
            self._portal.run(self._stream.aclose, blocks=False)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.close()


class NoticeHandle:
    """What ``on_notice`` returns."""

    def __init__(self, callback: NoticeCallback) -> None:
        _check_plain(callback)
        self.cancelled = False
        """Whether ``cancel`` was called."""
        self._callback = callback
        self._portal: Portal | None = None
        self._handle: rate_coordinator.NoticeHandle | None = None

    def __repr__(self) -> str:
        return f"<NoticeHandle of {self._callback!r:.80}>"

    @property
    def dropped(self) -> int:
        """Notices that were lost because the callback was too slow."""
        return self._handle.dropped if self._handle else 0

    def listen(self, coordinator: rate_coordinator.RateLimitCoordinator, portal: Portal) -> None:
        """Hear what a coordinator hears, from now on."""
        self._portal, self._handle = portal, coordinator.on_notice(self._deliver)

    def cancel(self) -> None:
        """Call the callback no more. One call that is under way goes on."""
        self.cancelled = True
        if self._portal is not None and self._handle is not None:
            with suppress(CoordinatorMisuse):
                self._portal.apply(self._handle.cancel)

    async def _deliver(self, notice: Notice) -> None:
        """Call it in a thread: it may block, or use the coordinator, and holds up nobody but itself."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Exception | None] = loop.create_future()

        def call() -> None:
            raised: Exception | None = None
            try:
                self._callback(notice)
            except Exception as error:
                raised = error
            finally:
                # Closed meanwhile: nobody wants to know.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(_settle, ended, raised)

        threading.Thread(target=call, name="rate_coordinator callback", daemon=True).start()
        raised = await ended
        if raised is not None:
            raise raised


def _check_plain(callback: object) -> None:
    if not callable(callback) or inspect.iscoroutinefunction(callback):
        raise ValueError(f"the callback must be a plain function, not {callback!r:.80}")


def _settle(ended: asyncio.Future[Exception | None], raised: Exception | None) -> None:
    if not ended.done():
        ended.set_result(raised)
