"""What must hold, worked out from what the processes told they did and from which data the server was made to lose.

Pure: it is told things and asked things. All times are seconds of this host's clock, on which the server runs too.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.worker import LONGEST_WAIT_SECONDS, SETTINGS, TOLERANCE_SECONDS, Name

BEHIND_SECONDS = 0.5
"""After another server took over, limits that are this much shorter than known are not put back (see ``mirror.py``)."""

GRACE_SECONDS = 0.5
"""So much later than its timeout a call may end; while the machine stood still, nothing could."""

STALL_SECONDS = 6.0
"""A report that is on its way while server or network stand still may be carried out so much later, unshortened. No
fault lasts longer than half of that."""

CLOCK_SECONDS = 0.002
"""The server tells its time in milliseconds, rounded down."""

STOP_SLACK_SECONDS = 0.2
"""A process that was stopped needs this until it runs again."""


@dataclass
class Report:
    """A report, as its process told of it when the call had ended."""

    number: int
    target: Name
    wait: float
    made: float
    ended: float
    event: str | None
    worker: int
    died: bool = False
    """Its process was killed. What it had not delivered by then is lost with it, or not."""

    @property
    def promised(self) -> bool:
        """Whether it must not be lost: it was acknowledged, or its process lives and still has it."""
        return self.event is not None or not self.died

    @property
    def event_at(self) -> float | None:
        """When the server carried it out, if it was acknowledged."""
        return None if self.event is None else int(self.event.partition("-")[0]) / 1000

    def __str__(self) -> str:
        told = f"acknowledged as {self.event}" if self.event else "not acknowledged"
        return f"report {self.number} of {named(self.target)} for {self.wait:.3f} s, {told}"


@dataclass
class Clear:
    """A clear. One that failed may have been carried out all the same, at any time until all is quiet."""

    number: int
    backend: str | None
    model: str | None
    began: float
    ended: float = math.inf
    done: bool = False

    def concerns(self, target: Name) -> bool:
        """Tell whether a target is in its scope."""
        backend, model = target
        return self.backend is None or (self.backend == backend and self.model in (None, model))

    def __str__(self) -> str:
        scope = "everything" if self.backend is None else named((self.backend, self.model))
        return f"clear {self.number} of {scope}, {'done' if self.done else 'not known to be done'}"


@dataclass(frozen=True)
class Event:
    """One entry of the stream."""

    id: str
    kind: str
    target: Name
    number: int | None
    wait_ms: int
    resume_at_ms: int
    restores: bool

    @classmethod
    def of(cls, entry_id: str, fields: dict[str, str]) -> Event:
        """Read an entry."""
        details = json.loads(fields["details"])
        return cls(
            entry_id,
            fields["kind"],
            (details.get("backend") or "", details.get("model")),
            details.get("sheet_num"),
            int(fields["wait_ms"]),
            int(fields["resume_at_ms"]),
            "restores" in details,
        )

    @property
    def at(self) -> float:
        """When it was recorded."""
        return int(self.id.partition("-")[0]) / 1000


@dataclass
class Model:
    """Everything that was told, and what follows from it."""

    reports: dict[int, Report] = field(default_factory=dict)
    clears: dict[int, Clear] = field(default_factory=dict)
    drops: list[dict[str, Any]] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)
    """What the server recorded between these times, it was made to forget."""
    evictions: list[float] = field(default_factory=list)
    """When something was evicted that tells the server what it has done before: it may do it twice."""
    index_evictions: list[float] = field(default_factory=list)
    key_evictions: dict[Name, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When the index, and each limit's own key, was evicted. Keys that are lost one by one lift nothing; but of a limit
    that lost both, Redis knows nothing any more: until a mirror puts it back, a shorter report is the first of all."""
    stops: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """When each process was stopped, or the machine under it."""
    losses_of_events: list[tuple[float, float]] = field(default_factory=list)
    """Of what was recorded between these times, the events are gone and the limits are not."""
    deaths: list[float] = field(default_factory=list)
    """When processes were killed."""
    flushes: list[float] = field(default_factory=list)
    """When the database was emptied."""
    calls: int = 0
    longest_call: float = 0.0
    _calls: list[tuple[int, str, float, float, float]] = field(default_factory=list)
    _violations: list[str] = field(default_factory=list)

    def take(self, worker: int, told: dict[str, Any]) -> None:
        """Take in what a process tells."""
        kind = told.pop("kind")
        if kind == "report":
            target = (told["backend"], told["model"])
            ended = math.inf if told["ended"] is None else told["ended"]
            report = Report(told["number"], target, told["wait"], told["made"], ended, told["event"], worker)
            self.reports[report.number] = report
            if ended < math.inf:
                self._calls.append((worker, "a report", SETTINGS["command_timeout"], report.made, ended))
        elif kind == "clear":
            clear = Clear(told["number"], told["backend"], told["model"], told["began"])
            if told["ended"] is not None:
                self._calls.append((worker, "a clear", SETTINGS["command_timeout"], told["began"], told["ended"]))
                clear.done = told["done"]
                clear.ended = told["ended"] if clear.done else math.inf
            self.clears[clear.number] = clear
        elif kind == "slow":
            self._calls.append((worker, told["what"], told["bound"], told["began"], told["ended"]))
        elif kind == "stall":
            self.stops[worker].append((told["since"], told["until"]))
        elif kind == "drop":
            self.drops.append(told)
        else:
            self._violations.append(f"process {worker}: {kind} {told}")

    def dies(self, worker: int, at: float) -> None:
        """A process was killed: nobody knows any more what only it knew."""
        for report in self.reports.values():
            if report.worker == worker:
                report.died = True
        self.deaths.append(at)

    def flush(self, began: float, ended: float) -> None:
        """Somebody emptied the database: a clear of everything, of which no report that was on its way will hear."""
        number = -1 - len(self.flushes)
        self.clears[number] = Clear(number, None, None, began, ended)
        self.flushes.append(ended)
        # Nothing tells any more what was done before.
        self.evictions.append(ended)
        self.losses_of_events.append((0.0, ended))

    def settle(self, at: float) -> None:
        """All is quiet: what was not carried out by now never will be."""
        for clear in self.clears.values():
            clear.ended = min(clear.ended, at)

    def violations(self) -> Iterator[str]:
        """Return what was told that must not be. Everything that was done before has to be told by now."""
        # Not earlier: what stood still meanwhile may be told after them.
        calls, self._calls = self._calls, []
        for call in calls:
            self._check_call(*call)
        told, self._violations = self._violations, []
        yield from told
        drops, self.drops = self.drops, []
        for drop in drops:
            target = (drop["backend"], drop["model"])
            report = self.reports.get(drop["sheet"]) if drop["sheet"] is not None else None
            made = report.made if report else drop["promise"] - LONGEST_WAIT_SECONDS
            if any(clear.began <= drop["at"] and clear.ended >= made for clear in self._clears_of(target)):
                continue
            if self._evicted_since(target, made):
                continue
            tolerance = TOLERANCE_SECONDS + (BEHIND_SECONDS if self._lost_since(made) else 0.0)
            # A reply was on its way for no longer than its call may take.
            tolerance += 0.0 if drop["exact"] else SETTINGS["command_timeout"]
            if drop["deadline"] < drop["promise"] - tolerance:
                yield (
                    f"process {drop['worker']}, {drop['what']}: {named(target)} was limited until "
                    f"{drop['promise']:.3f} (told at {drop['since']:.3f}, {report or 'its report is not known'}), and "
                    f"until {drop['deadline']:.3f} only at {drop['at']:.3f}"
                )

    def check_limits(self, limits: dict[Name, float], at: float) -> Iterator[str]:
        """Compare the limits that Redis holds in a quiet moment with what must hold.

        Args:
            limits: When each is to lift.
            at: The moment.
        """
        recent = [report for report in self.reports.values() if report.wait and report.made + report.wait > at]
        for report in recent:
            lifts_at = report.made + report.wait
            if lifts_at < at + TOLERANCE_SECONDS or self._perhaps_cleared(report):
                continue
            if self._evicted_since(report.target, report.made):
                continue
            if not report.promised or (report.died and self._lost_since(report.made)):
                # Nobody else may have heard of it yet when it was lost.
                continue
            tolerance = TOLERANCE_SECONDS + (BEHIND_SECONDS if self._lost_since(report.made) else 0.0)
            if max(limits.get(report.target, 0.0), at) < lifts_at - tolerance:
                yield f"{report}, made at {report.made:.3f}, was to last until {lifts_at:.3f}, but is gone or shorter"
        for target, lifts_at in limits.items():
            standing = [
                report.made + report.wait + STALL_SECONDS
                for report in self.reports.values()
                if report.target == target and report.wait and not self._surely_cleared(report)
            ]
            if lifts_at > max(standing, default=0.0):
                yield f"{named(target)} is limited until {lifts_at:.3f}, but nothing that stands made that"

    def check_events(self, events: list[Event]) -> Iterator[str]:
        """Compare the stream in a quiet moment, when nothing is kept back any more, with what must be in it."""
        found: dict[int, list[Event]] = defaultdict(list)
        for event in events:
            if event.kind == "report" and not event.restores and event.number is not None:
                found[event.number].append(event)
        for report in self.reports.values():
            own = found.pop(report.number, [])
            doubled = any(report.made <= evicted for evicted in self.evictions) or self._lost_since(report.made)
            if len(own) > 1 and not doubled:
                yield f"{report} is {len(own)} events: {', '.join(event.id for event in own)}"
            lost = self._event_lost(report)
            if not lost and report.event and report.event not in [event.id for event in own]:
                yield f"{report} at {report.made:.3f} is not in the stream, but {[event.id for event in own]}"
            if not lost and not own and report.promised:
                yield f"{report} at {report.made:.3f} was kept by its process, but is not in the stream"
        for number, own in found.items():
            yield f"events {own} are of report {number}, which nobody told of"

    def check_replay(self, events: list[Event], limits: dict[str, int], at: float) -> Iterator[str]:
        """Compare the limits with what the events, one after the other, say: to the millisecond.

        Args:
            events: The whole stream.
            limits: What Redis holds, as in its index.
            at: The moment.
        """
        now_ms = int(at * 1000)
        replayed: dict[Name, int] = {}
        for event in events:
            if event.kind == "clear":
                replayed.pop(event.target, None)
            elif event.wait_ms:
                # The resume time just after the event; nothing but a clear may ever make it lower.
                replayed[event.target] = max(replayed.get(event.target, 0), event.resume_at_ms)
        for target, resume_at_ms in replayed.items():
            held = limits.get(named(target), 0)
            forgotten = self._evicted_since(target, at - LONGEST_WAIT_SECONDS - STALL_SECONDS)
            if resume_at_ms > now_ms and held != resume_at_ms and not forgotten:
                yield f"the events limit {named(target)} until {resume_at_ms}, but Redis holds {held}"

    def history(self, since: float) -> list[tuple[float, str]]:
        """Return everything that was told from a time on."""
        told = [(report.made, f"{report} after {report.ended - report.made:.3f} s") for report in self.reports.values()]
        told += [(clear.began, f"{clear} at {clear.ended:.3f}") for clear in self.clears.values()]
        return [line for line in told if line[0] >= since]

    def _check_call(self, worker: int, what: str, bound: float, began: float, ended: float) -> None:
        stopped, counted_to = 0.0, began
        for since, until in sorted(self.stops[worker]):
            # A stop of the process may show as a stall of its machine as well.
            since, until = max(since, counted_to), min(until + STOP_SLACK_SECONDS, ended)
            if until > since:
                stopped, counted_to = stopped + until - since, until
        took = ended - began - stopped
        self.calls += 1
        if what.startswith("a "):
            self.longest_call = max(self.longest_call, took)
        if took > bound + (0.0 if what == "reads" else GRACE_SECONDS):
            self._violations.append(
                f"process {worker}: {what} took {took:.2f} s from {began:.3f} on, which is not within {bound:g} s"
            )

    def _clears_of(self, target: Name) -> Iterator[Clear]:
        return (clear for clear in self.clears.values() if clear.concerns(target))

    def _perhaps_cleared(self, report: Report) -> bool:
        return any(clear.ended >= report.made for clear in self._clears_of(report.target))

    def _surely_cleared(self, report: Report) -> bool:
        # Acknowledged before a clear began that was acknowledged too, and that the server has not forgotten since.
        return report.event is not None and any(
            clear.done and report.ended < clear.began and not self._lost_since(clear.began)
            for clear in self._clears_of(report.target)
        )

    def _evicted_since(self, target: Name, at: float) -> bool:
        index, key = self.index_evictions, self.key_evictions[target]
        return max(index, default=0.0) >= at and max(key, default=0.0) >= at

    def _event_lost(self, report: Report) -> bool:
        # Of one that was not acknowledged it is not known when it was recorded.
        at = report.event_at
        return any(
            until >= report.made if at is None else since - CLOCK_SECONDS <= at <= until
            for since, until in [*self.losses, *self.losses_of_events]
        )

    def _lost_since(self, at: float) -> bool:
        return any(until >= at for _, until in self.losses)


def named(target: Name) -> str:
    """Return a target as the library shows it."""
    backend, model = target
    return backend if model is None else f"{backend}/{model}"
