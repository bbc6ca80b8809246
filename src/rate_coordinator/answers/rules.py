"""What is known of a provider, as data: how to tell its answers, its refusals, its waits and its limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from rate_coordinator import Reason
from rate_coordinator.answers.look import Look
from rate_coordinator.answers.quantities import Unit


@dataclass(frozen=True, slots=True)
class Clue:
    """Something that an answer has, or does not have.

    Args:
        place: Where: the name of a header, in lower case and with a ``*`` at its end for all that begin so; or
            ``$.path.to.field`` of a JSON body, with ``*`` for every item of a list; or ``$``, the body's text.
        pattern: A regular expression that is searched for there, whatever the case. Empty: anything will do.
        missing: True for a clue that holds where nothing like that is found.
    """

    place: str
    pattern: str = ""
    missing: bool = False
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", re.compile(self.pattern, re.IGNORECASE))

    def holds(self, look: Look) -> bool:
        """Tell whether an answer has it."""
        if self.place.endswith("*") and not self.place.startswith("$"):
            found = any(name.startswith(self.place[:-1]) for name in look.headers)
        else:
            found = any(self._compiled.search(text) for text in look.texts(self.place))
        return found is not self.missing


@dataclass(frozen=True, slots=True)
class Verdict:
    """What answers with certain clues are. The first verdict of a provider that fits decides.

    Args:
        reason: Why they refuse; None for answers that look like a refusal and are none.
        clues: All of them have to hold.
        statuses: The HTTP statuses that come into question; empty for all.
        scope: Which limit it was.
        scope_from: Where the answer tells which limit it was; counts before ``scope``.
        heed_waits: Whether the waits count that such an answer tells. False where they are known to be of another
            limit: a day's quota does not come back in the seconds that a minute's limit needs.
    """

    reason: Reason | None
    clues: tuple[Clue, ...] = ()
    statuses: tuple[int, ...] = ()
    scope: str | None = None
    scope_from: str | None = None
    heed_waits: bool = True

    def fits(self, look: Look) -> bool:
        """Tell whether an answer is one of these."""
        return (not self.statuses or look.status in self.statuses) and all(clue.holds(look) for clue in self.clues)


@dataclass(frozen=True, slots=True)
class Wait:
    """Where a refusal tells how long to wait.

    Args:
        place: As in ``Clue``, without ``*`` at the end of a header's name.
        unit: How it is written there.
        pattern: A regular expression whose first group is the wait, for one that stands in a sentence.
    """

    place: str
    unit: Unit = "auto"
    pattern: str = ""
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", re.compile(self.pattern, re.IGNORECASE))

    def told(self, look: Look) -> list[object]:
        """Return what stands there, unread."""
        if not self.pattern:
            return look.values(self.place)
        return [found[1] for text in look.texts(self.place) if (found := self._compiled.search(text))]


@dataclass(frozen=True, slots=True)
class Level:
    """How much of one limit is left, as an answer tells it."""

    scope: str | None
    remaining: float | None
    limit: float | None
    reset_seconds: float | None
    place: str
    """Where it stands."""
    spent: bool | None = None
    """Whether nothing is left; None where that is not told."""


@dataclass(frozen=True, slots=True)
class Window:
    """Where an answer tells how much of a limit is left.

    Args:
        place: As in ``Clue``, with ``{part}`` where ``limit``, ``remaining`` and ``reset`` stand (``{Part}`` for
            ``Limit`` and so on). ``{scope}`` in a header's name stands for whatever is found there.
        unit: How the reset is written.
        scope: Which limit it is.
        scope_from: Where the answer tells which limit it is.
        reset: Where the reset stands, if not at ``place``.
        state: Where it stands whether the limit is spent (``rejected``), if no number tells.
    """

    place: str
    unit: Unit = "auto"
    scope: str | None = None
    scope_from: str | None = None
    reset: str | None = None
    state: str | None = None


ReadWait = Callable[[Look], "tuple[float, str] | None"]
"""Works out a wait where arithmetic is needed: seconds, and the place that told them."""
ReadLevels = Callable[[Look], "list[Level]"]
"""Reads levels that no ``Window`` can describe."""


@dataclass(frozen=True, slots=True)
class Provider:
    """All that is known of the answers of one provider.

    Args:
        name: What ``provider=`` names.
        source: Where it is documented.
        signs: Any one of them tells its answers from all others'. Without one it has to be named.
        verdicts: In order; the first that fits decides. After them the general ones count: 429, 503 and 529.
        waits: Where its refusals tell a wait, next to the general places, ``Retry-After`` and ``retry-after-ms``.
        windows: Where its answers tell what is left, next to the general places.
        aliases: Other names for ``provider=``.
    """

    name: str
    source: str = ""
    signs: tuple[Clue, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    waits: tuple[Wait | ReadWait, ...] = ()
    windows: tuple[Window | ReadLevels, ...] = ()
    aliases: tuple[str, ...] = ()
