"""This process's monotonic clock, and what is known of the Redis server's clock.

No wall clock of a client takes part in any decision. A resume time on the server's clock becomes a deadline
on this process's own monotonic clock by the *remaining* time that came with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

# A suspended machine's CLOCK_MONOTONIC stands still on Linux while the limits of others go on.
now: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds on this process's clock: only differences mean something."""

STEP_TOLERANCE_SECONDS = 0.5
"""Disagreement of two round trips about the server's clock from which it counts as having been stepped."""


def server_time(ms: int) -> datetime:
    """Return milliseconds of the server's clock as a timezone-aware time (UTC)."""
    # fromtimestamp() on a float would round the milliseconds; seconds and the rest are exact.
    seconds, rest = divmod(ms, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)


class ServerClock:
    """Relates the server's clock to this process's, and notices when the server's was stepped.

    Each round trip bounds the difference of the two clocks from both sides. When two round trips contradict each
    other, the server's clock was set, or another server answers; then ``generation`` grows by one.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._lowest: float | None = None
        self._highest = 0.0

    def observe(self, server_ms: int, sent_at: float, received_at: float) -> None:
        """Take in one round trip.

        Args:
            server_ms: The server's clock at some moment of it, in milliseconds.
            sent_at: When the request was sent, in seconds on this process's clock.
            received_at: When the reply was received.
        """
        lowest = server_ms / 1000 - received_at
        highest = server_ms / 1000 - sent_at
        if self._lowest is not None and (
            lowest > self._highest + STEP_TOLERANCE_SECONDS or highest < self._lowest - STEP_TOLERANCE_SECONDS
        ):
            self.generation += 1
        self._lowest, self._highest = lowest, highest

    def contradicted_by(self, server_ms: int, received_at: float) -> bool:
        """Tell whether a message disagrees with the last round trip: it came very late, or the clock was stepped.

        Args:
            server_ms: The server's clock when the message was sent, in milliseconds.
            received_at: When it was received, in seconds on this process's clock.
        """
        if self._lowest is None:
            return False
        difference = server_ms / 1000 - received_at
        return not self._lowest - STEP_TOLERANCE_SECONDS < difference < self._highest + STEP_TOLERANCE_SECONDS

    def hear(self, server_ms: int, received_at: float) -> None:
        """Take in a time that came with something else, of which only the receipt is known.

        That it was long on its way cannot be told from a clock that was put back; a clock put forward shows.

        Args:
            server_ms: The server's clock when it was sent, in milliseconds.
            received_at: When it was received, in seconds on this process's clock.
        """
        lowest = server_ms / 1000 - received_at
        if self._lowest is not None and lowest > self._highest + STEP_TOLERANCE_SECONDS:
            self.generation += 1
            self._lowest, self._highest = lowest, math.inf

    def age_seconds(self, server_ms: int, at: float) -> float | None:
        """Return how long ago it was so late on the server's clock, in seconds, within half a round trip.

        Args:
            server_ms: A moment on the server's clock, in milliseconds.
            at: The present one, in seconds on this process's clock.

        Returns:
            0.0 or more; None where no round trip has told the server's clock since it was last set.
        """
        if self._lowest is None or math.isinf(self._highest):
            return None
        return max(0.0, (self._lowest + self._highest) / 2 + at - server_ms / 1000)

    def estimate_ms(self, at: float) -> int | None:
        """Return the server's clock at a moment of this process's, in milliseconds; None before a round trip."""
        return None if self._lowest is None else int((self._lowest + at) * 1000)
