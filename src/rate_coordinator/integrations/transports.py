"""What every HTTP integration decides: whom a request counts against, what its answer says, whether it is sent again.

Pure, and of no library: ``sending`` does what is decided here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from rate_coordinator.answers import Answer, read_answer
from rate_coordinator.integrations.common import Names, check_attempts, names_of

logger = logging.getLogger(__name__)

Request = TypeVar("Request")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is looked at of an answer."""

    status: int
    headers: Iterable[tuple[str, str]]
    """Names in any case, each as often as it was sent."""
    body: bytes | None = None
    """The beginning of its body, decoded; None where that is left alone; see ``is_telling``."""


@dataclass(frozen=True, slots=True)
class Policy(Generic[Request]):
    """How requests are coordinated.

    Args:
        backend: Whom a request counts against; see ``names_of``.
        provider: Who answers, as registered with ``rate_coordinator.answers``; None finds out by the answer.
        attempts: How often a request is sent at most, 1 or more.
        timeout: Longest wait before each attempt, in seconds; None waits as long as it takes.
        priority: Who of this process goes first; lower ones do.
        guess_seconds: How long to wait after a refusal that tells no wait, in seconds.

    Raises:
        ValueError: An argument cannot be used. ``timeout`` and ``priority`` are the coordinator's to check.
    """

    backend: str | Callable[[Request], Names] | None = None
    provider: str | None = None
    attempts: int = 1
    timeout: float | None = None
    priority: float = 0
    guess_seconds: float = 5.0

    def __post_init__(self) -> None:
        check_attempts(self.attempts)
        if self.backend is not None and not callable(self.backend) and not (self.backend and _is(self.backend, str)):
            raise ValueError(f"backend must be a name, a function of the request or None, not {self.backend!r:.80}")
        guess = self.guess_seconds
        if not _is(guess, (int, float)) or isinstance(guess, bool) or not math.isfinite(guess) or guess < 0:
            raise ValueError(f"guess_seconds must be a finite number of seconds of at least 0, not {guess!r:.80}")
        self.read(Seen(0, ()))

    def names(self, request: Request, host: str | None) -> tuple[str, str | None]:
        """Return the backend and the model that a request counts against.

        Raises:
            ValueError: There is no name.
        """
        return names_of(self.backend, request, host)

    def read(self, seen: Seen) -> Answer:
        """Tell what an answer says of limits.

        Raises:
            ValueError: ``provider`` is not registered.
        """
        return read_answer(seen.status, seen.headers, seen.body, provider=self.provider)

    def sends_again(self, answer: Answer, attempt: int, repeatable: bool) -> bool:
        """Tell whether a request is sent again.

        Args:
            answer: What was answered to it.
            attempt: How often it was sent, 1 or more.
            repeatable: Whether its body can be sent once more.
        """
        return answer.limited and repeatable and attempt < self.attempts


class RetriesAbove:
    """Warns, once, of an SDK that tries again by itself: each of its tries is a request with attempts of its own."""

    def __init__(self) -> None:
        self._warned = False

    def heed(self, headers: Mapping[str, str], backend: str) -> None:
        """Look at a request's headers.

        Args:
            headers: With names in any case.
            backend: Whom the request counts against.
        """
        # Every SDK that Stainless generates counts its tries there, those of OpenAI and Anthropic among them:
        # https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py
        if not self._warned and headers.get("x-stainless-retry-count", "0") != "0":
            self._warned = True
            logger.warning(
                "an SDK repeats calls by itself, which multiplies them: make its client with max_retries=0",
                extra={"backend": backend},
            )


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    # What users pass need not be what is annotated.
    return isinstance(value, kind)
