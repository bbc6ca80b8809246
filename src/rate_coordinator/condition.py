"""What is known of how it goes with Redis, told once: the first failure of an outage, and its end."""

from __future__ import annotations

import logging

from rate_coordinator import clock

logger = logging.getLogger(__name__)


class Condition:
    """Whether Redis can be heard and written to at present.

    Both have to work. An outage lasts from the moment that the first fails until both work again; it is one warning in
    the log and one line at its end, however often something fails meanwhile.

    Args:
        address: Where Redis is, as it may be shown.
    """

    def __init__(self, address: str) -> None:
        self.last_error: str | None = None
        self._address = address
        self._hears = True
        self._delivers = True
        # How long earlier outages lasted, and since when there is one: together, because other threads read them.
        self._outages: tuple[float, float | None] = (0.0, None)

    @property
    def degraded(self) -> bool:
        """Whether there is an outage."""
        return self._outages[1] is not None

    @property
    def degraded_seconds(self) -> float:
        """For how long there has been one; 0.0 when there is none."""
        _, since = self._outages
        return 0.0 if since is None else clock.now() - since

    @property
    def degraded_total_seconds(self) -> float:
        """For how long all outages lasted together, the present one included."""
        before, since = self._outages
        return before if since is None else before + clock.now() - since

    def failed(self, error: object) -> None:
        """Keep what went wrong last."""
        self.last_error = str(error)

    def hears(self, works: bool) -> None:
        """Redis can be heard and read, or it can not."""
        self._hears = works
        self._judge()

    def delivers(self, works: bool) -> None:
        """Redis takes what is reported, or it does not."""
        self._delivers = works
        self._judge()

    def closed(self) -> None:
        """Nobody hears or writes any more, which is no outage."""
        self._outages = (self.degraded_total_seconds, None)

    def _judge(self) -> None:
        fine = self._hears and self._delivers
        if fine == (not self.degraded):
            return
        told = {"address": self._address, "error": self.last_error}
        if not fine:
            self._outages = (self.degraded_total_seconds, clock.now())
            logger.warning("Redis cannot be heard or written; going on from what is known", extra=told)
            return
        logger.info(
            "Redis is heard and written again",
            extra={"address": self._address, "degraded_seconds": round(self.degraded_seconds, 3)},
        )
        self._outages = (self.degraded_total_seconds, None)
