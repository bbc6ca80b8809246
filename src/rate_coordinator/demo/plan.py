"""How much is done in the demo, and what each child process is told on its command line."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

BACKEND = "upstream"
"""The backend's name in reports."""

USUAL_SECONDS = 18.0
"""How long the demo takes unless told otherwise."""

LONGEST_SECONDS = 60.0
"""Nothing of the demo outlives this, whatever goes wrong."""

START_SECONDS = 2.0
"""About what it takes to start all the processes, both times together."""

PhaseName = Literal["alone", "together"]


class Frozen(BaseModel):
    """Data that is handed over and never changed."""

    model_config = ConfigDict(frozen=True)


class Plan(Frozen):
    """The upstream's limit, and the work that four processes do twice."""

    workers: int = 4
    calls_per_window: int = 12
    """How many calls the upstream accepts ..."""
    window_seconds: float = 2.0
    """... in each window of so many seconds. A window begins with its first call."""
    rounds: int = 4
    """How many full windows the work fills."""
    shortest_call_seconds: float = 0.08
    longest_call_seconds: float = 0.16
    """How long an accepted call takes at least and at most."""

    @classmethod
    def lasting(cls, seconds: float) -> Self:
        """Return a plan that takes about so many seconds, between 6 and 25.

        Raises:
            ValueError: ``seconds`` is not a positive number.
        """
        if not 0.0 < seconds < math.inf:
            raise ValueError(f"the demo takes a positive number of seconds, not {seconds!r}")
        window_seconds = 2.0 if seconds > 10.0 else 1.0
        # A round lasts until the Retry-After is over that tells the rest of the window, in whole seconds.
        round_seconds = window_seconds + 0.4
        rounds = 1 + round((seconds - START_SECONDS) / 2 / round_seconds)
        return cls(window_seconds=window_seconds, rounds=max(2, min(rounds, 5)))

    @property
    def jobs_per_worker(self) -> int:
        """How many calls each process has to get accepted."""
        return self.rounds * self.calls_per_window // self.workers


class RedisJob(Frozen):
    """What the keeper of Redis is told."""

    program: str
    directory: str
    """Where the server keeps its socket and log; removed with it."""


class UpstreamJob(Frozen):
    """What the upstream is told."""

    plan: Plan


class WorkerJob(Frozen):
    """What a worker is told."""

    name: str
    redis_url: str
    namespace: str
    """Workers share what they learn with those of the same namespace."""
    upstream: str
    """Where to call, ``host:port``."""
    account: PhaseName
    """On whose account to call; the upstream limits each account on its own."""
    jobs: int
    """How many calls have to be accepted."""
