"""Coordinates what Google's client libraries call and repeat (extra ``google-api-core``)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial, wraps
from itertools import repeat
from typing import Any, Generic, Self, TypeVar, cast

try:
    from google.api_core.exceptions import RetryError
    from google.api_core.retry import (
        AsyncRetry,
        Retry,
        exponential_sleep_generator,
        if_transient_error,
        retry_target,
        retry_target_async,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.google_api_core needs the extra 'google-api-core': "
        "pip install 'rate-coordinator[google-api-core]'",
        name=error.name,
    ) from error

import rate_coordinator
from rate_coordinator import LimitWaitTimeout, ReportResult
from rate_coordinator.answers import read_exception
from rate_coordinator.sync import RateLimitCoordinator

__all__ = ["AdmissionTimeout", "CoordinatedAsyncRetry", "CoordinatedRetry", "if_limited"]

Coordinator = TypeVar("Coordinator", bound=RateLimitCoordinator | rate_coordinator.RateLimitCoordinator)
T = TypeVar("T")


class AdmissionTimeout(RetryError, LimitWaitTimeout):
    """A call was not made (again), because its limit outlasts the timeout; ``cause`` is the last refusal, if any."""


def if_limited(
    coordinator: RateLimitCoordinator, backend: str, model: str | None = None, *, guess_seconds: float = 5.0
) -> Callable[[Exception], bool]:
    """Return a predicate for ``Retry(predicate=…)`` that reports refusals, and tells that they can be repeated.

    It is all that a predicate can do: ``Retry`` then sleeps as it always does, and calls again too early.
    ``CoordinatedRetry`` waits as long as it has to. There is none for ``AsyncRetry``, as a predicate cannot await.

    Args:
        coordinator: Who shares the limits.
        backend: Whom the calls count against.
        model: One model of it.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.

    Raises:
        ValueError: An argument cannot be used.
    """
    if not hasattr(coordinator.admit(backend, model), "__enter__"):
        raise ValueError(f"coordinator must be a rate_coordinator.sync.RateLimitCoordinator, not {coordinator!r:.80}")

    def predicate(error: Exception) -> bool:
        answer = read_exception(error)
        coordinator.observe(backend, answer, model=model, guess_seconds=guess_seconds)
        return answer.limited

    return predicate


class Coordinated(Generic[Coordinator]):
    """Makes each attempt when its turn has come, and tells the coordinator how it went.

    For what takes a ``retry``: ``client.method(…, retry=CoordinatedRetry(coordinator, "vertex"))``; or as a decorator.
    A refusal is recognised by ``rate_coordinator.answers``, ``RetryInfo`` included, and repeated as soon as its limit
    allows it, whatever the predicate says; the predicate and the growing delays are for all other errors. What streams
    counts as served when it begins.

    Args:
        coordinator: Who shares the limits.
        backend: Whom the calls count against.
        model: One model of it.
        predicate: Which errors are repeated that are no refusals.
        initial: The first delay after such an error, in seconds, above 0.
        maximum: The longest one, in seconds.
        multiplier: By how much it grows.
        timeout: How long to try, waits for limits included, in seconds; None tries without end. A limit that outlasts
            it is not waited for.
        on_error: Called with each error that is repeated.
        priority: Of the calls that wait in this process, who has a lower one goes first.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.

    Raises:
        ValueError: An argument cannot be used.
    """

    _enters: str

    def __init__(
        self,
        coordinator: Coordinator,
        backend: str,
        model: str | None = None,
        *,
        predicate: Callable[[Exception], bool] = if_transient_error,
        initial: float = 1.0,
        maximum: float = 60.0,
        multiplier: float = 2.0,
        timeout: float | None = 120.0,
        on_error: Callable[[Exception], Any] | None = None,
        priority: float = 0,
        guess_seconds: float = 5.0,
    ) -> None:
        if not hasattr(coordinator.admit(backend, model, priority=priority), self._enters):
            raise ValueError(f"coordinator is of the other kind, with or without await: {coordinator!r:.80}")
        self._admit: Callable[..., Any] = partial(coordinator.admit, backend, model, priority=priority)
        self._guess_seconds = guess_seconds
        self._settings: dict[str, Any] = {
            "predicate": predicate,
            "initial": initial,
            "maximum": maximum,
            "multiplier": multiplier,
            "timeout": timeout,
            "on_error": on_error,
        }
        self._another: Callable[..., Any] = partial(
            type(self), coordinator, backend, model, priority=priority, guess_seconds=guess_seconds
        )
        super().__init__(**self._settings)

    def with_timeout(self, timeout: float | None) -> Self:
        """Return the same with another timeout, in seconds."""
        return cast(Self, self._another(**{**self._settings, "timeout": timeout}))

    def with_predicate(self, predicate: Callable[[Exception], bool]) -> Self:
        """Return the same with another predicate."""
        return cast(Self, self._another(**{**self._settings, "predicate": predicate}))

    def with_delay(
        self, initial: float | None = None, maximum: float | None = None, multiplier: float | None = None
    ) -> Self:
        """Return the same with other delays, in seconds; None keeps what is."""
        told = {"initial": initial, "maximum": maximum, "multiplier": multiplier}
        return cast(
            Self,
            self._another(**{**self._settings, **{name: value for name, value in told.items() if value is not None}}),
        )


class CoordinatedRetry(Coordinated[RateLimitCoordinator], Retry):
    """Makes each attempt when its turn has come; see ``Coordinated``."""

    _enters = "__enter__"

    def __call__(self, func: Callable[..., T], on_error: Callable[[Exception], Any] | None = None) -> Callable[..., T]:
        """Return a function whose calls are coordinated and repeated."""

        @wraps(func)
        def coordinated(*arguments: Any, **keywords: Any) -> T:
            tries = _Tries(self._settings, on_error)

            def attempt() -> T:
                time.sleep(tries.delay())
                with ExitStack() as stack:
                    try:
                        call = stack.enter_context(self._admit(timeout=tries.seconds_left()))
                    except LimitWaitTimeout as error:
                        raise tries.timed_out(error) from error
                    try:
                        return func(*arguments, **keywords)
                    except Exception as error:
                        tries.failed(error, call.observe(read_exception(error), guess_seconds=self._guess_seconds))
                        raise

            return cast(T, retry_target(attempt, **tries.told))

        return coordinated


class CoordinatedAsyncRetry(Coordinated[rate_coordinator.RateLimitCoordinator], AsyncRetry):
    """The same for ``async`` clients and functions; its coordinator is the async one."""

    _enters = "__aenter__"

    def __call__(
        self, func: Callable[..., Awaitable[T]], on_error: Callable[[Exception], Any] | None = None
    ) -> Callable[..., Awaitable[T]]:
        """Return an async function whose calls are coordinated and repeated."""

        @wraps(func)
        async def coordinated(*arguments: Any, **keywords: Any) -> T:
            tries = _Tries(self._settings, on_error)

            async def attempt() -> T:
                await asyncio.sleep(tries.delay())
                async with AsyncExitStack() as stack:
                    try:
                        call = await stack.enter_async_context(self._admit(timeout=tries.seconds_left()))
                    except LimitWaitTimeout as error:
                        raise tries.timed_out(error) from error
                    try:
                        return await func(*arguments, **keywords)
                    except Exception as error:
                        answer = read_exception(error)
                        tries.failed(error, await call.observe(answer, guess_seconds=self._guess_seconds))
                        raise

            return cast(T, await retry_target_async(attempt, **tries.told))

        return coordinated


class _Tries:
    """The attempts of one call."""

    def __init__(self, settings: dict[str, Any], on_error: Callable[[Exception], Any] | None) -> None:
        self._settings = settings
        self._ends_at = None if settings["timeout"] is None else time.monotonic() + settings["timeout"]
        self._delays = exponential_sleep_generator(settings["initial"], settings["maximum"], settings["multiplier"])
        self._delay = 0.0
        self._error: Exception | None = None
        self._refusal: Exception | None = None
        self._over: Exception | None = None
        self.told: dict[str, Any] = {
            "predicate": self._is_repeated,
            # Its delays are fixed before an attempt has told anything, but for the latest versions.
            "sleep_generator": repeat(0.0),
            "timeout": settings["timeout"],
            "on_error": settings["on_error"] or on_error,
        }

    def seconds_left(self) -> float | None:
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def delay(self) -> float:
        """Return how long to sleep before the next attempt, in seconds.

        Raises:
            RetryError: The time would be over by then.
        """
        left = self.seconds_left()
        if left is None or self._delay <= left:
            return self._delay
        self._over = RetryError(f"Timeout of {self._settings['timeout']:0.1f}s exceeded", self._error)
        raise self._over from self._error

    def failed(self, error: Exception, report: ReportResult | None) -> None:
        self._error = error
        self._refusal = None if report is None else error
        # What waits for its turn is woken when the limit is lifted before its time, what sleeps is not.
        waits = report is not None and report.seconds_remaining > 0
        self._delay = 0.0 if waits else next(self._delays)

    def timed_out(self, error: LimitWaitTimeout) -> AdmissionTimeout:
        self._over = AdmissionTimeout(str(error), self._refusal)  # type: ignore[no-untyped-call]
        return self._over

    def _is_repeated(self, error: Exception) -> bool:
        return error is not self._over and (error is self._refusal or self._settings["predicate"](error))
