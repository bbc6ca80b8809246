"""One call: admitted when its target is clear and its turn has come, and afterwards said how it went."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

from rate_coordinator import clock
from rate_coordinator.dispenser import Dispenser
from rate_coordinator.errors import CoordinatorMisuse, RateLimited
from rate_coordinator.mirror import Mirror
from rate_coordinator.models import Reason, ReportResult
from rate_coordinator.targets import Target
from rate_coordinator.turns import Paces
from rate_coordinator.waiters import Waiters

P = ParamSpec("P")
T = TypeVar("T")


class Report(Protocol):
    """Reports a limit of a target; ``epoch`` is what the refused call was admitted under."""

    async def __call__(
        self, target: Target, wait_seconds: float, job_id: str | None, sheet_num: int | None, reason: Reason, epoch: int
    ) -> ReportResult:
        """Send it and tell what became of it."""
        ...


class Gate:
    """Admits calls.

    Args:
        mirror: Says what is limited.
        paces: Says where a pace has to be kept.
        waiters: Hold calls until their target is clear.
        dispenser: Has the turns.
        ready: Makes sure that the coordinator is started.
        report: Sends a report.
    """

    def __init__(
        self,
        mirror: Mirror,
        paces: Paces,
        waiters: Waiters,
        dispenser: Dispenser,
        ready: Callable[[], Awaitable[None]],
        report: Report,
    ) -> None:
        self.avoided = 0
        """Calls that were not made, or not yet, because a limit was known."""
        self.ready = ready
        self.report = report
        self._mirror = mirror
        self._paces = paces
        self._waiters = waiters
        self._dispenser = dispenser
        self._order = itertools.count()

    async def enter(self, target: Target, priority: float, gives_up_at: float | None) -> int:
        """Wait until a call may go; return the epoch that it is admitted under.

        Raises:
            LimitWaitTimeout: It may not go in time; raised at once when that is known.
        """
        if not self._paces.forgotten_at and self._mirror.lifts_at(target) <= clock.now():
            # Nobody has been refused: what is left of it all is a look-up.
            return 0
        order = next(self._order)
        paced = [target] if target.model is None else [target, Target(target.backend)]
        held = False
        while True:
            if self._mirror.lifts_at(target) > clock.now():
                self.avoided += not held
                held = True
                await self._waiters.wait([target], gives_up_at)
            epochs: dict[Target, int] = {}
            try:
                for one in paced:
                    if self._paces.remembered(one, clock.now()):
                        epochs[one] = await self._dispenser.turn(one, priority, order, gives_up_at)
            except BaseException:
                self._give_back(epochs)
                raise
            # A limit may have come between the turn and this moment; it is waited for in the old place of the queue.
            if self._mirror.lifts_at(target) <= clock.now():
                known = self._paces.get(target)
                return epochs.get(target, known.epoch if known else 0)
            self._give_back(epochs)

    def served(self, target: Target) -> None:
        """A call was served."""
        self._dispenser.served(target)
        if target.model is not None:
            self._dispenser.served(Target(target.backend))

    def _give_back(self, epochs: dict[Target, int]) -> None:
        for target, epoch in epochs.items():
            self._dispenser.give_back(target, epoch)


class Admission:
    """One call, as ``admit`` gives it.

    Entering it waits for the back-off and for the call's turn. Leaving it normally says that the call was served;
    leaving it by ``RateLimited`` reports that; any other exception says neither.
    """

    def __init__(self, gate: Gate, target: Target, priority: float, timeout: float | None) -> None:
        self.waited_seconds = 0.0
        """How long entering took, in seconds."""
        self._gate = gate
        self._target = target
        self._priority = priority
        self._timeout = timeout
        self._epoch: int | None = None
        self._refused = False

    async def __aenter__(self) -> Self:
        """Wait until the call may be made."""
        if self._epoch is not None:
            raise CoordinatorMisuse("an admission is good for one call: admit each one anew")
        began = clock.now()
        await self._gate.ready()
        gives_up_at = None if self._timeout is None else began + self._timeout
        self._epoch = await self._gate.enter(self._target, self._priority, gives_up_at)
        self.waited_seconds = clock.now() - began
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say how the call went."""
        if isinstance(error, RateLimited) and not self._refused:
            await self.limited(error.wait_seconds, reason=error.reason)
        elif error is None and not self._refused:
            self._gate.served(self._target)

    async def limited(
        self,
        wait_seconds: float,
        job_id: str | None = None,
        sheet_num: int | None = None,
        *,
        reason: Reason = "rate_limit",
    ) -> ReportResult:
        """Report that this call was refused.

        Args:
            wait_seconds: How long the upstream asks to wait, in seconds; see ``report_rate_limit``.
            job_id: See ``report_rate_limit``.
            sheet_num: See ``report_rate_limit``.
            reason: See ``report_rate_limit``. Only ``"rate_limit"`` teaches the pace anything.

        Returns:
            What became of the report.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorMisuse: The call has not been admitted yet, or the coordinator is closed.
        """
        if self._epoch is None:
            raise CoordinatorMisuse("a call can be refused only after it was admitted: use 'async with'")
        self._refused = True
        return await self._gate.report(self._target, wait_seconds, job_id, sheet_num, reason, self._epoch)


async def call(
    admit: Callable[[], Admission],
    attempts: int,
    function: Callable[P, Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Admit and make a call, again and again while it raises ``RateLimited``."""
    for attempt in itertools.count(1):
        try:
            async with admit():
                return await function(*args, **kwargs)
        except RateLimited:
            if attempt >= attempts:
                raise
    raise AssertionError("unreachable")


def decorate(
    admit: Callable[[], Admission], attempts: int, function: Callable[P, Awaitable[T]]
) -> Callable[P, Awaitable[T]]:
    """Return a function that makes each of its calls with ``call``."""

    @functools.wraps(function)
    async def paced(*args: P.args, **kwargs: P.kwargs) -> T:
        return await call(admit, attempts, function, *args, **kwargs)

    return paced


def check_attempts(attempts: object) -> int:
    """Return how often a call is made at most.

    Raises:
        ValueError: ``attempts`` is not a whole number of at least 1.
    """
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        raise ValueError(f"attempts must be a whole number of at least 1, not {attempts!r:.80}")
    return attempts


def check_priority(priority: object) -> float:
    """Return a priority.

    Raises:
        ValueError: ``priority`` is not a finite number.
    """
    if not isinstance(priority, (int, float)) or isinstance(priority, bool) or not math.isfinite(priority):
        raise ValueError(f"priority must be a finite number, not {priority!r:.80}")
    return priority
