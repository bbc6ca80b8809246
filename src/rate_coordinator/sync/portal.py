"""A thread with an event loop of its own, and the way into it for every other thread."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Literal, TypeVar

from rate_coordinator import CoordinatorClosed, CoordinatorMisuse, ForkedCoordinator

logger = logging.getLogger(__name__)

T = TypeVar("T")

CANCEL_SECONDS = 5.0
"""How long a caller who was interrupted waits for what it had begun to end."""
GRACE_SECONDS = 1.0
"""How much longer than its farewell the end of a thread may take."""


class Portal:
    """Runs coroutines for threads that cannot await. Its own thread starts with the first, and ends with ``close``.

    Args:
        farewell: Awaited in the loop before it ends.
        farewell_seconds: How long that may take.
    """

    def __init__(self, farewell: Callable[[], Awaitable[object]], farewell_seconds: float) -> None:
        self.state: Literal["open", "closed", "forked"] = "open"
        self._farewell = farewell
        self._farewell_seconds = farewell_seconds
        # A signal's handler may come back to it in the same thread.
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ending = asyncio.Event()
        self._warned = False

    def run(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        undo: Callable[[], Awaitable[object]] | None = None,
        blocks: bool = True,
    ) -> T:
        """Await something in the loop, and return or raise what it does.

        Args:
            function: Makes what is awaited. It is cancelled when the thread that waits for it is interrupted.
            undo: Awaited then if it was too late for that: nobody will ever see the result.
            blocks: Whether it may take long enough to be a nuisance in the thread of another event loop.

        Raises:
            CoordinatorMisuse: It is closed, belongs to another process, or this is its own thread.
        """
        if threading.current_thread() is self._thread:
            raise CoordinatorMisuse("the coordinator's own thread cannot wait for itself: use another thread")
        if blocks and not self._warned and _in_event_loop():
            self._warned = True
            logger.warning("a sync coordinator blocks the event loop that runs in this thread: use the async one there")
        call = _Call(function, undo)
        try:
            with self._lock:
                self._open()
                if not self.soon(call.begin):
                    raise CoordinatorClosed("the coordinator is closed")
            call.ended.wait()
        except BaseException:
            # Before the caller goes on, what it held has to be given back.
            given_up = threading.Event()
            if self.soon(call.give_up, given_up):
                given_up.wait(CANCEL_SECONDS)
            raise
        return call.result()

    def apply(self, function: Callable[[], T]) -> T:
        """Call a plain function where nobody else is at work: in the loop, or here as long as there is none.

        Raises:
            CoordinatorMisuse: See ``run``.
        """

        async def applied() -> T:
            return function()

        with self._lock:
            if self._thread is None:
                self._check()
                return function()
        return self.run(applied, blocks=False)

    def spawn(self, function: Callable[[], Awaitable[object]]) -> None:
        """Await something in the loop, if there is one, without waiting for it here. See ``soon``."""
        self.soon(_Call(function, None).begin)

    def soon(self, function: Callable[..., object], *arguments: object) -> bool:
        """Have a plain function called in the loop, without waiting; return False if there is none.

        It takes no lock, so that a finaliser can call it wherever it runs.
        """
        if self._loop is None or self.state == "forked":
            return False
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True

    def close(self) -> None:
        """Say farewell, and end the thread. It takes no longer than was promised; safe to call twice.

        Raises:
            CoordinatorMisuse: This is its own thread.
        """
        if threading.current_thread() is self._thread:
            raise CoordinatorMisuse("the coordinator's own thread cannot wait for itself: use another thread")
        with self._lock:
            thread = self._thread
            self.state = "closed"
            self.soon(self._ending.set)
        if thread is not None:
            thread.join(self._farewell_seconds + GRACE_SECONDS)
            if thread.is_alive():
                logger.warning("a coordinator's thread did not end in time")
            _started.discard(self)

    def forked(self) -> None:
        """In a forked child: its thread is not here, and whoever held its lock is not either."""
        self.state = "forked"
        self._lock = threading.RLock()

    def _open(self) -> None:
        self._check()
        if self._loop is None:
            loop = asyncio.SelectorEventLoop()
            self._thread = threading.Thread(target=self._serve, args=(loop,), name="rate_coordinator", daemon=True)
            self._loop = loop
            _started.add(self)
            try:
                self._thread.start()
            except RuntimeError:
                # No more threads, or the interpreter is ending.
                _started.discard(self)
                self._thread = self._loop = None
                loop.close()
                raise

    def _check(self) -> None:
        if self.state == "forked":
            raise ForkedCoordinator("what was begun before a fork belongs to the parent: begin anew in the child")
        if self.state == "closed":
            raise CoordinatorClosed("the coordinator is closed")

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        # What is left at the end is cancelled, so that nobody waits for it any more.
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._ending.wait()
        try:
            async with asyncio.timeout(self._farewell_seconds):
                await self._farewell()
        except TimeoutError:
            logger.warning("a coordinator could not be closed in time")


class _Call(Generic[T]):
    """Something that is awaited in the loop, for a thread that waits for its end."""

    def __init__(self, function: Callable[[], Awaitable[T]], undo: Callable[[], Awaitable[object]] | None) -> None:
        self.ended = threading.Event()
        self._function = function
        self._undo = undo
        self._task: asyncio.Task[T] | None = None
        self._giving_up: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda _: self.ended.set())

    def give_up(self, given_up: threading.Event) -> None:
        self._giving_up = asyncio.get_running_loop().create_task(self._give_up())
        self._giving_up.add_done_callback(lambda _: given_up.set())

    def result(self) -> T:
        assert self._task is not None
        try:
            return self._task.result()
        except asyncio.CancelledError:
            raise CoordinatorClosed("the coordinator was closed meanwhile") from None

    async def _run(self) -> T:
        return await self._function()

    async def _give_up(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and self._task.exception() is None and self._undo is not None:
            await self._undo()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_started: set[Portal] = set()
_inherited: list[Portal] = []
"""Kept for ever in a forked child: what finalises the parent's loop would reach into the parent."""


def _after_fork() -> None:
    _inherited.extend(_started)
    _started.clear()
    for portal in _inherited:
        portal.forked()


def _at_exit() -> None:
    for portal in list(_started):
        with suppress(CoordinatorMisuse):
            portal.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
