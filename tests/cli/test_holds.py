"""``hold`` and ``release``, and how a hold is shown by the other commands."""

from __future__ import annotations

import re

import pytest

from tests.cli.programs import Cli


def test_a_hold_tells_until_when_and_status_and_explain_tell_why(cli: Cli) -> None:
    outcome = cli("hold", "openai", "--for", "1h30m", "--reason", "new [bold]contract\x1b[2J")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("openai is held for 5400 s, until ")
    row = next(line for line in cli("status").out.splitlines() if line.startswith("openai"))
    assert row.rstrip().endswith("hold: new [bold]contract\\x1b[2J")
    explained = cli("explain", "openai").out
    assert explained.startswith("openai is limited for 5")
    assert ": new [bold]contract\\x1b[2J\n" in explained
    assert "  ordered   " in explained
    assert "  hold     openai  5400 s  new [bold]contract" in cli("events").out
    assert cli("check", "openai").code == 75


def test_a_hold_as_json_has_its_documented_fields(cli: Cli) -> None:
    told = cli("hold", "openai", "--model", "gpt", "--for", "2h", "--reason", "why", "--json").json
    assert told.pop("event_id")
    resume_at = told.pop("resume_at")
    assert 7190 < told.pop("seconds_remaining") <= 7200
    assert told == {
        **{"target": "openai/gpt", "backend": "openai", "model": "gpt"},
        **{"wait_seconds": 7200.0, "note": "why", "extended": True},
    }
    (limit,) = cli("status", "--json").json["limits"]
    assert (limit["reason"], limit["note"], limit["held_until"]) == ("hold", "why", resume_at)
    assert limit["held_by"] == limit["reporter"]
    explained = cli("explain", "openai", "--model", "gpt", "--json").json
    assert (explained["held_until"], explained["note"], explained["cause"]["kind"]) == (resume_at, "why", "hold")


def test_a_release_tells_whether_it_was_held_and_what_is_left(cli: Cli) -> None:
    assert cli("release", "openai").out == "openai was not held\n"
    cli("hold", "openai", "--for", "2h")
    assert cli("report", "openai", "600").out.startswith("openai stays limited for 7")
    assert re.match(r"openai is released; it stays limited for (599|600)\.", cli("release", "openai").out)
    cli("hold", "claude", "--for", "90m")
    assert cli("release", "claude", "--json").json == {
        **{"target": "claude", "backend": "claude", "model": None},
        **{"released": True, "limited": False, "seconds_remaining": 0.0},
    }
    assert cli("check", "claude").code == 0
    assert "  release  claude  by " in cli("events").out


def test_a_hold_that_ends_before_a_limit_says_so(cli: Cli) -> None:
    cli("report", "openai", "3000", "--reason", "quota")
    assert cli("hold", "openai", "--for", "60").out.startswith(
        "openai is held for 60 s; what was reported limits it longer"
    )
    assert "quota; hold until " in cli("status").out
    assert "  held      by hand, until " in cli("explain", "openai").out


def test_a_clear_leaves_what_is_held_and_says_so(cli: Cli) -> None:
    cli("hold", "openai", "--for", "2h", "--reason", "maintenance")
    cli("report", "claude", "60")
    refused = cli("clear")
    assert refused.code == 2
    outcome = cli("clear", "--yes")
    first, second = outcome.out.splitlines()
    assert first == "cleared 1 limit"
    assert second.startswith("openai stays held for 7")
    assert second.endswith(" s (hold: maintenance); release ends that")
    assert cli("clear", "openai", "--json").json["held"] == ["openai"]
    assert cli("clear", "claude").out == "nothing was limited\n"
    assert cli("check", "openai").code == 75


@pytest.mark.parametrize(
    "arguments",
    [
        ["hold", "openai"],
        ["hold", "openai", "--for", "0"],
        ["hold", "openai", "--for", "soon"],
        ["hold", "openai", "--for", "367d"],
        ["hold", "openai", "--for", "1h", "--reason", "x" * 257],
        ["hold", "", "--for", "1h"],
        ["release"],
        ["release", ""],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_what_cannot_be_held_or_released_is_wrong_usage(cli: Cli, arguments: list[str]) -> None:
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert cli("events").out == ""


@pytest.mark.parametrize(
    "arguments", [["hold", "openai", "--for", "1h"], ["release", "openai"]], ids=["hold", "release"]
)
def test_where_redis_is_away_nothing_is_held_or_released(cli: Cli, arguments: list[str]) -> None:
    outcome = cli.bare("--url", "redis://127.0.0.1:1", *arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert len(outcome.err.splitlines()) == 1
