"""What comes in on the channel, whoever sent it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rate_coordinator.mirror import Mirror
from rate_coordinator.models import FIRST_ID, Notice, RateLimitEvent
from rate_coordinator.snapshots import Snapshot
from rate_coordinator.wire import LARGEST_MESSAGE, Unreadable, read_notice

NOTICE: dict[str, Any] = {
    "version": 1,
    "kind": "limit",
    "epoch": "5f0c",
    "id": "1700000000000-1",
    "previous_id": "1700000000000-0",
    "now_ms": 1_700_000_000_000,
    "resume_at_ms": 1_700_000_030_000,
    "wait_ms": 30_000,
    "backend": "openai",
    "model": "gpt",
    "job_id": "job",
    "sheet_num": 7,
    "reason": "quota",
    "asked_wait_seconds": 30.0,
    "clamped": None,
    "late_ms": 0,
    "call_age_ms": 5,
    "reporter": "host:1",
}
REQUIRED = {"kind", "epoch", "id", "previous_id", "backend", "now_ms"}

numbers = st.one_of(st.integers(), st.integers(-(10**400), 10**400), st.floats(), st.just(2**63), st.just(10**18))
entry_ids = st.builds("{}-{}".format, st.integers(0, 10**20), st.integers(0, 10**19))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20), entry_ids)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def encode(content: Any) -> bytes:
    return json.dumps(content).encode()


def take_in(message: bytes) -> Notice | None:
    """Do all that is done with a message that was heard."""
    notice = read_notice(message)
    if notice is not None:
        mirror = Mirror()
        mirror.replace(Snapshot(notice.epoch, FIRST_ID, 1_700_000_000_000, ()), 0.0, 0.0)
        mirror.apply(notice, 1.0)
        mirror.replace(Snapshot(notice.epoch, FIRST_ID, 1_700_000_000_000, ()), 2.0, 2.0)
        if notice.kind == "limit":
            RateLimitEvent.of_notice(notice)
    return notice


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_worse_than_being_unreadable(message: bytes) -> None:
    with suppress(Unreadable):
        take_in(message)


@given(
    st.dictionaries(st.sampled_from(sorted(NOTICE)), anything, min_size=1, max_size=3),
    st.sets(st.sampled_from(sorted(NOTICE)), max_size=2),
)
@example({"resume_at_ms": 10**18}, set())
@example({"now_ms": 10**400}, set())
@example({"id": f"{10**18}-0"}, set())
@example({"wait_ms": 10**400}, set())
@example({"backend": "\ud800"}, set())
def test_no_change_to_a_notice_does_anything_worse_than_making_it_unreadable(
    changed: dict[str, Any], left_out: set[str]
) -> None:
    """P06 P07."""
    content = {name: value for name, value in {**NOTICE, **changed}.items() if name not in left_out}
    with suppress(Unreadable):
        take_in(encode(content))


@given(st.data())
def test_no_damage_on_the_way_does_anything_worse_than_making_it_unreadable(data: st.DataObject) -> None:
    message = bytearray(encode(NOTICE))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(message) - 1))
        message[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with suppress(Unreadable):
        take_in(bytes(message))


def test_a_notice_reads_as_what_it_says() -> None:
    notice = take_in(encode(NOTICE))

    assert notice is not None
    assert {name: getattr(notice, name) for name in NOTICE} == NOTICE
    assert notice.target == ("openai", "gpt")
    assert notice.wait_seconds == 30.0


def test_a_clear_tells_no_wait() -> None:
    notice = take_in(encode({**NOTICE, "kind": "clear", "resume_at_ms": 0, "wait_ms": 0}))

    assert notice is not None
    assert notice.wait_seconds == 0.0


def test_unknown_fields_and_later_versions_are_taken() -> None:
    notice = take_in(encode({**NOTICE, "version": 2, "new": {"field": [1]}, "reason": "new reason", "clamped": "new"}))

    assert notice is not None
    assert notice.reason == "new reason"


@pytest.mark.parametrize("name", sorted(set(NOTICE) - REQUIRED))
def test_what_a_short_notice_leaves_out_has_a_default(name: str) -> None:
    assert read_notice(encode({key: value for key, value in NOTICE.items() if key != name})) is not None


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_what_every_notice_needs_is_named_when_it_is_missing(name: str) -> None:
    with pytest.raises(Unreadable, match=name if name != "kind" else "kind|discriminator"):
        read_notice(encode({key: value for key, value in NOTICE.items() if key != name}))


@pytest.mark.parametrize("content", [{"version": 1, "kind": "ping"}, {"kind": "later"}, {**NOTICE, "kind": "colour"}])
def test_a_kind_that_is_not_known_is_passed_over(content: dict[str, Any]) -> None:
    assert read_notice(encode(content)) is None


@pytest.mark.parametrize("message", [b"", b"null", b"5", b"[]", b"{}", b'{"kind":5}', b"\xff", b"[" * 60_000])
def test_what_is_no_notice_is_unreadable(message: bytes) -> None:
    with pytest.raises(Unreadable):
        read_notice(message)


def test_what_is_too_large_is_not_even_read() -> None:
    with pytest.raises(Unreadable, match=f"^{LARGEST_MESSAGE + 1} bytes are more"):
        read_notice(b" " * (LARGEST_MESSAGE + 1))


def test_an_unreadable_message_is_described_briefly() -> None:
    with pytest.raises(Unreadable) as caught:
        read_notice(encode({**NOTICE, "id": "x" * 50_000}))
    assert len(str(caught.value)) < 300
