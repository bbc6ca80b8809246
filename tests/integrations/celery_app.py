"""The tasks that ``test_celery.py`` has run."""

from __future__ import annotations

from typing import Any

from celery import Celery

from rate_coordinator import RateLimited
from rate_coordinator.integrations import deferrals
from rate_coordinator.integrations.celery import coordinated
from rate_coordinator.sync import RateLimitCoordinator
from tests.integrations.workers import URL, Upstream

# The tests would wait for it.
deferrals.JITTER_SECONDS = 0.05

app = Celery("tests", broker=URL, backend=URL)
app.conf.update(
    worker_prefetch_multiplier=1,
    broker_transport_options={"polling_interval": 0.05},
    broker_connection_retry_on_startup=True,
)
coordinator = RateLimitCoordinator.from_url(URL)
upstream = Upstream(URL)


def names(name: str, *_: object) -> tuple[str, str]:
    return name, "large"


base = coordinated(coordinator, names, give_up_after=20)


def ask(task: Any, name: str, value: int = 1) -> int:
    upstream.call(name, task.request.retries)
    return value


ask_early = app.task(ask, name="ask_early", base=base, bind=True, max_retries=0)
ask_late = app.task(ask, name="ask_late", base=base, bind=True, max_retries=0, acks_late=True)
ask_always = app.task(ask, name="ask_always", base=base, bind=True, autoretry_for=(Exception,), max_retries=0)


@app.task(base=base, bind=True, name="ask_retrying", max_retries=1)  # type: ignore[untyped-decorator]
def ask_retrying(task: Any, name: str, value: int = 1) -> int:
    try:
        return ask(task, name, value)
    except Exception as error:
        raise task.retry(exc=error, countdown=0) from error


@app.task(base=base, bind=True, name="ask_again", max_retries=1)  # type: ignore[untyped-decorator]
def ask_again(task: Any, name: str, value: int = 1) -> int:
    try:
        return ask(task, name, value)
    except Exception:
        # Leaves a task that is sent again, and goes on: what comes after it is no refusal.
        again = task.retry(throw=False, countdown=0)
    raise again from RateLimited(30)


@app.task(base=base, bind=True, name="ask_bare", max_retries=0)  # type: ignore[untyped-decorator]
def ask_bare(task: Any, name: str, value: int = 1) -> int:
    try:
        return ask(task, name, value)
    except Exception:
        raise task.retry(countdown=0) from None


@app.task(name="beside")  # type: ignore[untyped-decorator]
def beside(name: str) -> None:
    upstream.call(name)


@app.task(name="add")  # type: ignore[untyped-decorator]
def add(numbers: list[int] | int, more: int = 0) -> int:
    return more + (sum(numbers) if isinstance(numbers, list) else numbers)
