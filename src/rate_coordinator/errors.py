"""Every error that the library raises on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rate_coordinator.models import Reason


class CoordinatorError(Exception):
    """Root of all errors that the library raises on purpose."""


class CoordinatorUnavailable(CoordinatorError, ConnectionError):
    """Redis could not be reached, or did not answer within the timeout."""


class ServerUnsuitable(CoordinatorError):
    """Redis answers, but is too old or refuses something that is needed."""


class CoordinatorMisuse(CoordinatorError, RuntimeError):
    """A coordinator was used where it cannot work."""


class CoordinatorClosed(CoordinatorMisuse):
    """A coordinator was used, or still waited on, after ``aclose()``."""


class WrongEventLoop(CoordinatorMisuse):
    """A coordinator was used in another event loop than the one that it was started in."""


class ForkedCoordinator(CoordinatorMisuse):
    """A coordinator was used in a child process that inherited it through ``fork``."""


class LimitWaitTimeout(CoordinatorError, TimeoutError):
    """A limit outlasts the time that the caller is willing to wait."""


class RateLimited(CoordinatorError):
    """An upstream refused a call: yours to raise inside ``admit``, ``call`` and ``paced``, which report it.

    Args:
        wait_seconds: How long it asks to wait, in seconds; see ``RateLimitCoordinator.report_rate_limit``.
        message: What it said.
        reason: ``"rate_limit"``, ``"overloaded"`` or ``"quota"``.
    """

    def __init__(self, wait_seconds: float, message: str = "", *, reason: Reason = "rate_limit") -> None:
        # Both, so that it can be made again elsewhere: task queues send what a task raised.
        super().__init__(wait_seconds, message or f"refused; asked to wait {wait_seconds:g} s")
        self.wait_seconds = wait_seconds
        self.reason: Reason = reason

    def __str__(self) -> str:
        return str(self.args[1])
