"""The numbers and times that people type."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis

from rate_coordinator.cli.values import read_seconds, read_since
from tests.cli.programs import Cli

NO_NUMBERS = [
    *("nan", "NaN", "inf", "-inf", "infinity", "1e999", "1e308d", "9" * 400, "-1", "-0.5", "5x", "5 5", "", " ", "abc"),
    *(
        "0x10",
        "1_000",
        "٣",
        "1,5",
        "true",
        "None",
        "1e",
        "--1",
        "2026-01-31",
        "1h30",
        "1h 30m",
        "1.5h30m",
        "h30m",
        "1h-30m",
    ),
]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_of_seconds_is_refused(text: str) -> None:
    """P07."""
    with pytest.raises(ValueError, match=r"^SECONDS must be a finite number of seconds of at least 0"):
        read_seconds("SECONDS", text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0.0), ("30", 30.0), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("1e-3", 0.001)),
        *(("500ms", 0.5), ("30s", 30.0), ("10m", 600.0), ("2h", 7200.0), ("1d", 86400.0), ("10 M", 600.0)),
        *(("1h30m", 5400.0), ("1H30M15s500ms", 5415.5)),
        *((" 7 ", 7.0), ("1e300", 1e300)),
    ],
)
def test_seconds_are_read_with_and_without_a_unit(text: str, seconds: float) -> None:
    assert read_seconds("SECONDS", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["nan", "1e999", "5x", "", "abc", "99" * 200])
def test_a_report_of_what_is_no_number_is_wrong_usage_and_leaves_no_trace(
    cli: Cli, admin: redis.Redis, text: str
) -> None:
    """P07."""
    outcome = cli("report", "openai", text)
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    assert not admin.exists(cli.place.keys.events)


def test_a_negative_number_is_wrong_usage_however_it_is_typed(cli: Cli) -> None:
    """P07."""
    for arguments in (["report", "openai", "-1"], ["report", "openai", "--", "-1"], ["wait", "openai", "--timeout=-1"]):
        outcome = cli(*arguments)
        assert outcome.code == 2
        assert len(outcome.err.splitlines()) == 1


def test_a_huge_number_of_seconds_counts_as_the_cap(cli: Cli) -> None:
    """P07."""
    told = cli("report", "openai", "1e300", "--json").json
    assert told["clamped"]
    assert told["wait_seconds"] == 3600.0
    assert told["asked_wait_seconds"] == 1e300


@pytest.mark.parametrize(
    "arguments",
    [
        *(["wait", "x", "--timeout", text] for text in ("nan", "1e999", "soon")),
        *(["report", "x", "1", "--sheet", text] for text in ("nan", "1.5", "9" * 30, "9" * 5000)),
        *(["report", "x", "1", "--max-wait", text] for text in ("0", "nan", "367d")),
        *(["events", "--count", text] for text in ("-1", "1.5", "many")),
        *(["events", "--since", text] for text in ("nan", "1e999", "yesterday", "2026-13-01", "2026-01-31T12:00:00")),
        ["events", "--since", f"{2**64}-0"],
        ["explain", "x", "--count", "-1"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_every_other_number_is_checked_as_well(cli: Cli, arguments: list[str]) -> None:
    """P07."""
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1


def test_a_wait_that_is_longer_than_any_limit_is_fine(cli: Cli) -> None:
    """P07."""
    assert cli("wait", "openai", "--timeout", "1e300").code == 0
    assert cli("events", "--since", "1e300").code == 0


def test_since_is_a_time_a_duration_or_an_id() -> None:
    assert read_since("2026-01-31T18:00:00Z") == datetime(2026, 1, 31, 18, tzinfo=UTC)
    assert read_since("2026-01-31T18:00:00+02:00") == datetime(2026, 1, 31, 16, tzinfo=UTC)
    assert read_since("90") == 90.0
    assert read_since("10m") == 600.0
    assert read_since("1526919030474-55") == "1526919030474-55"
    with pytest.raises(ValueError, match="time zone"):
        read_since("2026-01-31T18:00:00")
