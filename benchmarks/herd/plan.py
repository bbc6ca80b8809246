"""What is run: the upstreams, the fleet, and the bounds of a run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.herd.policies import FixedWindow, Policy, TokenBucket


@dataclass(frozen=True)
class Plan:
    """A fleet, how much it wants, and from whom."""

    processes: int
    tasks_per_process: int
    calls: int
    upstreams: dict[str, Policy]
    most_requests: int = 200_000
    """No run sends more."""
    most_ideals: float = 3
    """No run takes longer than so many times the ideal, and ``spare_seconds`` more."""
    spare_seconds: float = 30

    @property
    def calls_per_process(self) -> int:
        """How many calls each process makes."""
        return self.calls // self.processes

    @property
    def requests_per_process(self) -> int:
        """How many requests each process may send."""
        return self.most_requests // self.processes

    @property
    def about(self) -> str:
        """What it is, in a few words."""
        return f"{self.processes} processes of {self.tasks_per_process} tasks want {self.calls:,} calls"

    def most_seconds(self, policy: Policy) -> float:
        """Return how long a run may take before it is ended."""
        return self.most_ideals * policy.ideal_seconds(self.calls) + self.spare_seconds


FULL = Plan(
    processes=8,
    tasks_per_process=50,
    calls=2_000,
    upstreams={
        "burst-50": TokenBucket(rate=50, burst=50),
        "burst-5": TokenBucket(rate=50, burst=5),
        "window": FixedWindow(limit=500, window_seconds=10, first_seconds=7),
    },
)
QUICK = Plan(
    processes=2,
    tasks_per_process=20,
    calls=120,
    upstreams={
        "burst-50": TokenBucket(rate=50, burst=50),
        "burst-5": TokenBucket(rate=50, burst=5),
        "window": FixedWindow(limit=50, window_seconds=1, first_seconds=0.7),
    },
)
"""Too small to prove anything; the upstreams have the same names."""
