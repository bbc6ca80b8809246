"""Tasks of Celery wait for a limit in the queue, without holding a worker and without a retry (extra ``celery``)."""

from __future__ import annotations

import sys
from typing import Any

try:
    from celery import Task
    from celery.exceptions import Retry, TaskPredicate
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.celery needs the extra 'celery': pip install 'rate-coordinator[celery]'",
        name=error.name,
    ) from error

from rate_coordinator.answers import read_exception
from rate_coordinator.integrations.deferrals import (
    GIVE_UP_AFTER,
    HOLD_SECONDS,
    KEY,
    LONGEST_SECONDS,
    Backend,
    Deferral,
    TaskLimited,
    admitted_sync,
    check_coordinator,
    check_give_up_after,
    names_of_call,
)
from rate_coordinator.sync import RateLimitCoordinator


def coordinated(
    coordinator: RateLimitCoordinator,
    backend: Backend,
    model: str | None = None,
    *,
    give_up_after: float | None = GIVE_UP_AFTER,
    base: type[Task] = Task,
) -> type[Task]:
    """Return a base for tasks that are put off while their backend is limited.

    ``@app.task(base=coordinated(coordinator, "openai"))``. A task that is refused (it raises ``RateLimited``, or an
    error that ``read_exception`` knows for a limit) is reported, and sent again for the resume time: the same task,
    with the same ID, place in its chain or chord, and ``retries``; its state is ``RETRY``. So is one that retries
    because of such an error, by ``autoretry_for`` or ``self.retry()``. One whose backend is limited is put off before
    it is called. Other errors pass through.

    A task is put off for 15 minutes at most at once, and half of ``visibility_timeout`` where that is shorter: a broker
    sends again what a worker keeps for longer. Workers keep in memory what is put off, as all that has an ETA;
    ``worker_eta_task_limit`` says how much. Where tasks are called eagerly there is no queue, and they wait. For pools
    of processes and of threads; not for gevent and eventlet.

    Args:
        coordinator: Opened with the first task, in each process of the pool anew.
        backend: What the task calls; or a function of the task's arguments that returns it, or a pair of backend and
            model.
        model: One model of it.
        give_up_after: For how long a task is put off in all, in seconds; then it fails with what it raised last. None
            puts it off for ever.
        base: What the tasks were based on otherwise.

    Raises:
        ValueError: An argument cannot be used.
    """
    check_coordinator(coordinator, RateLimitCoordinator)
    most = check_give_up_after(give_up_after)
    if not callable(backend):
        names_of_call(backend, model)
    # Celery's own would push another request, which knows nothing of retries.
    calls = any("__call__" in vars(kind) for kind in base.__mro__[: base.__mro__.index(Task)])

    class CoordinatedTask(base):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            request = self.request
            if request.called_directly or request.get("admitted"):
                return super().__call__(*args, **kwargs)
            request.admitted = True
            names = names_of_call(backend, model, *args, **kwargs)
            deferral = Deferral.read((request.headers or {}).get(KEY))
            while True:
                hold = most - deferral.seconds if request.is_eager else HOLD_SECONDS
                try:
                    with admitted_sync(coordinator, *names, hold, (TaskPredicate,)):
                        return super().__call__(*args, **kwargs) if calls else self.run(*args, **kwargs)
                except TaskLimited as limited:
                    _, remaining = coordinator.is_rate_limited(*names)
                    delay, deferral = deferral.next(remaining, _longest(self.app))
                    if deferral.seconds > most:
                        raise limited.cause from None
                    if not request.is_eager:
                        raise _send_again(self, delay, deferral, limited.cause) from limited.cause

        def retry(
            self, args: Any = None, kwargs: Any = None, exc: Exception | None = None, throw: bool = True, **options: Any
        ) -> Any:
            cause = exc or sys.exc_info()[1]
            if throw and cause is not None and self.request.get("admitted") and read_exception(cause).limited:
                raise cause
            return super().retry(args, kwargs, exc, throw, **options)

    return CoordinatedTask


def _longest(app: Any) -> float:
    # Of Redis and SQS. RabbitMQ has a timeout as well, of half an hour.
    timeout = (app.conf.broker_transport_options or {}).get("visibility_timeout")
    return min(LONGEST_SECONDS, timeout / 2) if timeout else LONGEST_SECONDS


def _send_again(task: Any, delay: float, deferral: Deferral, cause: Exception) -> Retry:
    """Do what ``Task.retry`` does, but for counting."""
    request = task.request
    headers = {**(request.headers or {}), KEY: str(deferral)}
    signature = task.signature_from_request(request, countdown=delay, retries=request.retries, headers=headers)
    signature.apply_async()
    return Retry(exc=cause, when=round(delay, 3), sig=signature)
