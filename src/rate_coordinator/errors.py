"""Every error that the library raises on purpose."""

from __future__ import annotations


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
