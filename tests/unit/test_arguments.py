"""What callers pass, checked before anything happens."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator.arguments import LONGEST_JOB_ID, read_count, read_items, read_report, read_since
from rate_coordinator.reports import Report
from rate_coordinator.targets import Target

NOW_MS = 1_700_000_000_000
OPENAI = Target("openai")


def read(**given: Any) -> Report:
    arguments = {
        "wait_seconds": 5.0,
        "job_id": None,
        "sheet_num": None,
        "reason": "rate_limit",
        "sent_at": None,
        **given,
    }
    return read_report(OPENAI, cap_seconds=3600.0, **arguments)


@pytest.mark.parametrize("job_id", [None, "", "job", "🗝️" * 100, "a\nb", "x" * LONGEST_JOB_ID])
def test_a_job_id_is_any_text_that_is_not_too_long(job_id: str | None) -> None:
    assert read(job_id=job_id).job_id == job_id


@pytest.mark.parametrize("sheet_num", [None, 0, -1, 2**63 - 1, -(2**63)])
def test_a_sheet_number_is_any_64_bit_integer(sheet_num: int | None) -> None:
    assert read(sheet_num=sheet_num).sheet_num == sheet_num


@pytest.mark.parametrize("reason", ["rate_limit", "overloaded", "quota"])
def test_there_are_three_reasons(reason: str) -> None:
    assert read(reason=reason).reason == reason


REFUSED: list[tuple[str, Any]] = [
    *(("job_id", value) for value in (5, b"job", "x" * (LONGEST_JOB_ID + 1), "\ud800", ["job"])),
    *(("sheet_num", value) for value in ("5", 1.0, True, 2**63, -(2**63) - 1, math.nan)),
    *(("reason", value) for value in (None, "", "Quota", 5, ["quota"], {"quota": 1})),
    *(("sent_at", value) for value in ("5", True, math.nan, math.inf, -math.inf, datetime.now(UTC), 1e300, 10**400)),
    *(("wait_seconds", value) for value in (None, "5", True)),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda value: repr(value)[:20])
def test_what_cannot_be_used_is_refused_by_name(name: str, value: Any) -> None:
    """P07."""
    with pytest.raises(ValueError, match=rf"^{name} must"):
        read(**{name: value})


def test_the_age_of_the_refused_call_is_told_in_milliseconds() -> None:
    """P04."""
    age = read(sent_at=time.monotonic() - 2.5).call_age_ms

    assert age is not None
    assert 2_500 <= age < 3_500
    assert read().call_age_ms is None


def test_a_call_that_is_still_to_be_sent_was_not_refused() -> None:
    """P14: a wall clock's time is far ahead of the monotonic clock's."""
    with pytest.raises(ValueError, match="still to come"):
        read(sent_at=time.time())


@given(st.integers(0, 4_000_000_000))
def test_a_time_becomes_the_entry_ids_from_then_on(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, timezone(timedelta(hours=5)))
    assert read_since(moment, NOW_MS) == str(seconds * 1000)


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_no_event_at_or_after_a_time_is_left_out_and_none_of_the_millisecond_before_is_told(moment: datetime) -> None:
    """P15."""
    truth = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert int(read_since(moment, NOW_MS)) == truth


SINCE: list[tuple[Any, str]] = [
    (None, "-"),
    ("1700000000000-5", "(1700000000000-5"),
    (0, str(NOW_MS)),
    (5, str(NOW_MS - 5_000)),
    (0.5, str(NOW_MS - 500)),
    (timedelta(minutes=1), str(NOW_MS - 60_000)),
    (1e300, "0"),
    (10**15, "0"),
    (datetime(1900, 1, 1, tzinfo=UTC), "0"),
]


@pytest.mark.parametrize(("since", "oldest"), SINCE, ids=lambda value: repr(value)[:30])
def test_since_can_be_told_in_many_ways(since: Any, oldest: str) -> None:
    assert read_since(since, NOW_MS) == oldest


BAD_SINCE: list[Any] = ["", "yesterday", "5", -1, math.nan, math.inf, True, timedelta(seconds=-1), b"1-0", [1]]


@pytest.mark.parametrize("since", [*BAD_SINCE, datetime(2024, 1, 1)], ids=lambda value: repr(value)[:30])
def test_what_tells_no_time_is_refused(since: Any) -> None:
    with pytest.raises(ValueError, match=r"since must|entry ID"):
        read_since(since, NOW_MS)


def test_a_count_may_be_too_large_for_a_float() -> None:
    with pytest.raises(ValueError, match="since must"):
        read_since(-(10**400), NOW_MS)
    assert read_since(10**400, NOW_MS) == "0"


@pytest.mark.parametrize("count", [None, 0, 1, 10**9])
def test_a_count_is_a_whole_number_or_all(count: int | None) -> None:
    """P10: 0 is none, not all."""
    assert read_count(count) == count


@pytest.mark.parametrize("count", [-1, 1.0, "5", True, math.nan, [1]])
def test_what_is_no_count_is_refused(count: Any) -> None:
    with pytest.raises(ValueError, match=r"^count must"):
        read_count(count)


def test_backends_are_named_alone_or_with_a_model() -> None:
    items = ["openai", ("openai", "gpt"), ("claude", None)]
    assert read_items(items) == [Target("openai"), Target("openai", "gpt"), Target("claude")]
    assert read_items(iter(["openai"])) == [OPENAI]


BAD_ITEMS: list[Any] = [
    "openai",
    5,
    None,
    [],
    [5],
    [("a",)],
    [("a", "b", "c")],
    [["a", "b"]],
    [""],
    [("", "b")],
    [("a", "")],
]


@pytest.mark.parametrize("items", BAD_ITEMS, ids=repr)
def test_what_names_no_backends_is_refused(items: Any) -> None:
    with pytest.raises(ValueError, match=r"backend|model"):
        read_items(items)
