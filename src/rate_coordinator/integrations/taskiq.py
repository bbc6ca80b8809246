"""Tasks of taskiq wait for a limit in a schedule, without holding a worker and without a retry (extra ``taskiq``)."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

try:
    from taskiq import InMemoryBroker, ScheduledTask, ScheduleSource, TaskiqMessage, TaskiqMiddleware
    from taskiq.exceptions import NoResultError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.taskiq needs the extra 'taskiq': pip install 'rate-coordinator[taskiq]'",
        name=error.name,
    ) from error

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.integrations.deferrals import (
    GIVE_UP_AFTER,
    HOLD_SECONDS,
    KEY,
    Backend,
    Deferral,
    TaskLimited,
    admitted,
    check_coordinator,
    check_give_up_after,
    names_of_call,
)


@dataclass(frozen=True)
class _Run:
    """A task that a worker runs now: as it came, for its arguments are changed to what its function wants."""

    message: TaskiqMessage
    backend: Backend
    model: str | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


_starting: ContextVar[_Run | None] = ContextVar("rate_coordinator_taskiq", default=None)


class CoordinatedMiddleware(TaskiqMiddleware):
    """Admits each run of the tasks that have a ``backend``, and puts them off while it is limited.

    ``@broker.task(backend="openai", model="gpt-4o")``: the names are labels; ``backend`` may also be a function of the
    task's arguments that returns a backend, or a pair of backend and model. A task that is refused (it raises
    ``RateLimited``, or an error that ``read_exception`` knows for a limit) is reported, and scheduled for the resume
    time: with the same task ID, arguments and labels, no result, and nothing for the middlewares that count retries.
    One whose backend is limited is put off before its function is called. Other errors pass through.

    The scheduler has to run, and to look often: ``taskiq scheduler --update-interval 1``. On an ``InMemoryBroker``
    there is nothing to be put off to: there a task waits. Plain functions run in the event loop's default threads;
    process pools cannot run what has a ``backend``.

    Args:
        coordinator: Started and closed with the worker.
        schedule_source: Where tasks are put off to, one that can be added to, such as ``ListRedisScheduleSource``.
        give_up_after: For how long a task is put off in all, in seconds; then it fails with what it raised last. None
            puts it off for ever.

    Raises:
        ValueError: An argument cannot be used.
    """

    def __init__(
        self,
        coordinator: RateLimitCoordinator,
        schedule_source: ScheduleSource,
        *,
        give_up_after: float | None = GIVE_UP_AFTER,
    ) -> None:
        super().__init__()
        check_coordinator(coordinator, RateLimitCoordinator)
        self._coordinator = coordinator
        self._schedule_source = schedule_source
        self._give_up_after = check_give_up_after(give_up_after)
        self._wrapped: dict[str, Callable[..., Any]] = {}

    @property
    def _here(self) -> bool:
        return isinstance(self.broker, InMemoryBroker)

    async def startup(self) -> None:
        """Start the coordinator in a worker, also while its Redis is away."""
        if self.broker.is_worker_process or self._here:
            await self._coordinator.start(degraded_ok=True)

    async def shutdown(self) -> None:
        """Close the coordinator of a worker."""
        if self.broker.is_worker_process or self._here:
            await self._coordinator.aclose()

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """See to it that the task's function is called only when its backend lets it."""
        task = self.broker.find_task(message.task_name)
        labels = task.labels | message.labels if task else {}
        backend = labels.get("backend")
        if task is None or not backend:
            return message
        if callable(task.labels.get("backend")):
            # What was sent of a function is a text.
            backend = task.labels["backend"]
        if task.original_func is not self._wrapped.get(task.task_name):
            # A middleware cannot keep a task from being run otherwise.
            task.original_func = self._wrapped[task.task_name] = self._wrap(task.original_func)
        _starting.set(_Run(message, backend, labels.get("model"), tuple(message.args), dict(message.kwargs)))
        return message

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def coordinated(*args: Any, **kwargs: Any) -> Any:
            run = _starting.get()
            call = functools.partial(function, *args, **kwargs)
            return await (call() if run is None else self._run(run, call))

        @functools.wraps(function)
        def coordinated_plain(*args: Any, **kwargs: Any) -> Any:
            run = _starting.get()
            call = functools.partial(function, *args, **kwargs)
            # What is returned to the worker is awaited.
            return call() if run is None else self._run(run, functools.partial(asyncio.to_thread, call))

        return coordinated if inspect.iscoroutinefunction(function) else coordinated_plain

    async def _run(self, run: _Run, call: Callable[[], Awaitable[Any]]) -> Any:
        # A task that is called within this one is just a function.
        _starting.set(None)
        names = names_of_call(run.backend, run.model, *run.args, **run.kwargs)
        deferral = Deferral.read(run.message.labels.get(KEY))
        while True:
            hold = self._give_up_after - deferral.seconds if self._here else HOLD_SECONDS
            try:
                async with admitted(self._coordinator, *names, hold, (NoResultError,)):
                    return await call()
            except TaskLimited as limited:
                _, remaining = await self._coordinator.is_rate_limited(*names)
                delay, deferral = deferral.next(remaining)
                if deferral.seconds > self._give_up_after:
                    raise limited.cause from None
                if not self._here:
                    await self._put_off(run, delay, deferral)
                    raise NoResultError from limited.cause

    async def _put_off(self, run: _Run, delay: float, deferral: Deferral) -> None:
        await self._schedule_source.add_schedule(
            ScheduledTask(
                schedule_id=self.broker.id_generator(),
                task_id=run.message.task_id,
                task_name=run.message.task_name,
                labels={**run.message.labels, KEY: str(deferral)},
                args=list(run.args),
                kwargs=run.kwargs,
                time=datetime.now(UTC) + timedelta(seconds=delay),
            )
        )
