"""urllib3's own Retry beneath us: it repeats what it repeats, but for refusals."""

from __future__ import annotations

import copy
import functools
import logging

try:
    from urllib3.util import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.urllib3_retries needs the extra 'urllib3': "
        "pip install 'rate-coordinator[urllib3]'",
        name=error.name,
    ) from error

from rate_coordinator.answers import read_answer

logger = logging.getLogger(__name__)


class RetriesBeneath:
    """Takes refusals out of what urllib3 repeats by itself: it sleeps in one thread, and nobody would know of them.

    By default it repeats each one that tells how long to wait: ``Retry.respect_retry_after_header``.
    """

    def __init__(self) -> None:
        self._warned = False

    def leave_refusals(self, retries: Retry) -> Retry:
        """Return a Retry that hands refusals on. Whoever asked for them to be repeated is warned, once."""
        if not self._warned and any(_is_refusal(status, True) for status in retries.status_forcelist or ()):
            self._warned = True
            logger.warning("a Retry of urllib3 does not repeat refusals when its calls are coordinated: use attempts=")
        if isinstance(retries, _LeavesRefusals):
            return retries
        left = copy.copy(retries)
        left.__class__ = _leaving(type(retries))  # type: ignore[arg-type]
        return left


class _LeavesRefusals(Retry):
    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        return not _is_refusal(status_code, has_retry_after) and super().is_retry(method, status_code, has_retry_after)


@functools.cache
def _leaving(kind: type[Retry]) -> type[Retry]:
    # A Retry makes the next one of its own class, and users have classes of their own.
    return type(kind.__name__, (_LeavesRefusals, kind), {}) if kind is not Retry else _LeavesRefusals


@functools.cache
def _is_refusal(status: int, tells_wait: bool) -> bool:
    return read_answer(status, {"retry-after": "1"} if tells_wait else {}).limited
