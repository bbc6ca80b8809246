"""A scheduler that skips limited backends, and needs to know nothing about Redis for it.

    python examples/scheduler.py                                  all in this process
    python examples/scheduler.py --url redis://localhost:6379     limits shared with everyone on that Redis

It asks any ``RateLimitChecker``; a coordinator is one, and so is a stub of three lines in your tests. Asking costs a
look-up in memory, so that it may be done for every job in the queue, every time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rate_coordinator import CoordinatorUnavailable, RateLimitChecker, RateLimitCoordinator


@dataclass(frozen=True)
class Job:
    """Something to be done by one backend, perhaps by one model of it."""

    name: str
    backend: str
    model: str | None = None


class Scheduler:
    """Hands out jobs in order, except that those of limited backends wait for their turn.

    Args:
        jobs: What there is to do, the most urgent first.
        checker: Says which backend may be called now.
    """

    def __init__(self, jobs: Sequence[Job], checker: RateLimitChecker) -> None:
        self._jobs = list(jobs)
        self._checker = checker

    def put_back(self, job: Job) -> None:
        """Have a job done later after all: its backend refused it."""
        self._jobs.insert(0, job)

    async def next_job(self) -> Job | None:
        """Return the first job that may run, waiting for one if need be; None when all are handed out."""
        while self._jobs:
            soonest = float("inf")
            for job in self._jobs:
                limited, seconds = await self._checker.is_rate_limited(job.backend, job.model)
                if not limited:
                    self._jobs.remove(job)
                    return job
                soonest = min(soonest, seconds)
            print(f"everything is limited, the next in {soonest:.2f} s", flush=True)
            # Look again soon all the same: a limit may be cleared, or extended, while we sleep.
            await asyncio.sleep(min(soonest, 0.25))
        return None


class Upstreams:
    """Stands for the real backends; one model refuses its first call."""

    def __init__(self) -> None:
        self._refused = False

    async def call(self, job: Job) -> float | None:
        """Do a job; return None when it is done, or the ``Retry-After`` seconds of a refusal."""
        await asyncio.sleep(0.01)
        if job.model == "example-large" and not self._refused:
            self._refused = True
            return 0.5
        return None


async def work(url: str) -> None:
    """Do all jobs, and tell everyone about each refusal."""
    jobs = [
        Job("summary", "example-llm", "example-large"),
        Job("review", "example-llm", "example-large"),
        Job("title", "example-llm", "example-small"),
        Job("issue", "example-forge"),
    ]
    upstreams = Upstreams()
    async with RateLimitCoordinator.from_url(url) as coordinator:
        scheduler = Scheduler(jobs, coordinator)
        while (job := await scheduler.next_job()) is not None:
            target = job.backend if job.model is None else f"{job.backend}/{job.model}"
            retry_after = await upstreams.call(job)
            if retry_after is None:
                print(f"done     {job.name} ({target})", flush=True)
            else:
                print(f"refused  {job.name} ({target}), to be left alone for {retry_after:g} s", flush=True)
                await coordinator.report_rate_limit(job.backend, retry_after, job_id=job.name, model=job.model)
                scheduler.put_back(job)


def main() -> int:
    """Run until all jobs are done; return the exit code."""
    parser = argparse.ArgumentParser(description="A scheduler that skips limited backends.")
    parser.add_argument("--url", default=os.environ.get("RATE_COORDINATOR_URL", "memory://"))
    try:
        asyncio.run(work(parser.parse_args().url))
    except CoordinatorUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
