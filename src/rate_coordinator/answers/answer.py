"""What an upstream's answer says about its limits."""

from __future__ import annotations

from dataclasses import dataclass

from rate_coordinator import Reason


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer, error or output says about the upstream's limits.

    Every number is finite and at least 0. What the upstream did not tell, or told in a way that cannot be believed, is
    None: nothing is guessed.
    """

    limited: bool = False
    """Whether the upstream refused because of a limit, or because it has too much to do."""
    wait_seconds: float | None = None
    """How long it asks to wait, in seconds; None where it did not tell, and in what is no refusal."""
    reason: Reason | None = None
    """``"rate_limit"``: too many calls; ``"overloaded"``: it has too much to do, whoever calls; ``"quota"``: an
    allowance is used up, so that calling more slowly does not help. None in what is no refusal."""
    scope: str | None = None
    """Which limit: what the upstream calls it, such as ``requests``, ``tokens``, ``model``, ``global``."""
    remaining: float | None = None
    """How much is left of the limit that ``scope`` names, in its own units."""
    reset_seconds: float | None = None
    """When that limit is whole again, in seconds from now."""
    source: str | None = None
    """The header, or the field of the body as ``$.path``, that decided; ``status`` where only the status did; of
    an output, the program whose words they are."""


CLEAR = Answer()
"""Says nothing of a limit."""
