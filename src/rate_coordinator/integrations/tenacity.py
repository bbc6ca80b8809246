"""Strategies for tenacity: what was refused is reported, and tried again at the resume time that all share.

``@retry(retry=retry_if_limited(), wait=wait_coordinated(coordinator, "openai"))``: an async coordinator for
``AsyncRetrying`` (and async functions), one of ``rate_coordinator.sync`` for ``Retrying``.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, overload
from weakref import WeakKeyDictionary

from rate_coordinator import CoordinatorMisuse, RateLimitCoordinator, UpstreamAnswer
from rate_coordinator.answers import read_exception
from rate_coordinator.integrations.common import Names, names_of

try:
    from tenacity import AsyncRetrying, RetryCallState, wait_none
    from tenacity.retry import retry_base
    from tenacity.stop import stop_base
    from tenacity.wait import wait_base
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "this module needs the extra 'tenacity': pip install 'rate-coordinator[tenacity]'", name=error.name
    ) from error

if TYPE_CHECKING:
    from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator

__all__ = [
    "AsyncWait",
    "SyncWait",
    "read_outcome",
    "retry_if_limited",
    "stop_not_counting_limits",
    "wait_coordinated",
]

Read: TypeAlias = Callable[[object], UpstreamAnswer]
"""Tells what an outcome says of limits: what an attempt raised, or what it returned."""
Backend: TypeAlias = str | Callable[[RetryCallState], Names]
"""A name for all calls; or a function of tenacity's state that returns a name, or a name and a model."""

_sleeps_for: ContextVar[tuple[str, str | None] | None] = ContextVar("rate_coordinator_sleeps_for", default=None)
"""The limit that the next sleep of this task or thread is about; None where it is about none."""


_AT_ONCE = wait_none()


class _Returned(Exception):
    """A response that was returned, in the form in which clients raise one."""

    def __init__(self, response: object) -> None:
        super().__init__()
        self.response = response


def read_outcome(outcome: object) -> UpstreamAnswer:
    """Tell what an exception says of limits, or a response that was returned: one with a status and headers."""
    return read_exception(outcome if isinstance(outcome, BaseException) else _Returned(outcome))


class retry_if_limited(retry_base):
    """Try again what was refused because of a limit: ``retry_if_limited() | retry_if_exception_type(OSError)``.

    Args:
        read: Tells whether an outcome is a refusal.
    """

    def __init__(self, *, read: Read = read_outcome) -> None:
        self._read = read

    def __call__(self, retry_state: RetryCallState) -> bool:
        """See tenacity."""
        return self._read(_outcome(retry_state)).limited


class stop_not_counting_limits(stop_base):
    """Stop as another strategy does, but do not count refused attempts.

    ``stop_not_counting_limits(stop_after_attempt(3))`` stops at the third attempt that failed for another reason. What
    is refused for ever is tried for ever then, unless something else stops it: ``… | stop_after_delay(600)``. Combined
    by ``&`` it has to come first.

    Args:
        stop: A strategy that looks at ``attempt_number``.
        read: Tells whether an outcome is a refusal.
    """

    def __init__(self, stop: Callable[[RetryCallState], bool], *, read: Read = read_outcome) -> None:
        self._stop = stop
        self._read = read
        self._refused: WeakKeyDictionary[RetryCallState, int] = WeakKeyDictionary()

    def __call__(self, retry_state: RetryCallState) -> bool:
        """See tenacity."""
        refused = self._refused.get(retry_state, 0) + self._read(_outcome(retry_state)).limited
        self._refused[retry_state] = refused
        counted = copy.copy(retry_state)
        counted.attempt_number -= refused
        return self._stop(counted)


@dataclass(frozen=True, slots=True)
class _Plan:
    backend: Backend
    fallback: Callable[[RetryCallState], float]
    read: Read
    report: bool
    timeout: float | None
    guess_seconds: float

    def names(self, retry_state: RetryCallState) -> tuple[str, str | None]:
        return names_of(self.backend, retry_state, None)

    def refusal(self, retry_state: RetryCallState) -> UpstreamAnswer | None:
        answer = self.read(_outcome(retry_state))
        _sleeps_for.set(self.names(retry_state) if answer.limited else None)
        return answer if answer.limited else None


class AsyncWait(wait_base):
    """What ``wait_coordinated`` returns for an async coordinator."""

    def __init__(self, coordinator: RateLimitCoordinator, plan: _Plan) -> None:
        self._coordinator = coordinator
        self._plan = plan

    async def __call__(self, retry_state: RetryCallState) -> float:  # type: ignore[override]
        """Report a refusal, and return the seconds until the shared resume time; see tenacity."""
        answer = self._plan.refusal(retry_state)
        if answer is None:
            return self._plan.fallback(retry_state)
        backend, model = self._plan.names(retry_state)
        if self._plan.report:
            await self._coordinator.observe(backend, answer, model=model, guess_seconds=self._plan.guess_seconds)
        return (await self._coordinator.is_rate_limited(backend, model))[1]

    async def before(self, retry_state: RetryCallState) -> None:
        """As ``before=``: hold every attempt until its backend is clear, the first one as well."""
        backend, model = self._plan.names(retry_state)
        await self._coordinator.wait_until_clear(backend, model, self._plan.timeout)

    async def sleep(self, seconds: float) -> None:
        """As ``sleep=``: after a refusal, sleep until the backend is clear, however that changes meanwhile."""
        limit = _sleeps_for.get()
        if limit is None:
            await asyncio.sleep(seconds)
        else:
            await self._coordinator.wait_until_clear(*limit, self._plan.timeout)


class SyncWait(wait_base):
    """What ``wait_coordinated`` returns for a coordinator of ``rate_coordinator.sync``."""

    def __init__(self, coordinator: SyncCoordinator, plan: _Plan) -> None:
        self._coordinator = coordinator
        self._plan = plan

    def __call__(self, retry_state: RetryCallState) -> float:
        """See ``AsyncWait``."""
        _check_may_block(retry_state)
        answer = self._plan.refusal(retry_state)
        if answer is None:
            return self._plan.fallback(retry_state)
        backend, model = self._plan.names(retry_state)
        if self._plan.report:
            self._coordinator.observe(backend, answer, model=model, guess_seconds=self._plan.guess_seconds)
        return self._coordinator.is_rate_limited(backend, model)[1]

    def before(self, retry_state: RetryCallState) -> None:
        """See ``AsyncWait``."""
        _check_may_block(retry_state)
        backend, model = self._plan.names(retry_state)
        self._coordinator.wait_until_clear(backend, model, self._plan.timeout)

    def sleep(self, seconds: float) -> None:
        """See ``AsyncWait``."""
        limit = _sleeps_for.get()
        if limit is None:
            time.sleep(seconds)
        else:
            self._coordinator.wait_until_clear(*limit, self._plan.timeout)


@overload
def wait_coordinated(
    coordinator: RateLimitCoordinator,
    backend: Backend,
    *,
    fallback: Callable[[RetryCallState], float] = ...,
    read: Read = ...,
    report: bool = ...,
    timeout: float | None = ...,
    guess_seconds: float = ...,
) -> AsyncWait: ...


@overload
def wait_coordinated(
    coordinator: SyncCoordinator,
    backend: Backend,
    *,
    fallback: Callable[[RetryCallState], float] = ...,
    read: Read = ...,
    report: bool = ...,
    timeout: float | None = ...,
    guess_seconds: float = ...,
) -> SyncWait: ...


def wait_coordinated(
    coordinator: RateLimitCoordinator | SyncCoordinator,
    backend: Backend,
    *,
    fallback: Callable[[RetryCallState], float] = _AT_ONCE,
    read: Read = read_outcome,
    report: bool = True,
    timeout: float | None = None,
    guess_seconds: float = 5.0,
) -> AsyncWait | SyncWait:
    """Report what was refused, also the last time, and wait until the resume time that all share.

    The result is tenacity's ``wait=``. Its ``sleep`` may be given as ``sleep=``: without it tenacity sleeps for as long
    as was known in the beginning, although the limit may be extended or cleared. Its ``before`` may be given as
    ``before=``, and holds the first attempt as well while the backend is limited.

    Args:
        coordinator: Who shares the limits.
        backend: Whom a call counts against: a name, or a function of tenacity's state.
        fallback: How long to wait before tries again that are not about a limit: another strategy.
        read: Tells what an outcome says of limits.
        report: Whether refusals are reported; False where the function does that itself, as inside ``admit``.
        timeout: Longest wait of ``sleep`` and ``before``, in seconds; they raise ``LimitWaitTimeout`` beyond it.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.

    Raises:
        ValueError: ``coordinator`` or ``backend`` is something else.
    """
    if not callable(backend) and not (backend and isinstance(backend, str)):
        raise ValueError(f"backend must be a name or a function of tenacity's state, not {backend!r:.80}")
    plan = _Plan(backend, fallback, read, report, timeout, guess_seconds)
    if isinstance(coordinator, RateLimitCoordinator):
        return AsyncWait(coordinator, plan)
    if not hasattr(coordinator, "wait_until_clear"):
        raise ValueError(f"coordinator must be a RateLimitCoordinator, not {coordinator!r:.80}")
    return SyncWait(coordinator, plan)


def _outcome(retry_state: RetryCallState) -> object:
    outcome = retry_state.outcome
    if outcome is None:
        return None
    return outcome.exception() if outcome.failed else outcome.result()


def _check_may_block(retry_state: RetryCallState) -> None:
    if isinstance(retry_state.retry_object, AsyncRetrying):
        raise CoordinatorMisuse("AsyncRetrying needs an async coordinator: this one would block the event loop")
