"""The oracle: a limiter in Redis that was told exactly what the upstream allows, so that no 429 is needed.

It hands out the upstream's tokens (or places in its windows) before they exist: every caller makes one round trip,
learns when its turn is, sleeps until then and calls. Nobody polls, and no token is left lying.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.harness import monotonic_ns
from benchmarks.herd.policies import FixedWindow, Policy, TokenBucket

MICROSECOND_NS = 1_000
SECOND_US = 1_000_000
SLACK_SECONDS = 0.05
"""Who has to wait calls so much later: the upstream counts from the first call, which may be longer on its way."""


class Oracle:
    """One process's access to the limiter.

    Args:
        redis: Where it is; the client's connections are the caller's business.
        key: The limiter's state.
        policy: What the upstream allows.
        start_ns: When the upstream began.
    """

    def __init__(self, redis: Redis, key: str, policy: Policy, start_ns: int) -> None:
        self._redis = redis
        self._text, self._arguments = script_of(policy, start_ns)
        self._key = key
        self._script = redis.register_script(self._text)

    async def prepare(self, callers: int) -> None:
        """Do before the start what would make the first turns late: open a connection for each, load the script."""
        await asyncio.gather(*(self._redis.script_load(self._text) for _ in range(callers)))

    async def turn(self) -> None:
        """Take the next turn there is and wait for it."""
        wait_us = await self._script([self._key], [monotonic_ns() // MICROSECOND_NS, *self._arguments])
        if wait_us:
            await asyncio.sleep(int(wait_us) / SECOND_US + SLACK_SECONDS)


def script_of(policy: Policy, start_ns: int) -> tuple[str, list[int]]:
    """Return the script for a policy, and its arguments after the time."""
    match policy:
        case TokenBucket():
            return _read("bucket"), [round(SECOND_US / policy.rate), policy.burst]
        case FixedWindow():
            origin_us = policy.origin_ns(start_ns) // MICROSECOND_NS
            return _read("window"), [origin_us, round(policy.window_seconds * SECOND_US), policy.limit]
    raise TypeError(f"no oracle knows {policy}")


def _read(name: str) -> str:
    return Path(__file__).with_name(f"{name}.lua").read_text(encoding="utf-8")
