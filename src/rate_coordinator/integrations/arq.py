"""Jobs of arq wait for a limit in the queue, without holding a worker and without using up a try (extra ``arq``)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from redis.exceptions import RedisError

try:
    from arq import ArqRedis, Retry
    from arq.constants import retry_key_prefix
    from arq.utils import to_unix_ms
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.arq needs the extra 'arq': pip install 'rate-coordinator[arq]'", name=error.name
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

Job = TypeVar("Job", bound=Callable[..., Awaitable[Any]])

KEEP_SECONDS = 88_400
"""As long as arq keeps the number of a job's tries."""


def coordinated(
    coordinator: RateLimitCoordinator,
    backend: Backend,
    model: str | None = None,
    *,
    give_up_after: float | None = GIVE_UP_AFTER,
) -> Callable[[Job], Job]:
    """Admit each run of a job, and put it off while its backend is limited.

    ``functions=[coordinated(coordinator, "openai")(ask)]``, or as a decorator of the job.

    A job that is refused (it raises ``RateLimited``, or an error that ``read_exception`` knows for a limit) is
    reported, and run again at the resume time: the same job, its ``job_try`` unchanged. One whose backend is limited is
    put off before it starts. Other errors pass through.

    The coordinator starts with the first job; ``aclose`` it in ``on_shutdown``. A job's own expiry goes on meanwhile:
    arq drops one that has not run a day after it was due, unless it was enqueued with ``_expires``. A worker with
    ``retry_jobs=False`` fails what is put off: arq takes nothing back into its queue then.

    Args:
        coordinator: Belongs to the worker's event loop.
        backend: What the job calls; or a function of the job's arguments (without ``ctx``) that returns it, or a pair
            of backend and model.
        model: One model of it.
        give_up_after: For how long a job is put off in all, in seconds; then it fails with what it raised last. None
            puts it off for ever.

    Raises:
        ValueError: An argument cannot be used.
    """
    check_coordinator(coordinator, RateLimitCoordinator)
    most = check_give_up_after(give_up_after)
    if not callable(backend):
        names_of_call(backend, model)

    def decorate(function: Job) -> Job:
        @functools.wraps(function)
        async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
            names = names_of_call(backend, model, *args, **kwargs)
            try:
                async with admitted(coordinator, *names, HOLD_SECONDS):
                    result = await function(ctx, *args, **kwargs)
                await _forget(ctx)
                return result
            except TaskLimited as limited:
                _, remaining = await coordinator.is_rate_limited(*names)
                redis: ArqRedis = ctx["redis"]
                key = _key(ctx)
                delay, deferral = Deferral.read(_text(await redis.get(key))).next(remaining)
                if deferral.seconds > most:
                    raise limited.cause from None
                await _put_off(redis, ctx["job_id"], key, deferral)
                raise Retry(defer=delay) from limited.cause

        return cast(Job, run)

    return decorate


def _key(ctx: dict[Any, Any]) -> str:
    # A job ID may be used again; it is another job then.
    return f"{KEY}:{ctx['job_id']}:{ctx['enqueue_time'].isoformat()}"


async def _forget(ctx: dict[Any, Any]) -> None:
    """Remove what was kept of a job that is done, unless it ran as soon as it came."""
    if "score" in ctx and ctx["score"] > to_unix_ms(ctx["enqueue_time"]):
        # Done it is, whatever becomes of this.
        with suppress(RedisError):
            await ctx["redis"].delete(_key(ctx))


async def _put_off(redis: ArqRedis, job_id: str, key: str, deferral: Deferral) -> None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.set(key, str(deferral), ex=KEEP_SECONDS)
        # Incremented by every run: so the next one is the same try again.
        pipe.decr(retry_key_prefix + job_id)
        await pipe.execute()


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
