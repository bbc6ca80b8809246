"""One call of a thread: admitted when its target is clear and its turn has come."""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial
from types import TracebackType
from typing import Self

import rate_coordinator
from rate_coordinator import CoordinatorClosed, RateLimited, Reason, ReportResult, UpstreamAnswer
from rate_coordinator.sync.portal import Portal


class Admission:
    """One call, as ``admit`` gives it.

    Entering it waits for the back-off and for the call's turn. Leaving it normally says that the call was served;
    leaving it by ``RateLimited`` reports that; any other exception says neither.
    """

    def __init__(self, portal: Portal, admission: rate_coordinator.Admission) -> None:
        self._portal = portal
        self._admission = admission

    @property
    def waited_seconds(self) -> float:
        """How long entering took, in seconds."""
        return self._admission.waited_seconds

    def __enter__(self) -> Self:
        """Wait until the call may be made."""
        given_up = partial(self._admission.__aexit__, CancelledError, CancelledError(), None)
        self._portal.run(self._admission.__aenter__, undo=given_up)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say how the call went. In a child that was forked meanwhile that is left to the parent."""
        if self._portal.state == "forked":
            return
        try:
            self._portal.run(partial(self._admission.__aexit__, kind, error, traceback))
        except CoordinatorClosed:
            if isinstance(error, RateLimited):
                raise

    def limited(
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
        return self._portal.run(partial(self._admission.limited, wait_seconds, job_id, sheet_num, reason=reason))

    def observe(
        self,
        answer: UpstreamAnswer,
        job_id: str | None = None,
        sheet_num: int | None = None,
        *,
        guess_seconds: float = 5.0,
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
        return self._portal.run(
            partial(self._admission.observe, answer, job_id, sheet_num, guess_seconds=guess_seconds)
        )
