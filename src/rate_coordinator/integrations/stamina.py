"""``stamina.retry`` whose attempts are admitted, and whose refusals are reported and do not wait twice."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypedDict, TypeVar, Unpack, cast

from rate_coordinator import RateLimitCoordinator, UpstreamAnswer
from rate_coordinator.answers import read_exception

try:
    import stamina
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "this module needs the extra 'stamina': pip install 'rate-coordinator[stamina]'", name=error.name
    ) from error

if TYPE_CHECKING:
    from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator

__all__ = ["Options", "retry_coordinated"]

P = ParamSpec("P")
T = TypeVar("T")

Backoff: TypeAlias = bool | float | timedelta
On: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], Backoff]


class Options(TypedDict, total=False):
    """Arguments of ``stamina.retry``, which see."""

    attempts: int | None
    timeout: float | timedelta | None
    wait_initial: float | timedelta
    wait_max: float | timedelta
    wait_jitter: float | timedelta
    wait_exp_base: float


def retry_coordinated(
    coordinator: RateLimitCoordinator | SyncCoordinator,
    backend: str,
    model: str | None = None,
    *,
    on: On = (),
    read: Callable[[Exception], UpstreamAnswer] = read_exception,
    admit_timeout: float | None = None,
    priority: float = 0,
    guess_seconds: float = 5.0,
    **options: Unpack[Options],
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Retry a function with stamina, each attempt admitted: ``@retry_coordinated(coordinator, "openai", timeout=600)``.

    What a limit refused is reported and tried again; the next attempt waits in ``admit`` for the resume time and its
    turn, without stamina's back-off. Everything that stamina counts, it still counts: a wait for a limit is part of its
    ``timeout`` (45 seconds unless told otherwise), and a refused attempt is one of its ``attempts``.

    Args:
        coordinator: An async one for async functions, one of ``rate_coordinator.sync`` for others.
        backend: Whom the calls count against.
        model: One model of it.
        on: What else is tried again, with stamina's back-off: as ``on`` of ``stamina.retry``.
        read: Tells what an error says of limits.
        admit_timeout: Longest wait of one attempt in ``admit``, in seconds; a longer one raises ``LimitWaitTimeout``.
            None waits as long as it takes.
        priority: See ``admit``.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.
        options: Everything else that ``stamina.retry`` takes.

    Raises:
        ValueError: An argument cannot be used, or the function is a generator or does not fit the coordinator.
    """
    coordinator.admit(backend, model, timeout=admit_timeout, priority=priority)

    def back_off(exc: Exception) -> Backoff:
        if read(exc).limited:
            return 0.0
        return isinstance(exc, on) if isinstance(on, (type, tuple)) else on(exc)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ValueError(f"a call is what can be retried, not a generator as {function!r:.80}")
        if isinstance(coordinator, RateLimitCoordinator) is not inspect.iscoroutinefunction(function):
            raise ValueError(f"async functions need an async coordinator, others one of sync, not {coordinator!r:.80}")
        if isinstance(coordinator, RateLimitCoordinator):
            awaits = cast("Callable[P, Awaitable[object]]", function)

            @functools.wraps(awaits)
            async def attempt(*args: P.args, **kwargs: P.kwargs) -> object:
                async with coordinator.admit(backend, model, timeout=admit_timeout, priority=priority) as call:
                    try:
                        return await awaits(*args, **kwargs)
                    except Exception as exc:
                        await call.observe(read(exc), guess_seconds=guess_seconds)
                        raise

            coordinated = cast("Callable[P, T]", attempt)
        else:

            @functools.wraps(function)
            def coordinated(*args: P.args, **kwargs: P.kwargs) -> T:
                with coordinator.admit(backend, model, timeout=admit_timeout, priority=priority) as call:
                    try:
                        return function(*args, **kwargs)
                    except Exception as exc:
                        call.observe(read(exc), guess_seconds=guess_seconds)
                        raise

        return stamina.retry(on=back_off, **options)(coordinated)

    return decorate
