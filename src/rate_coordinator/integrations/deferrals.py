"""What the task queues share: when a task whose backend is limited comes back, and when it does not any more."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.answers import read_exception
from rate_coordinator.integrations.common import Names, names_of

if TYPE_CHECKING:
    from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator

GIVE_UP_AFTER = 86_400.0
"""So long is a task put off in all, in seconds; what asks for more fails."""
HOLD_SECONDS = 0.5
"""So long does a task wait for its turn in a worker; if it has not come by then, the worker does something else."""
LONGEST_SECONDS = 900.0
"""A task is put off for no longer at once, in seconds: so a limit can be tried, and no broker takes it for lost."""
JITTER_SECONDS = 1.0
"""Tasks that were put off to the same resume time come back within so many seconds after it."""
LONGEST_MISS_SECONDS = 120.0

KEY = "rate_coordinator_deferral"
"""The header, label or option with which a ``Deferral`` travels."""

Backend = str | Callable[..., Names]
"""A backend for all calls of a task; or a function of their arguments that returns one, or a backend and a model."""


@dataclass(frozen=True, slots=True)
class Deferral:
    """For how long a task has been put off already; travels with it."""

    seconds: float = 0.0
    """In all."""
    missed: int = 0
    """How often in a row its turn did not come in time, though its backend was clear."""

    @classmethod
    def read(cls, text: object) -> Self:
        """Return what ``str`` made a text of; that of a new task where it is anything else."""
        try:
            seconds, missed = str(text).split()
            read = cls(float(seconds), int(missed))
        except ValueError:
            return cls()
        return read if math.isfinite(read.seconds) and min(read.seconds, read.missed) >= 0 else cls()

    def __str__(self) -> str:
        return f"{self.seconds:.3f} {self.missed}"

    def next(self, limited_seconds: float, longest: float = LONGEST_SECONDS) -> tuple[float, Deferral]:
        """Return when a task comes back, in seconds from now, and what travels with it then.

        Args:
            limited_seconds: What remains of its backend's limit; 0.0 where only its turn has not come. Those who wait
                for one come back at growing intervals, so that many of them do not take up the workers.
            longest: The answer is no longer than this, in seconds.
        """
        if limited_seconds > 0.0:
            missed, wait = 0, limited_seconds + random.uniform(0.0, JITTER_SECONDS)
        else:
            missed, wait = self.missed + 1, min(2.0 ** min(self.missed, 16), LONGEST_MISS_SECONDS)
            wait *= random.uniform(0.5, 1.0)
        wait = min(wait, longest)
        return wait, Deferral(self.seconds + wait, missed)


class TaskLimited(Exception):
    """A task cannot go now. ``cause`` says why: its own error, or that its turn has not come."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def check_coordinator(coordinator: object, wanted: type[object]) -> None:
    """See to it that what awaits gets an async coordinator, and what does not a sync one.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(coordinator, wanted):
        package = wanted.__module__.removesuffix(".coordinator")
        raise ValueError(f"coordinator must be a {package}.{wanted.__name__}, not {coordinator!r:.80}")


def check_give_up_after(seconds: object) -> float:
    """Return for how long a task is put off in all, in seconds; infinity for None.

    Raises:
        ValueError: ``seconds`` is neither None nor a number of at least 0.
    """
    if seconds is None:
        return math.inf
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
        raise ValueError(f"give_up_after must be a number of seconds of at least 0, or None, not {seconds!r:.80}")
    return float(seconds)


def names_of_call(backend: Backend, model: str | None, *args: object, **kwargs: object) -> tuple[str, str | None]:
    """Return the backend and the model that a task's call counts against.

    Raises:
        ValueError: The function for it returned no name.
    """
    named = backend(*args, **kwargs) if callable(backend) else (backend, model)
    return names_of(lambda _: named, "a task", None)


@asynccontextmanager
async def admitted(
    coordinator: RateLimitCoordinator,
    backend: str,
    model: str | None,
    hold: float,
    passing: tuple[type[Exception], ...] = (),
) -> AsyncIterator[None]:
    """Admit a task's call, and report it if it is refused.

    Args:
        coordinator: Is started if that has not been done, also while its Redis is away.
        backend: The upstream.
        model: One model of it.
        hold: Longest wait for the call's turn, in seconds; infinity waits as long as it takes.
        passing: By these a task tells its queue what to do with it, and has done so: they are no refusals.

    Raises:
        TaskLimited: It was refused, or may not go in time.
    """
    await coordinator.start(degraded_ok=True)
    try:
        async with coordinator.admit(backend, model, timeout=_timeout(hold)) as call:
            try:
                yield
            except passing:
                raise
            except Exception as error:
                answer = read_exception(error)
                if not answer.limited:
                    raise
                await call.observe(answer)
                raise TaskLimited(error) from error
    except LimitWaitTimeout as error:
        # Perhaps of something within the task that admits calls itself: that is no failure either.
        raise TaskLimited(error) from error


@contextmanager
def admitted_sync(
    coordinator: SyncCoordinator,
    backend: str,
    model: str | None,
    hold: float,
    passing: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Do the same as ``admitted`` in a thread without an event loop."""
    coordinator.start(degraded_ok=True)
    try:
        with coordinator.admit(backend, model, timeout=_timeout(hold)) as call:
            try:
                yield
            except passing:
                raise
            except Exception as error:
                answer = read_exception(error)
                if not answer.limited:
                    raise
                call.observe(answer)
                raise TaskLimited(error) from error
    except LimitWaitTimeout as error:
        raise TaskLimited(error) from error


def _timeout(seconds: float) -> float | None:
    return None if math.isinf(seconds) else max(0.0, seconds)
