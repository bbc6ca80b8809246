"""What is asked of Redis about a pace, and what it answers, as data; and what a process remembers of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rate_coordinator.targets import Target

LOOKS = -1
"""In the place of the turns that are wanted: nothing is wanted, and nothing changed."""


MUCH_FASTER = 2.0
"""A pace so many times another one is worth asking again for, by those who wait for a turn of that."""
MOST_PACES = 10_000
"""Of more targets, those whose pace is forgotten are not remembered any more."""


class TurnRequest(NamedTuple):
    """What a process asks for, and what it tells with it."""

    wanted: int
    """How many calls wait for a turn; ``LOOKS`` asks for none, and changes nothing."""
    unused: int = 0
    """Turns of an earlier answer that nobody took."""
    unused_epoch: int = 0
    """What those were granted under."""
    served: int = 0
    """Calls that were served since the last request."""
    served_ms: int = 0
    """How long ago the first of them was made, in milliseconds; 0 where the pace was known already."""


class Turns(NamedTuple):
    """Turns to call, evenly spaced; or when to ask again."""

    epoch: int
    """What calls of these turns are admitted under."""
    granted: int
    first_seconds: float
    """From the answer to the first turn; with none, until it is worth asking again."""
    spacing_seconds: float
    rate: float
    """The pace of the whole fleet, in calls per second."""
    ceiling: float
    """Where it was refused last, in calls per second; 0.0 while that is not known."""
    forgets_seconds: float
    """Until the pace is forgotten if nobody is refused meanwhile."""
    processes: int
    """How many share it at present, this one included."""
    probe_ms: int = 0
    """Where the only turn is a probe: which of the target's probes it is."""
    fleet_rate: float = 0.0
    """Turns per second that the whole fleet was granted lately."""


class Turn(NamedTuple):
    """Leave to make one call."""

    epoch: int
    """What it is admitted under."""
    probe_ms: int = 0
    """See ``Turns``."""


class Pace(NamedTuple):
    """What a process knows of the pace of one target."""

    forgotten_at: float
    """On this process's clock."""
    epoch: int = 0
    rate: float = 0.0
    ceiling: float = 0.0
    processes: int = 1
    fleet_rate: float = 0.0


@dataclass(slots=True)
class Tally:
    """Calls that were served and not told of yet."""

    since: float
    served: int = 0


class Paces:
    """What a process knows of all paces.

    ``forgotten_at`` is the path of every admission: for each target with a pace, when it is forgotten on this process's
    clock. A plain dictionary on purpose; where nothing is limited, an admission costs a look-up.
    """

    def __init__(self) -> None:
        self.forgotten_at: dict[Target, float] = {}
        self._paces: dict[Target, Pace] = {}

    def remembered(self, target: Target, at: float) -> bool:
        """Tell whether a target's pace has to be kept."""
        return self.forgotten_at.get(target, 0.0) > at

    def get(self, target: Target) -> Pace | None:
        """Return what is known of a target's pace."""
        return self._paces.get(target)

    def active(self, at: float) -> Iterator[tuple[Target, Pace]]:
        """Return every pace that is remembered."""
        # Copied whole: another thread may be reading.
        return ((target, pace) for target, pace in self._paces.copy().items() if pace.forgotten_at > at)

    def limited(self, target: Target, forgotten_at: float) -> None:
        """A target was limited: its pace is remembered at least until a moment of this process's clock."""
        known = self._paces.get(target, Pace(0.0))
        self._put(target, known._replace(forgotten_at=max(known.forgotten_at, forgotten_at)))

    def learn(self, target: Target, turns: Turns, received_at: float) -> None:
        """Take in what an answer tells."""
        forgotten_at = received_at + turns.forgets_seconds
        told = Pace(forgotten_at, turns.epoch, turns.rate, turns.ceiling, turns.processes, turns.fleet_rate)
        self._put(target, told)

    def tell(self, target: Target, rate: float | None, ceiling: float | None) -> bool:
        """The fleet was told how fast it may go now; return whether that is much faster than before."""
        known = self._paces.get(target)
        if known is None:
            return False
        self._paces[target] = known._replace(rate=rate or known.rate, ceiling=ceiling or known.ceiling)
        return rate is not None and 0 < known.rate * MUCH_FASTER < rate

    def forget(self, target: Target) -> None:
        """There is no pace of this target any more. Its epoch is: calls that are under way belong to it."""
        known = self._paces.get(target)
        if known is not None:
            self._put(target, known._replace(forgotten_at=0.0))

    def replace(self, told: dict[Target, float], *, complete: bool) -> None:
        """Take in which paces Redis remembers: until when, on this process's clock; and whether these are all."""
        for target in [target for target in self._paces if complete and target not in told]:
            self.forget(target)
        for target, forgotten_at in told.items():
            self._put(target, self._paces.get(target, Pace(0.0))._replace(forgotten_at=forgotten_at))

    def _put(self, target: Target, pace: Pace) -> None:
        if target not in self._paces and len(self._paces) >= MOST_PACES:
            for forgotten in [known for known, pace in self._paces.items() if not pace.forgotten_at]:
                del self._paces[forgotten], self.forgotten_at[forgotten]
        self._paces[target] = pace
        self.forgotten_at[target] = pace.forgotten_at
