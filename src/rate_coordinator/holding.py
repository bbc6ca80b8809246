"""The part of a coordinator with which people hold a target by hand."""

from __future__ import annotations

from rate_coordinator.engine import Engine
from rate_coordinator.holds import read_hold, release_of
from rate_coordinator.models import ReportResult
from rate_coordinator.targets import Target


class Holding:
    """Holds targets, and releases them. ``RateLimitCoordinator`` has all of this."""

    _engine: Engine

    async def hold(self, backend: str, seconds: float, reason: str = "", *, model: str | None = None) -> ReportResult:
        """Hold a backend by hand, for everyone: a limit that only its end and ``release`` lift.

        No report shortens it, no call tries it before its time, and ``clear_limits`` leaves it. Where a report asks
        for longer, the later resume time counts, and after a release what reports asked for still does. Holding again
        replaces the hold, so that this can shorten it as well. On return, this process's reads show it.

        Args:
            backend: The upstream.
            seconds: For how long from now on, in seconds, above 0 and at most 366 days, whatever ``max_wait_seconds``.
            reason: Why, in your words, for whoever asks; at most 256 characters.
            model: Only this model of the upstream is held.

        Returns:
            Until when the target is limited now; ``extended`` is False where that is no later than before.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorUnavailable: Redis is away. Unlike a report, it is not kept: order it again. If Redis was only
                too slow, it may have been taken all the same.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        order = read_hold(Target.of(backend, model), seconds, reason)
        await self._engine.ready()
        return await self._engine.hold(order)

    async def release(self, backend: str, model: str | None = None) -> bool:
        """End a hold, for everyone at once. What reports asked for meanwhile still counts, until its own end.

        Of the calls that wait in ``admit``, one goes first, as after every limit. The pace that was learned stays.

        Args:
            backend: The upstream.
            model: The model that is held; a hold of the backend as a whole is another one.

        Returns:
            Whether it was held.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        order = release_of(Target.of(backend, model))
        await self._engine.ready()
        return await self._engine.release(order)
