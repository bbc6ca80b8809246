"""The part of a sync coordinator that lets calls through, one by one and at a pace."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rate_coordinator import PaceStatus, RateLimited
from rate_coordinator.sync.admission import Admission
from rate_coordinator.sync.home import Home

P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """Admits calls, and tells of the paces that were learned. ``RateLimitCoordinator`` has all of this."""

    _home: Home

    def admit(
        self, backend: str, model: str | None = None, *, timeout: float | None = None, priority: float = 0
    ) -> Admission:
        """Admit one call: ``with coordinator.admit("openai") as call: …``.

        Entering waits until the backend is clear and the call's turn has come. Leaving normally tells that the call was
        served; ``call.limited(seconds)``, ``call.observe(answer)`` and leaving by ``RateLimited`` report that it was
        refused; any other exception passes through and tells neither. Who is interrupted gives the turn back.

        Args:
            backend: The upstream.
            model: One model of it; the backend's own limit and pace count as well.
            timeout: Longest wait in seconds; ``None`` waits as long as it takes.
            priority: Of the calls that wait in this process, who has a lower one goes first; among equals, who came
                first.

        Returns:
            A context manager, good for one call. Entering it raises ``LimitWaitTimeout`` when the call may not go
            within ``timeout`` (at once when that is known), and ``CoordinatorMisuse`` and ``CoordinatorUnavailable`` as
            ``wait_until_clear`` does.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorClosed: It is closed.
        """
        coordinator, portal = self._home.open()
        return Admission(portal, coordinator.admit(backend, model, timeout=timeout, priority=priority))

    def call(
        self,
        backend: str,
        function: Callable[..., T],
        *arguments: object,
        model: str | None = None,
        attempts: int = 8,
        timeout: float | None = None,
        priority: float = 0,
        **keywords: object,
    ) -> T:
        """Admit a call, make it in this thread, and make it again while it is refused.

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
        paced = self.paced(backend, model, attempts=attempts, timeout=timeout, priority=priority)
        return paced(function)(*arguments, **keywords)

    def paced(
        self,
        backend: str,
        model: str | None = None,
        *,
        attempts: int = 8,
        timeout: float | None = None,
        priority: float = 0,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Make each call of a plain function with ``call``: ``@coordinator.paced("openai")``.

        Args:
            backend: See ``admit``.
            model: See ``admit``.
            attempts: See ``call``.
            timeout: See ``call``.
            priority: See ``admit``.

        Raises:
            ValueError: An argument cannot be used.
        """
        # It tells what cannot be used before the first call.
        self._home.open().coordinator.paced(backend, model, attempts=attempts, timeout=timeout, priority=priority)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            if inspect.iscoroutinefunction(function):
                raise ValueError(f"an async function needs the async coordinator, and {function!r:.80} is one")

            @functools.wraps(function)
            def paced(*args: P.args, **kwargs: P.kwargs) -> T:
                for attempt in itertools.count(1):
                    try:
                        with self.admit(backend, model, timeout=timeout, priority=priority):
                            return function(*args, **kwargs)
                    except RateLimited:
                        if attempt >= attempts:
                            raise
                raise AssertionError("unreachable")

            return paced

        return decorate

    def hint(
        self,
        backend: str,
        model: str | None = None,
        *,
        initial_rate: float | None = None,
        max_in_flight: int | None = None,
    ) -> None:
        """Say what is known of an upstream beforehand, so that the first calls cost less. Refusals teach the rest.

        It replaces what was said before of the same backend or model; with neither, nothing is known any more. Children
        that are forked later know it as well.

        Args:
            backend: The upstream.
            model: One model of it; calls of it heed what is said of the backend as well.
            initial_rate: The pace at which the whole fleet starts where none is remembered, in calls per second, above
                0. Then each call asks for its turn, also while nobody has been refused.
            max_in_flight: How many calls of it this process has under way at once, 1 or more; others wait in ``admit``.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorClosed: It is closed.
        """
        self._home.hint(
            backend,
            model,
            lambda inner: inner.hint(backend, model, initial_rate=initial_rate, max_in_flight=max_in_flight),
        )

    def pace(self, backend: str, model: str | None = None) -> PaceStatus | None:
        """Ask Redis for the pace that was learned of a backend, or of exactly this model of it.

        Returns:
            The pace; None while nothing has to be kept to.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed.
        """
        return self._home.run(lambda inner: inner.pace(backend, model))

    def forget_pace(self, backend: str, model: str | None = None) -> bool:
        """Forget the pace that was learned of a backend, or of exactly this model of it, for everyone. Limits stay.

        Returns:
            Whether there was one.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed.
        """
        return self._home.run(lambda inner: inner.forget_pace(backend, model))
