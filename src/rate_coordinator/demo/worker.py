"""One of the four processes: it calls an upstream, and shares what it learns about its limit.

This is all that a daemon has to do: wait until the backend is clear, call, and report a refusal.
"""

from __future__ import annotations

import sys
import time
from asyncio import Event, to_thread

from rate_coordinator import Notice, RateLimitCoordinator
from rate_coordinator.demo.calls import call
from rate_coordinator.demo.child import run_child
from rate_coordinator.demo.messages import Accepted, BackingOff, Calling, Done, Heard, Ready, Refused, tell
from rate_coordinator.demo.plan import BACKEND, WorkerJob

TOO_MANY_REQUESTS = 429


async def work(told: WorkerJob, go: Event) -> None:
    """Get a number of calls accepted."""
    async with RateLimitCoordinator.from_url(
        told.redis_url, namespace=told.namespace, reporter=told.name
    ) as coordinator:

        async def heard(notice: Notice) -> None:
            limited, seconds = await coordinator.is_rate_limited(BACKEND)
            if limited:
                tell(Heard(reporter=notice.reporter, seconds_remaining=seconds))

        coordinator.on_notice(heard)
        tell(Ready())
        await go.wait()
        for number in range(told.jobs):
            while not await attempt(told, coordinator, number):
                pass
        tell(Done())


async def attempt(told: WorkerJob, coordinator: RateLimitCoordinator, number: int) -> bool:
    """Call the upstream once, as soon as that makes sense; return whether it accepted the call."""
    limited, seconds = await coordinator.is_rate_limited(BACKEND)
    if limited:
        reporter = next((limit.reporter for limit in coordinator.limits), "")
        tell(BackingOff(seconds_remaining=seconds, reporter=reporter))
        await coordinator.wait_until_clear(BACKEND)

    tell(Calling())
    sent_at = time.monotonic()
    reply = await to_thread(call, told.upstream, "POST", f"/{told.account}")

    if reply.status == TOO_MANY_REQUESTS:
        tell(Refused(retry_after_seconds=reply.retry_after_seconds))
        await coordinator.report_rate_limit(
            BACKEND, reply.retry_after_seconds, job_id=told.name, sheet_num=number, sent_at=sent_at
        )
        return False
    tell(Accepted())
    return True


if __name__ == "__main__":
    job = WorkerJob.model_validate_json(sys.argv[1])
    run_child(lambda go: work(job, go))
