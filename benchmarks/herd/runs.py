"""One run: a fresh upstream, a fresh fleet, one strategy, and what came of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from benchmarks.harness import Options, child, monotonic_ns, quantile, receive, run
from benchmarks.herd.plan import Plan
from benchmarks.herd.policies import SECOND_NS, Policy
from benchmarks.herd.upstream import Request, serve
from benchmarks.herd.worker import Job, Stop, Work, work

START_NS = SECOND_NS
"""So long after all are connected they start, all at the same moment."""
REPLY_SECONDS = 30.0
"""How long a process may take to tell what came of it, after all bounds."""


@dataclass(frozen=True)
class Run:
    """What one strategy cost on one upstream."""

    strategy: str
    policy: Policy
    wanted: int
    start_ns: int
    ideal_seconds: float
    requests: tuple[Request, ...]
    """The upstream's record."""
    wall_seconds: float
    """From the start until the last call was served, or the bound was hit."""
    call_seconds: tuple[float, ...]
    """Of each call that was made."""
    stopped_by: Stop | None
    """The bound that it hit."""

    @property
    def made(self) -> int:
        """How many calls were served."""
        return len(self.call_seconds)

    @property
    def refused(self) -> int:
        """How many 429s there were."""
        return sum(not request.served for request in self.requests)

    @property
    def late(self) -> int:
        """429s to requests that were sent when the first 429 had been answered: somebody knew."""
        answers = (one.answered_ns for one in self.requests if not one.served and one.answered_ns is not None)
        known_ns = min(answers, default=None)
        if known_ns is None:
            return 0
        return sum(not one.served and one.sent_ns > known_ns for one in self.requests)

    @property
    def first_wave(self) -> int:
        """All other 429s, which nobody could have avoided who had to learn of the limit."""
        return self.refused - self.late

    @property
    def late_share(self) -> float:
        """Late 429s of all requests."""
        return self.late / len(self.requests) if self.requests else 0.0

    @property
    def to_ideal(self) -> float:
        """Wall time to the least that is possible."""
        return self.wall_seconds / self.ideal_seconds

    @property
    def p99_seconds(self) -> float:
        """How long the slowest calls took."""
        return quantile(self.call_seconds, 0.99) if self.call_seconds else 0.0


def measure(options: Options, plan: Plan, upstream: str, strategy: str) -> Run:
    """Let the fleet of a plan make its calls by one strategy."""
    return run(options, partial(_measure, options, plan, upstream, strategy))


async def _measure(options: Options, plan: Plan, upstream: str, strategy: str) -> Run:
    policy = plan.upstreams[upstream]
    most_seconds = plan.most_seconds(policy)
    with ExitStack() as children:
        server = children.enter_context(child(options, serve, policy))
        job = Job(
            port=await receive(server),
            strategy=strategy,
            namespace=f"herd at {upstream}, {strategy}",
            policy=policy,
            tasks=plan.tasks_per_process,
            calls=plan.calls_per_process,
            most_requests=plan.requests_per_process,
            most_seconds=most_seconds,
        )
        fleet = [children.enter_context(child(options, work, job)) for _ in range(plan.processes)]
        for one in fleet:
            await receive(one)
        start_ns = monotonic_ns() + START_NS
        for pipe in (server, *fleet):
            pipe.send(start_ns)
        works: list[Work] = [await receive(one, most_seconds + REPLY_SECONDS) for one in fleet]
        server.send("end")
        requests: list[Request] = await receive(server)
    _compare(works, requests)
    stops = [one.stopped_by for one in works if one.stopped_by is not None]
    return Run(
        strategy=strategy,
        policy=policy,
        wanted=plan.calls,
        start_ns=start_ns,
        ideal_seconds=policy.ideal_seconds(plan.calls),
        requests=tuple(requests),
        wall_seconds=(max(one.ended_ns for one in works) - start_ns) / SECOND_NS,
        call_seconds=tuple(seconds for one in works for seconds in one.call_seconds),
        stopped_by=stops[0] if stops else None,
    )


def _compare(works: list[Work], requests: list[Request]) -> None:
    """Make sure that the clients and the upstream tell the same story.

    Raises:
        RuntimeError: They do not.
    """
    if any(one.stopped_by is not None for one in works):
        # What was on its way when the bound was hit may be known to one side alone.
        return
    told = (sum(one.sent for one in works), sum(len(one.call_seconds) for one in works))
    recorded = (len(requests), sum(one.served for one in requests))
    if told != recorded:
        raise RuntimeError(f"the clients sent and got {told}, but the upstream's record says {recorded}")
