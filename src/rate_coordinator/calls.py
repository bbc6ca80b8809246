"""The part of a coordinator that lets calls through, one by one and at a pace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from rate_coordinator.admission import Admission, call, check_attempts, check_priority, decorate
from rate_coordinator.engine import Engine
from rate_coordinator.hints import check_initial_rate, check_max_in_flight
from rate_coordinator.models import PaceStatus
from rate_coordinator.settings import check_timeout
from rate_coordinator.targets import Target

P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """Admits calls, and tells of the paces that were learned. ``RateLimitCoordinator`` has all of this."""

    _engine: Engine

    def admit(
        self, backend: str, model: str | None = None, *, timeout: float | None = None, priority: float = 0
    ) -> Admission:
        """Admit one call: ``async with coordinator.admit("openai") as call: …``.

        Entering waits until the backend is clear and the call's turn has come: where a refusal is remembered, the
        whole fleet keeps to a pace that it learns from them. Otherwise it is a local decision without any I/O. Leaving
        normally tells that the call was served. ``await call.limited(seconds)`` reports that it was refused, and so
        does leaving by ``RateLimited``; any other exception passes through and tells neither. ``call.waited_seconds``
        is how long entering took.

        Args:
            backend: The upstream.
            model: One model of it; the backend's own limit and pace count as well.
            timeout: Longest wait in seconds; ``None`` waits as long as it takes.
            priority: Of the calls that wait in this process, who has a lower one goes first; among equals, who came
                first.

        Returns:
            An async context manager, good for one call. Entering it raises ``LimitWaitTimeout`` when the call may not
            go within ``timeout`` (at once when the known resume time is later than that), and ``CoordinatorMisuse``
            and ``CoordinatorUnavailable`` as ``wait_until_clear`` does.

        Raises:
            ValueError: An argument cannot be used.
        """
        target = Target.of(backend, model)
        return Admission(self._engine.gate, target, check_priority(priority), check_timeout(timeout))

    async def call(
        self,
        backend: str,
        function: Callable[..., Awaitable[T]],
        *arguments: object,
        model: str | None = None,
        attempts: int = 8,
        timeout: float | None = None,
        priority: float = 0,
        **keywords: object,
    ) -> T:
        """Admit a call, make it, and make it again while it is refused.

        Args:
            backend: See ``admit``.
            function: Makes the call. It raises ``RateLimited`` when it is refused, which is reported.
            arguments: Passed to ``function``.
            model: See ``admit``.
            attempts: How often it is made at most, 1 or more.
            timeout: Longest wait before each attempt, in seconds; see ``admit``.
            priority: See ``admit``.
            keywords: Passed to ``function``. One that is called like an argument of this method needs
                ``functools.partial``.

        Returns:
            What ``function`` returns.

        Raises:
            RateLimited: The last attempt was refused as well.
            LimitWaitTimeout: It may not be made within ``timeout``.
            ValueError: An argument cannot be used.
        """
        admit = self._admits(backend, model, timeout, priority)
        return await call(admit, check_attempts(attempts), function, *arguments, **keywords)

    def paced(
        self,
        backend: str,
        model: str | None = None,
        *,
        attempts: int = 8,
        timeout: float | None = None,
        priority: float = 0,
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
        """Make each call of an async function with ``call``: ``@coordinator.paced("openai")``.

        Args:
            backend: See ``admit``.
            model: See ``admit``.
            attempts: See ``call``.
            timeout: See ``call``.
            priority: See ``admit``.

        Raises:
            ValueError: An argument cannot be used.
        """
        admit, most = self._admits(backend, model, timeout, priority), check_attempts(attempts)
        return lambda function: decorate(admit, most, function)

    def hint(
        self,
        backend: str,
        model: str | None = None,
        *,
        initial_rate: float | None = None,
        max_in_flight: int | None = None,
    ) -> None:
        """Say what is known of an upstream beforehand, so that the first calls cost less. Refusals teach the rest.

        It replaces what was said before of the same backend or model; with neither, nothing is known any more.

        Args:
            backend: The upstream.
            model: One model of it; calls of it heed what is said of the backend as well.
            initial_rate: The pace at which the whole fleet starts where none is remembered, in calls per second, above
                0. Then each call asks for its turn, also while nobody has been refused.
            max_in_flight: How many calls of it this process has under way at once, 1 or more; others wait in ``admit``.

        Raises:
            ValueError: An argument cannot be used.
        """
        rate, count = check_initial_rate(initial_rate), check_max_in_flight(max_in_flight)
        self._engine.gate.hints.give(Target.of(backend, model), rate, count)

    async def pace(self, backend: str, model: str | None = None) -> PaceStatus | None:
        """Ask Redis for the pace that was learned of a backend, or of exactly this model of it.

        Returns:
            The pace; None while nothing has to be kept to.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        target = Target.of(backend, model)
        await self._engine.ready()
        return await self._engine.pace(target)

    async def forget_pace(self, backend: str, model: str | None = None) -> bool:
        """Forget the pace that was learned of a backend, or of exactly this model of it, for everyone. Limits stay.

        Returns:
            Whether there was one.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        target = Target.of(backend, model)
        await self._engine.ready()
        return await self._engine.forget_pace(target)

    def _admits(
        self, backend: str, model: str | None, timeout: float | None, priority: float
    ) -> Callable[[], Admission]:
        # Once here, so that what cannot be used is told before the first call.
        self.admit(backend, model, timeout=timeout, priority=priority)
        return lambda: self.admit(backend, model, timeout=timeout, priority=priority)
