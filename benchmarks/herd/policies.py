"""How upstreams limit, without a network: what one would serve at which moment. Times are passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

SECOND_NS = 1_000_000_000
SHORTEST_LATENCY_SECONDS, LONGEST_LATENCY_SECONDS = 0.05, 0.2
"""An answer takes a random time between these, whatever it is."""
MEAN_LATENCY_SECONDS = (SHORTEST_LATENCY_SECONDS + LONGEST_LATENCY_SECONDS) / 2


class Gate(Protocol):
    """What decides, request by request."""

    def refuse(self, now_ns: int) -> int | None:
        """Count a request that arrives now.

        Returns:
            None if it is served, else the whole seconds of its ``Retry-After``.
        """


class Policy(Protocol):
    """What an upstream allows."""

    @property
    def about(self) -> str:
        """What it is, in a few words."""

    @property
    def rate(self) -> float:
        """Calls a second that it serves in the long run."""

    def gate(self, start_ns: int) -> Gate:
        """Return a fresh gate; the first request comes at this moment."""

    def ideal_seconds(self, calls: int) -> float:
        """Return how long so many calls take at least, the answer to the last of them included."""


@dataclass(frozen=True)
class TokenBucket:
    """So many calls a second, and up to ``burst`` at once after a pause. It is full at the start."""

    rate: float
    burst: int

    @property
    def about(self) -> str:
        """What it is, in a few words."""
        return f"{self.rate:g} calls a second, bursts of {self.burst}"

    def gate(self, start_ns: int) -> Gate:
        """Return a full bucket."""
        return _Bucket(self, start_ns)

    def ideal_seconds(self, calls: int) -> float:
        """Return when the last token falls into the bucket, and a mean latency more."""
        return max(0, calls - self.burst) / self.rate + MEAN_LATENCY_SECONDS


class _Bucket:
    def __init__(self, policy: TokenBucket, start_ns: int) -> None:
        self._policy = policy
        self._tokens = float(policy.burst)
        self._counted_at_ns = start_ns

    def refuse(self, now_ns: int) -> int | None:
        passed = max(0, now_ns - self._counted_at_ns) / SECOND_NS
        self._counted_at_ns = max(now_ns, self._counted_at_ns)
        self._tokens = min(float(self._policy.burst), self._tokens + passed * self._policy.rate)
        if self._tokens >= 1:
            self._tokens -= 1
            return None
        return max(1, math.ceil((1 - self._tokens) / self._policy.rate))


@dataclass(frozen=True)
class FixedWindow:
    """So many calls in each window; windows follow one another, whoever calls when."""

    limit: int
    window_seconds: float
    first_seconds: float
    """How much of a window is left when the first call comes."""

    @property
    def about(self) -> str:
        """What it is, in a few words."""
        return f"{self.limit} calls per window of {self.window_seconds:g} s"

    @property
    def rate(self) -> float:
        """Calls a second that it serves in the long run."""
        return self.limit / self.window_seconds

    def origin_ns(self, start_ns: int) -> int:
        """Return when the window began that the first call comes in."""
        return start_ns - round((self.window_seconds - self.first_seconds) * SECOND_NS)

    def gate(self, start_ns: int) -> Gate:
        """Return a gate whose first window is under way."""
        return _Window(self, self.origin_ns(start_ns))

    def ideal_seconds(self, calls: int) -> float:
        """Return when the last window begins that is needed, and a mean latency more."""
        later = math.ceil(calls / self.limit) - 1
        return (self.first_seconds + (later - 1) * self.window_seconds if later else 0.0) + MEAN_LATENCY_SECONDS


class _Window:
    def __init__(self, policy: FixedWindow, origin_ns: int) -> None:
        self._policy = policy
        self._origin_ns = origin_ns
        self._window_ns = round(policy.window_seconds * SECOND_NS)
        self._number = 0
        self._served = 0

    def refuse(self, now_ns: int) -> int | None:
        number, into_ns = divmod(now_ns - self._origin_ns, self._window_ns)
        if number != self._number:
            self._number, self._served = number, 0
        if self._served < self._policy.limit:
            self._served += 1
            return None
        return max(1, math.ceil((self._window_ns - into_ns) / SECOND_NS))
