"""Workers of task queues as processes, and the upstream that their tasks call, scripted and counted in Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis

from rate_coordinator import RateLimited
from tests.servers import START_SECONDS

ROOT = Path(__file__).parents[2]
URL = os.environ.get("QUEUE_URL", "redis://localhost:6379")
"""Where a worker finds everything."""


@dataclass(frozen=True)
class Call:
    """One call of the upstream."""

    at: float
    """By the wall clock, which all processes of a machine share, in seconds."""
    retries: int
    """What the task that made it knew of its retries."""


class Upstream:
    """Answers each call of a name as it was told to; all else is served."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True)

    def will(self, name: str, *answers: str) -> None:
        """Say how the next calls are answered: ``limited SECONDS``, ``http SECONDS``, or ``error``."""
        self._redis.rpush(f"answers {name}", *answers)

    def call(self, name: str, retries: int = 0) -> str:
        self._redis.rpush(f"calls {name}", json.dumps([time.time(), retries]))
        answer, _, seconds = str(self._redis.lpop(f"answers {name}") or "served").partition(" ")
        if answer == "limited":
            raise RateLimited(float(seconds), "come back later")
        if answer == "http":
            request = httpx.Request("GET", "http://localhost/")
            response = httpx.Response(429, headers={"Retry-After": seconds}, request=request)
            raise httpx.HTTPStatusError("too many", request=request, response=response)
        if answer == "error":
            raise KeyError("nothing of a limit")
        return answer

    def calls(self, name: str) -> list[Call]:
        return [Call(*json.loads(str(call))) for call in self._redis.lrange(f"calls {name}", 0, -1)]


@contextmanager
def worker_process(url: str, log: Path, ready: str, *arguments: str) -> Iterator[Path]:
    """Run a worker until the end of the block; ``log`` gets what it says."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, "QUEUE_URL": url},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 2 * START_SECONDS
        while ready not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{arguments[0]} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.02)
        yield log
    finally:
        # Its children as well, whatever state they are in.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(START_SECONDS)
