"""How long to wait before trying again to reach Redis."""

from __future__ import annotations

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 2.0


class Backoff:
    """Exponential back-off with full jitter.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        first_seconds: The first delay is a random time of up to this; each one doubles it.
    """

    def __init__(self, first_seconds: float = FIRST_SECONDS) -> None:
        self._first = first_seconds
        self._ceiling = first_seconds

    def next_delay(self, chance: float) -> float:
        """Return the next delay in seconds.

        Args:
            chance: A random number from 0 to 1.
        """
        delay = self._ceiling * chance
        self._ceiling = min(self._ceiling * 2, LONGEST_SECONDS)
        return delay

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._ceiling = self._first
