"""One call: admitted when its target is clear and its turn has come, and afterwards said how it went."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from rate_coordinator import clock
from rate_coordinator.errors import CoordinatorMisuse, RateLimited
from rate_coordinator.gate import Entry, Gate
from rate_coordinator.models import Reason, ReportResult
from rate_coordinator.observing import GUESS_SECONDS, UpstreamAnswer, check_guess, wait_of
from rate_coordinator.targets import Target
from rate_coordinator.waits import is_finite

P = ParamSpec("P")
T = TypeVar("T")


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
        self._entry: Entry | None = None
        self._admitted_at = 0.0
        self._refused = False

    async def __aenter__(self) -> Self:
        """Wait until the call may be made."""
        if self._entry is not None:
            raise CoordinatorMisuse("an admission is good for one call: admit each one anew")
        began = clock.now()
        await self._gate.ready()
        gives_up_at = None if self._timeout is None else began + self._timeout
        try:
            self._entry = await self._gate.enter(self._target, self._priority, gives_up_at)
            self._admitted_at = time.monotonic()
        finally:
            self.waited_seconds = clock.now() - began
            if self._gate.meters.all:
                self._gate.meters.waited(self._target, self.waited_seconds, cleared=self._entry is not None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say how the call went."""
        try:
            await self._tell(error)
        finally:
            for slots in self._entry.slots if self._entry else ():
                slots.free()

    async def _tell(self, error: BaseException | None) -> None:
        if isinstance(error, RateLimited) and not self._refused:
            await self.limited(error.wait_seconds, reason=error.reason)
        elif self._entry is not None and not self._refused:
            await self._gate.leave(self._target, self._entry, served=error is None)

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
        if self._entry is None:
            raise CoordinatorMisuse("a call can be refused only after it was admitted: use 'async with'")
        self._refused = True
        try:
            return await self._gate.report(
                self._target, wait_seconds, job_id, sheet_num, reason, self._admitted_at, self._entry.epoch
            )
        finally:
            self._gate.refused(self._entry)

    async def observe(
        self,
        answer: UpstreamAnswer,
        job_id: str | None = None,
        sheet_num: int | None = None,
        *,
        guess_seconds: float = GUESS_SECONDS,
    ) -> ReportResult | None:
        """Heed what the upstream answered to this call.

        A refusal is reported. Where the answer says that too few calls are left until a limit is whole again, the fleet
        is slowed down before it is refused: what is left is spread over that time.

        Args:
            answer: What it said; ``rate_coordinator.answers`` reads it.
            job_id: See ``report_rate_limit``.
            sheet_num: See ``report_rate_limit``.
            guess_seconds: How long to wait after a refusal that tells no wait, in seconds. Where an allowance is used
                up and nothing tells when it comes back, it is at least 15 minutes.

        Returns:
            What became of the report; None where the call was not refused.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorMisuse: The call has not been admitted yet, or the coordinator is closed.
        """
        guess = check_guess(guess_seconds)
        if not answer.limited:
            if self._entry is None:
                raise CoordinatorMisuse("a call is answered only after it was admitted: use 'async with'")
            await self._gate.spreader.observe(self._target, answer)
            return None
        return await self.limited(wait_of(answer, guess), job_id, sheet_num, reason=answer.reason or "rate_limit")


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
    if not is_finite(priority):
        raise ValueError(f"priority must be a finite number, not {priority!r:.80}")
    return priority
