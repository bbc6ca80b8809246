"""What is fuzzed: each function takes any bytes and raises if the library does something with them that it must not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from rate_coordinator.clock import server_time
from rate_coordinator.mirror import Mirror
from rate_coordinator.models import FIRST_ID, LATEST_MS, EntryId, Notice, RateLimitEvent
from rate_coordinator.replies import read_event, read_limit
from rate_coordinator.snapshots import Snapshot, SnapshotLimit
from rate_coordinator.targets import Target
from rate_coordinator.waits import LONGEST_CAP_SECONDS
from rate_coordinator.wire import Unreadable, read_notice

NOW_MS = 1_700_000_000_000
EPOCH = "5f0c"
HONEST = SnapshotLimit(Target("openai", "gpt"), NOW_MS + 30_000, EntryId(NOW_MS, 1), 30_000, None)


def notices(data: bytes) -> None:
    """A message on the channel is a notice, or refused; and one that is a notice can be shown to everyone."""
    try:
        notice = read_notice(data)
    except Unreadable:
        return
    if notice is not None:
        assert notice.wait_seconds >= 0.0
        Notice.model_validate_json(notice.model_dump_json())
        if notice.kind == "limit":
            RateLimitEvent.of_notice(notice)


def mirrors(data: bytes) -> None:
    """Whatever a mirror was told, between it and an honest snapshot there is no difference in the end."""
    mirror = Mirror()
    received_at = 0.0
    for part in data.split(b"\0"):
        received_at += 1.0
        if (limits := _limits_in(part)) is not None:
            mirror.replace(Snapshot(EPOCH, FIRST_ID, NOW_MS, limits), received_at, received_at)
            continue
        try:
            notice = read_notice(part)
        except Unreadable:
            continue
        if notice is not None:
            mirror.apply(notice, received_at)
            for target, deadline, _ in mirror.active(received_at):
                assert math.isfinite(deadline), target
                assert deadline <= received_at + LONGEST_CAP_SECONDS, target
    asked_at = received_at + 1.0
    mirror.replace(Snapshot("honest", HONEST.id, NOW_MS, (HONEST,)), asked_at, asked_at)
    held = {target: deadline for target, deadline, _ in mirror.active(asked_at)}
    assert held == {HONEST.target: asked_at + 30.0}, held


def limits(data: bytes) -> None:
    """A member of the index with its score and cause is a limit, or refused; its times are times."""
    encoded, _, rest = data.partition(b"\0")
    score, _, cause = rest.partition(b"\0")
    try:
        limit = read_limit(encoded, score, cause.decode("utf-8", "replace"))
    except (ValueError, OverflowError):
        return
    assert limit.resume_at_ms <= LATEST_MS
    if limit.resume_at_ms >= 0:
        server_time(limit.resume_at_ms)
    assert 0.0 <= limit.remaining_seconds(NOW_MS) <= LONGEST_CAP_SECONDS
    mirror = Mirror()
    mirror.replace(Snapshot(EPOCH, FIRST_ID, NOW_MS, (limit,)), 0.0, 0.0)


def events(data: bytes) -> None:
    """An entry of the stream is an event, or passed over."""
    entry_id, *fields = data.split(b"\0")
    event = read_event(entry_id, fields)
    if event is not None:
        RateLimitEvent.model_validate_json(event.model_dump_json())


def targets(data: bytes) -> None:
    """What is inside a key names a target, or is refused; a target comes back from its key as it was."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        target = Target.decode(text)
    except ValueError:
        pass
    else:
        assert Target.decode(target.encode()) == target
    try:
        named = Target.of(text)
    except ValueError:
        return
    assert Target.decode(named.encode()) == named


def _limits_in(part: bytes) -> tuple[SnapshotLimit, ...] | None:
    """Return the limits of a snapshot: lines of name, score and cause after an ``S``."""
    if not part.startswith(b"S"):
        return None
    found: list[SnapshotLimit] = []
    for line in part[1:].split(b"\n"):
        name, _, rest = line.partition(b" ")
        score, _, cause = rest.partition(b" ")
        try:
            found.append(read_limit(name, score, cause.decode("utf-8", "replace")))
        except (ValueError, OverflowError):
            continue
    return tuple(found)


_NOTICE = {
    **{"version": 1, "kind": "limit", "epoch": EPOCH, "id": f"{NOW_MS}-1", "previous_id": "0-0", "now_ms": NOW_MS},
    **{"resume_at_ms": NOW_MS + 5000, "wait_ms": 5000, "backend": "openai", "model": "gpt", "job_id": "job"},
    **{"sheet_num": 7, "reason": "quota", "asked_wait_seconds": 5.0, "clamped": None, "late_ms": 0, "reporter": "h:1"},
}
_DETAILS = json.dumps({name: _NOTICE[name] for name in ("backend", "model", "reason", "reporter")}).encode()
_MESSAGE = json.dumps(_NOTICE).encode()
_CLEAR = json.dumps({**_NOTICE, "kind": "clear", "id": f"{NOW_MS}-2", "previous_id": f"{NOW_MS}-1"}).encode()
_CAUSE = b"1700000000000-1|5000|" + _DETAILS

_FIELDS = [
    b"kind",
    b"report",
    b"wait_ms",
    b"5000",
    b"extended",
    b"1",
    b"resume_at_ms",
    b"1700000005000",
    b"details",
    _DETAILS,
]

TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "notices": (notices, [_MESSAGE, _CLEAR, b'{"version":1,"kind":"ping"}', b'{"version":2,"kind":"limit"}']),
    "mirrors": (
        mirrors,
        [
            b"\0".join([_MESSAGE, _CLEAR, _MESSAGE]),
            b"\0".join([b"Sopenai/gpt 1700000005000 " + _CAUSE, _MESSAGE, b"Sclaude 1700000009000 ", _CLEAR]),
        ],
    ),
    "limits": (limits, [b"openai/gpt\x001700000005000\0" + _CAUSE, b"a%2Fb\0inf\0", b"\xff\x001e30\0x|y|z"]),
    "events": (
        events,
        [
            b"\0".join([b"1700000000000-1", *_FIELDS]),
        ],
    ),
    "targets": (targets, [b"openai/gpt%2D4o", b"%zz", "ü/☃".encode()]),
}
"""Each with what to begin from."""
