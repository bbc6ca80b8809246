"""What goes to the scripts and comes back from them, as data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import ValidationError

from rate_coordinator import clock
from rate_coordinator.models import FIRST_ID, LATEST_MS, EntryId, Hold, RateLimitEvent, ReportDetails
from rate_coordinator.probes import ProbeAnswer
from rate_coordinator.snapshots import SnapshotLimit
from rate_coordinator.targets import Target
from rate_coordinator.turns import Turns

TEACHES_NOTHING = -1
"""In the place of an epoch: a refusal that says nothing about the pace."""


class WireReport(NamedTuple):
    """One report as the script takes it."""

    target: Target
    wait_ms: int
    """What is left of it."""
    late_ms: int
    age_ms: int
    """How long ago it was made; a clear that was made since wins. 0 where that is no question."""
    details: str
    """Members of a JSON object."""
    call_age_ms: int | None = None
    """How long before it was made the refused call had been sent; None where that was not told."""
    pace_epoch: int | None = None
    """What the refused call was admitted under; ``TEACHES_NOTHING`` where the pace is not concerned, None where it was
    not admitted."""


class ReportReply(NamedTuple):
    """What the script answers about one report."""

    event_id: EntryId
    extended: bool
    resume_at_ms: int
    """After the whole call."""
    cause_id: EntryId
    event_resume_at_ms: int
    """Just after this report, as its event has it."""
    cleared: bool
    """Whether it limits nothing, because a clear was made after it."""
    hold: Hold | None = None
    """Where the target is held by hand: until when and why."""


class WireHold(NamedTuple):
    """One order to hold or to release as the script takes it."""

    target: Target
    wait_ms: int
    """0 releases."""
    age_ms: int
    """How long ago the hold was made that it puts back; 0 where it is a new one."""
    details: str
    """Members of a JSON object."""


class HoldReply(NamedTuple):
    """What the script answers about it."""

    event_id: EntryId
    """``FIRST_ID`` where nothing was recorded."""
    done: bool
    """False where there was nothing to release, or where a newer order had made it void."""
    extended: bool
    limit: SnapshotLimit | None
    """What the target's limit is, where it was done; None for none."""


class Reply(NamedTuple):
    """What is common to the answers of calls that write."""

    epoch: str
    now_ms: int
    received_at: float
    run_id: str = ""
    """Of the server process that answered; empty where it may not be asked."""


def write_members(details: Mapping[str, object]) -> str:
    """Return what a script puts into a JSON object: its members, without the braces."""
    return json.dumps(details, separators=(",", ":"))[1:-1]


def write_names(target: Target) -> str:
    """Return a target's names as members of a JSON object."""
    return write_members({"backend": target.backend, "model": target.model})


def read_limit(encoded: bytes, score: bytes, cause: str) -> SnapshotLimit:
    """Read a limit as the index and the causes tell it.

    Raises:
        ValueError: It names no target, or claims a time that cannot be.
    """
    target = Target.decode(encoded.decode())
    resume_at_ms = int(float(score))
    if resume_at_ms > LATEST_MS:
        raise ValueError(f"{resume_at_ms} is later than any time")
    event_id, _, rest = cause.partition("|")
    wait_ms, _, details = rest.partition("|")
    try:
        return SnapshotLimit(
            target, resume_at_ms, EntryId.parse(event_id), int(wait_ms), ReportDetails.model_validate_json(details)
        )
    except (ValueError, ValidationError):
        return SnapshotLimit(target, resume_at_ms, FIRST_ID, None, None)


def read_hold_reply(target: Target, body: Mapping[str, Any]) -> HoldReply:
    """Read the answer to an order to hold or to release."""
    event_id, limit = body["event_id"], None
    if body["limit"]:
        resume_at_ms, wait_ms, details = body["limit"]
        told = ReportDetails.model_validate(details)
        limit = SnapshotLimit(target, resume_at_ms, EntryId.parse(event_id), wait_ms, told)
    parsed_id = EntryId.parse(event_id) if event_id else FIRST_ID
    return HoldReply(parsed_id, bool(body["done"]), bool(body["extended"]), limit)


def read_paces(flat: list[bytes]) -> Iterator[tuple[Target, int]]:
    """Read the index of paces; what names no target is passed over."""
    for target, until_ms in zip(flat[::2], flat[1::2], strict=True):
        with suppress(ValueError, OverflowError):
            yield Target.decode(target.decode()), int(float(until_ms))


def read_turns(answer: list[bytes] | None) -> Turns | None:
    """Read the answer to a request for turns; None where there is no pace."""
    if not answer:
        return None
    epoch, count, first_ms, spacing_ms, rate, ceiling, forgets_ms, processes, probe_ms, fleet = map(float, answer)
    return Turns(
        int(epoch),
        int(count),
        first_ms / 1000,
        spacing_ms / 1000,
        rate,
        ceiling,
        forgets_ms / 1000,
        int(processes),
        int(probe_ms),
        fleet,
    )


def read_probe(answer: list[bytes]) -> ProbeAnswer:
    """Read the answer to a question about a probe."""
    given, wait_ms, epoch, probe_ms, order_epoch, event_id = (part.decode() for part in answer)
    return ProbeAnswer(given == "1", int(wait_ms) / 1000, int(epoch), int(probe_ms), order_epoch, event_id)


def read_event(entry_id: bytes, fields: list[bytes] | None) -> RateLimitEvent | None:
    """Read an entry of the stream; None for one that is not ours."""
    try:
        flat = fields or []
        values = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
        details = json.loads(values["details"])
        resume_at_ms = int(values["resume_at_ms"])
        parsed_id = EntryId.parse(entry_id.decode())
        return RateLimitEvent.model_validate(
            {
                **details,
                "backend_type": details["backend"],
                "id": entry_id.decode(),
                "kind": values["kind"],
                "detected_at": clock.server_time(parsed_id.ms),
                "suggested_wait_seconds": int(values["wait_ms"]) / 1000,
                "extended": values["extended"] == "1",
                "resume_at": clock.server_time(resume_at_ms) if resume_at_ms else None,
            }
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
