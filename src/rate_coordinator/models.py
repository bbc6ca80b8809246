"""The data that crosses module borders and the wire: events, notices, results."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rate_coordinator.clock import server_time
from rate_coordinator.targets import Target, check_name
from rate_coordinator.waits import Clamp

Reason = Literal["rate_limit", "overloaded", "quota"]
"""Why an upstream refused. Reasons are kept apart and shown; they share no ladder."""

WIRE_VERSION = 1
"""Version of the keys and of the JSON in notices and events.

It grows only with a change that older readers would get wrong. Then they refuse to touch the namespace and say so;
what is merely added they ignore.
"""


class EntryId(NamedTuple):
    """ID of a Redis stream entry: ``<milliseconds>-<sequence>``, ordered as Redis orders them.

    https://redis.io/docs/latest/develop/data-types/streams/#entry-ids
    """

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> EntryId:
        """Read ``"1526919030474-55"``.

        Raises:
            ValueError: ``text`` is not an entry ID.
        """
        return _parse_entry_id(text)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


LARGEST_PART = 2**64 - 1


@lru_cache(maxsize=256)
def _parse_entry_id(text: str) -> EntryId:
    # Kept for a while: the ID of one notice is needed in several places.
    ms, separator, seq = text.partition("-")
    if not (separator and ms.isdecimal() and seq.isdecimal() and len(text) <= 41):
        raise ValueError(f"a stream entry ID looks like 1526919030474-55, not {text!r:.80}")
    if int(ms) > LARGEST_PART or int(seq) > LARGEST_PART:
        raise ValueError(f"the parts of a stream entry ID have 64 bits, but not those of {text!r:.80}")
    return EntryId(int(ms), int(seq))


FIRST_ID = EntryId(0, 0)
"""Comes before every entry of a stream."""


LATEST_MS = 253_402_300_799_999
"""The last millisecond that a ``datetime`` can tell. What claims to be later is nonsense."""


def _check_entry_id(text: str) -> str:
    if EntryId.parse(text).ms > LATEST_MS:
        raise ValueError(f"{text} is later than any time")
    return text


Name = Annotated[str, AfterValidator(lambda name: check_name("name", name))]
WireId = Annotated[str, AfterValidator(_check_entry_id)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class Hold(_Frozen):
    """A target is held by hand; nothing but its end and a release lift that."""

    until_ms: int = Field(ge=0, le=LATEST_MS)
    """When it ends, on the Redis server's clock, in milliseconds since 1970."""
    wait_ms: int = Field(ge=0, le=LATEST_MS)
    """For how long it was made."""
    note: str = ""
    """Why, in the words of who holds it."""
    reporter: str = ""
    """Name of the coordinator that made it."""


class ReportDetails(_Frozen):
    """What a worker told when it reported, as it stands in events and notices (JSON)."""

    job_id: str | None = None
    sheet_num: int | None = None
    reason: Reason | str = "rate_limit"
    asked_wait_seconds: float = 0.0
    clamped: Clamp | str | None = None
    late_ms: int = Field(default=0, ge=0)
    """How long the report waited in its process for Redis to come back; its wait is shortened by that."""
    call_age_ms: int | None = Field(default=None, ge=0)
    """How long before the report the refused call had been sent; None where that was not told."""
    reporter: str = ""
    restores: str | None = None
    """ID of the event whose limit this one puts back: after another server had taken over without it, or what is left
    of a report's limit after a release, or of a hold after a clear."""
    hold: Hold | None = None
    """Where the target is held by hand: until when and why. A report's limit may last longer. It counts only until it
    ends, whatever is told after that."""

    def shared(self) -> dict[str, Any]:
        """Return just these fields, for the event of the same report."""
        return {name: getattr(self, name) for name in ReportDetails.model_fields}


class Notice(ReportDetails):
    """The broadcast of one change: a target became limited, its limit was extended or cleared, or its pace is another.

    On the wire it is one JSON object per message. ``kind`` tells which of them it is; readers ignore kinds and fields
    that they do not know.
    """

    version: int = WIRE_VERSION
    kind: Literal["limit", "clear", "pace"]
    event: str | None = None
    """Kind of the event that made the change, where that was done by hand: ``"hold"`` (in a limit), ``"release"`` (in a
    limit that outlasts it, or in a clear) or ``"clear"`` (in a limit: the hold that outlasts it)."""
    epoch: str
    """Random token of the present order of IDs; IDs of two epochs cannot be compared."""
    id: WireId
    """Entry ID of the event that made the change."""
    previous_id: WireId
    """ID of the notice before this one, ``"0-0"`` for the first. One that was not seen has been missed. Notices of a
    pace are no links of this chain: they name the newest limit or clear."""
    backend: Name
    model: Name | None = None
    now_ms: int = Field(ge=0, le=LATEST_MS)
    """The Redis server's clock when the notice was published, in milliseconds since 1970."""
    resume_at_ms: int = Field(default=0, ge=0, le=LATEST_MS)
    """When the limit lifts, on the same clock; 0 in a clear."""
    wait_ms: int = Field(default=0, ge=0, le=LATEST_MS)
    """The wait that was stored."""
    pace_until_ms: int | None = Field(default=None, ge=0, le=LATEST_MS)
    """When the target's pace is forgotten unless it is refused again, on the server's clock; 0: it is forgotten now;
    None: the notice says nothing of a pace."""
    pace_rate: float | None = Field(default=None, ge=0)
    """The pace of the whole fleet, in calls per second; None where it is still to be learned."""
    pace_ceiling: float | None = Field(default=None, ge=0)
    """Where the pace was refused last, in calls per second; None where that is not known."""
    probe: str | None = None
    """``"served"``: one call was let through and served, so that a limit was lifted before its time (in a clear) or all
    others may follow (in a notice of a pace); ``"refused"``; ``"back"``: it told nothing, and another one goes."""
    recovered: bool = False
    """True when this process missed the broadcast and learned of the change from a snapshot."""

    @property
    def target(self) -> Target:
        """What was limited or cleared."""
        return Target(self.backend, self.model)

    @property
    def wait_seconds(self) -> float:
        """Seconds from publishing to the resume time; 0.0 for a clear."""
        return max(0, self.resume_at_ms - self.now_ms) / 1000 if self.kind == "limit" else 0.0


class RateLimitEvent(_Frozen):
    """The durable record of one report or clear, as kept in the capped stream."""

    backend_type: str
    """The backend; empty in a clear of everything that found nothing to clear."""
    detected_at: datetime
    """When Redis recorded it: the server's time, timezone-aware (UTC)."""
    suggested_wait_seconds: float
    """The wait that counts, after clamping, in seconds; 0.0 for a clear."""
    job_id: str | None = None
    sheet_num: int | None = None
    model: str | None = None
    kind: Literal["report", "clear", "pace", "hold", "release"] = "report"
    """``"hold"`` and ``"release"``: by hand. ``"pace"``: what was learned of the target's rate, or that it was
    forgotten."""
    id: str = ""
    """The stream's entry ID."""
    reason: Reason | str = "rate_limit"
    asked_wait_seconds: float = 0.0
    """What the worker asked for, in seconds, before clamping."""
    clamped: Clamp | str | None = None
    """Why ``suggested_wait_seconds`` is not what was asked; None when it is."""
    extended: bool = False
    """Whether the report moved the resume time."""
    resume_at: datetime | None = None
    """The target's resume time just after the event, on the server's clock; None when it was not limited."""
    late_ms: int = 0
    """How long the report waited in its process for Redis to come back."""
    call_age_ms: int | None = None
    """How long before the report the refused call had been sent; None where that was not told."""
    reporter: str = ""
    """Name of the coordinator that reported or cleared."""
    restores: str | None = None
    """ID of the event whose limit this one puts back, after another server had taken over without it."""
    note: str = ""
    """Why it is held, in the words of who holds it; only in a hold."""
    pace_rate: float | None = None
    """The pace of the whole fleet that was learned, in calls per second."""
    pace_ceiling: float | None = None
    """Where it was refused last, in calls per second."""
    probe: str | None = None
    """``"served"`` where one call that was let through lifted the limit, or opened the way after it."""

    @classmethod
    def of_notice(cls, notice: Notice) -> Self:
        """Return the event that made a limit, as its notice tells it."""
        return cls(
            backend_type=notice.backend,
            detected_at=server_time(EntryId.parse(notice.id).ms),
            suggested_wait_seconds=notice.wait_ms / 1000,
            model=notice.model,
            id=notice.id,
            extended=True,
            resume_at=server_time(notice.resume_at_ms),
            **notice.shared(),
        )

    @property
    def target(self) -> Target:
        """What was reported or cleared."""
        return Target(self.backend_type, self.model)


class ReportResult(_Frozen):
    """What became of a report."""

    resume_at: datetime | None
    """The target's resume time on the server's clock; None when it is not limited, or not delivered."""
    seconds_remaining: float
    """Seconds until the target may be called again; 0.0 when it may be called now."""
    extended: bool
    """Whether this report moved the resume time; False as well while it is not delivered."""
    clamped: bool
    """Whether another wait than the asked one counts."""
    delivered: bool
    """False when Redis could not be reached: the report counts in this process and will be replayed."""
    event_id: str | None = None
    """The event's stream entry ID; None while not delivered."""
    wait_seconds: float = 0.0
    """The wait that counts, in seconds, after clamping."""


class ActiveLimit(_Frozen):
    """A limit that is active now, as this process knows it."""

    backend: str
    model: str | None
    seconds_remaining: float
    resume_at: datetime
    """On the Redis server's clock (UTC)."""
    wait_seconds: float = 0.0
    """The wait that was reported, after clamping, in seconds; 0.0 where that is not known."""
    reason: Reason | str = "rate_limit"
    job_id: str | None = None
    sheet_num: int | None = None
    reporter: str = ""
    delivered: bool = True
    """False for a limit that only this process knows of, because Redis is away."""
    held_until: datetime | None = None
    """Until when it is held by hand, on the Redis server's clock (UTC); None where it is not. A report may have made it
    last longer than that."""
    note: str = ""
    """Why it is held, in the words of who holds it."""
    held_by: str = ""
    """Name of the coordinator that made the hold."""

    @property
    def target(self) -> Target:
        """What is limited."""
        return Target(self.backend, self.model)


class PaceStatus(_Frozen):
    """The pace of one target, as this process knows it."""

    backend: str
    model: str | None
    rate: float
    """Calls per second that the whole fleet may make now; 0.0 while it is being learned."""
    ceiling: float
    """Where it was refused last, in calls per second; 0.0 where that is not known."""
    forgets_seconds: float
    """Until it is forgotten if nobody is refused meanwhile."""
    waiting: int
    """Calls that wait for their turn in this process."""
    admitted_per_second: float
    """Calls per second that this process admitted lately."""
    fleet_per_second: float
    """Calls per second that the whole fleet was let through lately, as was told last."""
    processes: int
    """How many processes share it, as was told last."""
    alone: bool
    """Whether this process takes turns at its share of the last known pace, because Redis is away."""

    @property
    def target(self) -> Target:
        """What is called at this pace."""
        return Target(self.backend, self.model)


class Explanation(_Frozen):
    """Where a target's present limit comes from."""

    backend: str
    model: str | None
    limited: bool
    seconds_remaining: float
    resume_at: datetime | None
    """On the Redis server's clock (UTC); None when clear."""
    cause: RateLimitEvent | None
    """The report, or the hold, that set the present resume time; None when clear."""
    before: tuple[RateLimitEvent, ...]
    """Reports and clears of the same target and its backend that came before the cause, newest first."""
    since: tuple[RateLimitEvent, ...] = ()
    """Those that came after the cause, newest first: they did not move the resume time beyond it."""
    held_until: datetime | None = None
    """Until when it is held by hand, on the Redis server's clock (UTC); None where it is not."""
    note: str = ""
    """Why it is held, in the words of who holds it."""


class Health(_Frozen):
    """How a coordinator is doing. Counters count from its start."""

    state: Literal["new", "starting", "connected", "degraded", "closed"]
    """``degraded``: it cannot currently hear Redis; it goes on from what it knows."""
    address: str
    """Where Redis is, without the password."""
    namespace: str
    degraded_seconds: float = 0.0
    """For how long it has been degraded; 0.0 when it is not."""
    degraded_total_seconds: float = 0.0
    """For how long it has been degraded altogether."""
    last_error: str | None = None
    """What went wrong last, without secrets; kept after recovery."""
    round_trip_seconds: float | None = None
    """Latest measured round trip of a script call."""
    notice_delay_seconds: float | None = None
    """How long the latest notice was on its way from Redis, within half a round trip; None where that is not known."""
    notices_received: int = 0
    notices_unreadable: int = 0
    """Messages on the channel that were no notices: too large, no JSON, or of wrong content."""
    notices_newer: int = 0
    """Messages of a newer version that this one does not understand."""
    notices_dropped: int = 0
    """Notices that slow consumers in this process lost."""
    notices_missed: int = 0
    """Gaps found in the chain of notices; each led to a re-synchronisation."""
    callback_errors: int = 0
    resyncs: int = 0
    """Snapshots that were read."""
    reconnects: int = 0
    script_calls: int = 0
    garbage_removed: int = 0
    """Keys of a wrong type, and members of the index that name no target, that have been removed."""
    reports_delivered: int = 0
    reports_buffered: int = 0
    """Reports that wait for Redis to come back."""
    reports_dropped: int = 0
    """Buffered reports that were given up because the buffer was full."""
    calls_avoided: int = 0
    """Calls that were held back because a limit was known: each would have been refused."""
    paces: tuple[PaceStatus, ...] = ()
    """Every pace that is remembered, by backend and model."""
