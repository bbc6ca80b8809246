"""What an upstream's answer says, as far as a coordinator needs it."""

from __future__ import annotations

from typing import Protocol

from rate_coordinator.models import Reason
from rate_coordinator.waits import is_finite

GUESS_SECONDS = 5.0
"""How long is waited after a refusal that tells no wait."""
QUOTA_GUESS_SECONDS = 900.0
"""Likewise, where an allowance is used up and nothing tells when it comes back: one call of the fleet tries then."""


class UpstreamAnswer(Protocol):
    """What one answer says about the upstream's limits, such as ``rate_coordinator.answers.Answer``."""

    @property
    def limited(self) -> bool:
        """Whether it is a refusal."""
        ...

    @property
    def wait_seconds(self) -> float | None:
        """How long it asks to wait, in seconds; None where it does not tell."""
        ...

    @property
    def reason(self) -> Reason | None:
        """Why it refused; None in what is no refusal."""
        ...

    @property
    def scope(self) -> str | None:
        """Which limit it speaks of; None where it does not tell."""
        ...

    @property
    def remaining(self) -> float | None:
        """How much is left of that limit; None where it does not tell."""
        ...

    @property
    def reset_seconds(self) -> float | None:
        """When that limit is whole again, in seconds from now; None where it does not tell."""
        ...


def wait_of(answer: UpstreamAnswer, guess_seconds: float) -> float:
    """Return how long to wait after a refusal, in seconds.

    Args:
        answer: A refusal.
        guess_seconds: What counts where it tells no wait; at least ``QUOTA_GUESS_SECONDS`` for a used-up allowance.
    """
    if answer.wait_seconds is not None:
        return answer.wait_seconds
    return max(guess_seconds, QUOTA_GUESS_SECONDS) if answer.reason == "quota" else guess_seconds


def check_guess(seconds: object) -> float:
    """Return how long to wait where nothing is told, in seconds.

    Raises:
        ValueError: ``seconds`` is not a finite number of at least 0.
    """
    if not is_finite(seconds) or seconds < 0:
        raise ValueError(f"guess_seconds must be a finite number of seconds of at least 0, not {seconds!r:.80}")
    return float(seconds)
