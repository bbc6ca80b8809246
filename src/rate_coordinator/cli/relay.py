"""Passes on what a command prints, byte by byte as it comes, and keeps its end."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import termios
import threading
import time
from contextlib import suppress

TAIL_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
LINGER_SECONDS = 1.0
"""How long programs may go on printing that a command left behind; what it printed itself is never cut off."""


class Relay:
    """The way of one stream from a command to this process's own stream.

    Where that is a terminal, the command sees one as well, of the same size.

    Args:
        ours: Where it goes, such as 1; None where that was closed.
    """

    def __init__(self, ours: int | None) -> None:
        self.is_terminal = ours is not None and os.isatty(ours)
        self.error: OSError | None = None
        """Why it could not be passed on to the end."""
        self._ours = ours
        self._tail = bytearray()
        self._source, self.theirs = os.openpty() if self.is_terminal else os.pipe()
        self._open = True
        if self.is_terminal:
            self._liken()

    @property
    def tail(self) -> bytes:
        """The last 64 KiB that came."""
        return bytes(self._tail[-TAIL_BYTES:])

    def resize(self) -> None:
        """Give the command's terminal the size of ours."""
        if self._ours is not None and self.is_terminal and self._open:
            # Gone, if it fails.
            with suppress(OSError):
                size = fcntl.ioctl(self._ours, termios.TIOCGWINSZ, bytes(8))
                fcntl.ioctl(self._source, termios.TIOCSWINSZ, size)

    async def run(self, ended: int) -> None:
        """Pass everything on.

        Args:
            ended: The reading end of a pipe that is closed when the command has ended.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            self.close()
            if not done.done():
                done.set_result(None)

        def work() -> None:
            try:
                self._pass_on(ended)
            except OSError as error:
                self.error = error
            finally:
                # The loop is closed, where nobody waits any more.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(finish)

        # A thread, because writing waits for whoever reads; and one that nobody waits for when the program ends.
        threading.Thread(target=work, name="rate_coordinator relay", daemon=True).start()
        await done

    def close(self) -> None:
        """Close this end, so that the command finds nobody reading."""
        if self._open:
            self._open = False
            os.close(self._source)

    def _liken(self) -> None:
        """Make the command's terminal like ours, but let ours alone turn newlines into what it needs."""
        assert self._ours is not None
        with suppress(termios.error):
            attributes = termios.tcgetattr(self._ours)
            attributes[1] &= ~termios.OPOST
            termios.tcsetattr(self.theirs, termios.TCSANOW, attributes)
        self.resize()

    def _pass_on(self, ended: int) -> None:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(ended, select.POLLIN)
        deadline: float | None = None
        while True:
            left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = {descriptor for descriptor, _ in poll.poll(left_ms)}
            if ended in ready:
                deadline = time.monotonic() + LINGER_SECONDS
                poll.unregister(ended)
            if self._source in ready:
                chunk = self._read()
                if not chunk:
                    return
                self._keep(chunk)
                self._write(chunk)
            elif not ready:
                return

    def _read(self) -> bytes:
        try:
            return os.read(self._source, CHUNK_BYTES)
        except OSError as error:
            # So a terminal ends that nobody has open any more.
            if error.errno == errno.EIO:
                return b""
            raise

    def _keep(self, chunk: bytes) -> None:
        self._tail += chunk
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    def _write(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left and self._ours is not None:
            try:
                left = left[os.write(self._ours, left) :]
            except BlockingIOError:
                # Somebody who shares the stream made it so.
                room = select.poll()
                room.register(self._ours, select.POLLOUT)
                room.poll()
