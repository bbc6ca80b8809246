"""Tells how long the machine itself stood still, so that nobody is blamed for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Self

BEAT_SECONDS = 0.002
TOLD_SECONDS = 0.05
"""Shorter stalls are not told one by one."""


class Metronome:
    """Notices stalls of the machine: busy neighbours, or a processor that was given to somebody else.

    Its beat comes from a thread of its own, which whatever holds up the event loop does not hold up: waiting releases
    the interpreter, and working hands it over every few milliseconds.
    """

    def __init__(self) -> None:
        self.longest_stall = 0.0
        self._stalls: deque[tuple[float, float]] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metronome", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def take(self) -> list[tuple[float, float]]:
        """Return each stall that was noticed since the last time: from when until when, by this host's clock."""
        return [self._stalls.popleft() for _ in range(len(self._stalls))]

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.perf_counter()
            time.sleep(BEAT_SECONDS)
            stall = time.perf_counter() - began - BEAT_SECONDS
            self.longest_stall = max(self.longest_stall, stall)
            if stall > TOLD_SECONDS:
                now = time.time()
                self._stalls.append((now - stall, now))
