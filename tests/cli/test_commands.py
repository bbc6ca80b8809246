"""What each command prints and how it exits, in detail."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
import redis

from rate_coordinator import RateLimitCoordinator
from tests.cli.programs import Cli
from tests.conftest import Place


def is_time_with_zone(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None


def test_a_report_tells_until_when_its_target_is_limited(cli: Cli) -> None:
    outcome = cli("report", "openai", "30")
    assert outcome.code == 0
    assert outcome.out.startswith("openai is limited for 30.0 s, until ")
    assert outcome.err == ""


def test_a_report_that_extends_nothing_says_so(cli: Cli) -> None:
    cli("report", "openai", "30")
    assert cli("report", "openai", "10").out.startswith("openai stays limited for ")
    assert cli("report", "claude", "0").out == "claude is not limited; the report is recorded\n"


def test_a_report_above_the_cap_says_what_counts(cli: Cli) -> None:
    assert "(7200 s is above the cap of 3600 s)" in cli("report", "openai", "2h").out
    raised = cli("report", "claude", "5h", "--max-wait", "6h", "--json").json
    assert not raised["clamped"]
    assert raised["wait_seconds"] == 18_000


def test_a_report_as_json_has_its_documented_fields(cli: Cli) -> None:
    told = cli("report", "openai", "90m", "--model", "gpt", "--job-id", "j", "--sheet", "3", "--json").json
    assert is_time_with_zone(told.pop("resume_at"))
    assert 3599 < told.pop("seconds_remaining") <= 3600
    assert told.pop("event_id")
    assert told == {
        "target": "openai/gpt",
        "backend": "openai",
        "model": "gpt",
        "asked_wait_seconds": 5400.0,
        "wait_seconds": 3600.0,
        "extended": True,
        "clamped": True,
    }


def test_check_exits_with_75_and_prints_the_seconds_while_limited(cli: Cli) -> None:
    cli("report", "openai", "30")
    outcome = cli("check", "openai")
    assert outcome.code == 75
    assert 29 < float(outcome.out) <= 30
    assert cli("check", "openai", "--model", "any").code == 75
    assert cli("check", "claude").code == 0
    assert cli("check", "claude").out == "0.000\n"


def test_check_knows_a_models_limit_from_its_backends(cli: Cli) -> None:
    cli("report", "openai", "30", "--model", "gpt")
    assert cli("check", "openai").code == 0
    assert cli("check", "openai", "--model", "gpt").code == 75


def test_check_as_json_has_its_documented_fields(cli: Cli) -> None:
    assert cli("check", "openai", "--model", "gpt", "--json").json == {
        "target": "openai/gpt",
        "backend": "openai",
        "model": "gpt",
        "limited": False,
        "seconds_remaining": 0.0,
    }


def test_status_says_when_nothing_is_limited(cli: Cli) -> None:
    assert cli("status").out == "nothing is limited\n"


def test_status_shows_a_row_for_each_limit_with_its_reporter(cli: Cli) -> None:
    cli("report", "openai", "30", "--job-id", "nightly", "--sheet", "7", "--reason", "overloaded")
    cli("report", "claude", "60", "--model", "[bold]x[/bold]")
    head, _, first, second = cli("status").out.splitlines()
    assert head.split() == ["target", "left", "resumes", "reported", "by", "reason"]
    assert first.startswith("claude/[bold]x[/bold]")
    assert "██████████" in first
    assert second.startswith("openai")
    assert ", job nightly, sheet 7 " in second
    assert "overloaded" in second


def test_status_cuts_nothing_off_without_a_terminal(cli: Cli) -> None:
    name = "x" * 256
    cli("report", name, "30", "--job-id", "y" * 500)
    assert f"{name} " in cli("status").out
    assert "y" * 500 in cli("status").out


def test_status_as_json_has_its_documented_fields(cli: Cli) -> None:
    cli("report", "openai", "30", "--job-id", "j")
    told = cli("--json", "status").json
    (limit,) = told.pop("limits")
    assert told.pop("paces") == []
    assert told == {"address": cli.place.url, "namespace": cli.place.namespace}
    assert 29 < limit.pop("seconds_remaining") <= 30
    assert is_time_with_zone(limit.pop("resume_at"))
    assert limit.pop("reporter")
    assert limit == {
        "target": "openai",
        "backend": "openai",
        "model": None,
        "wait_seconds": 30.0,
        "reason": "rate_limit",
        "job_id": "j",
        "sheet_num": None,
        "held_until": None,
        "held_by": None,
        "note": "",
    }


def test_what_others_wrote_cannot_control_the_terminal(cli: Cli) -> None:
    cli("report", "openai", "30", "--job-id", "a\x1b[2J\nb")
    for command in (["status"], ["explain", "openai"], ["events"]):
        printed = cli(*command).out
        assert "a\\x1b[2J\\nb" in printed
        assert "\x1b" not in printed


def test_clearing_a_backend_clears_its_models_too(cli: Cli) -> None:
    cli("report", "openai", "30")
    cli("report", "openai", "30", "--model", "gpt")
    cli("report", "claude", "30")
    assert cli("clear", "openai").out == "cleared 2 limits\n"
    assert [limit["target"] for limit in cli("status", "--json").json["limits"]] == ["claude"]


def test_clearing_a_model_leaves_its_backend_alone(cli: Cli) -> None:
    cli("report", "openai", "30")
    cli("report", "openai", "30", "--model", "gpt")
    told = cli("clear", "openai", "--model", "gpt", "--json").json
    assert told == {"target": "openai/gpt", "backend": "openai", "model": "gpt", "cleared": 1, "held": []}
    assert cli("check", "openai").code == 75


def test_clearing_everything_is_refused_without_a_terminal_to_ask_on(cli: Cli) -> None:
    cli("report", "openai", "30")
    outcome = cli("clear")
    assert outcome.code == 2
    assert "--yes" in outcome.err
    assert cli("check", "openai").code == 75
    everything = {"target": None, "backend": None, "model": None}
    assert cli("clear", "--yes", "--json").json == {**everything, "cleared": 1, "held": []}
    assert cli("check", "openai").code == 0
    assert cli("clear", "--yes").out == "nothing was limited\n"


def test_clearing_keeps_the_events(cli: Cli, admin: redis.Redis) -> None:
    """A command that reads keeps few events in memory; that must never cut the stream."""
    for seconds in range(1, 21):
        cli("report", "openai", str(seconds))
    cli("status")
    cli("explain", "openai")
    cli("clear", "--yes")
    assert admin.xlen(cli.place.keys.events) == 21


def test_explain_tells_who_set_the_resume_time_and_what_was_asked(cli: Cli) -> None:
    cli("report", "openai", "10", "--job-id", "earlier")
    cli("report", "openai", "2h", "--job-id", "nightly", "--sheet", "7", "--reason", "quota")
    cli("report", "openai", "20", "--job-id", "later")
    printed = cli("explain", "openai").out
    first, *cause = printed.partition("since then:")[0].splitlines()
    assert first.startswith("openai is limited for 3")
    assert cause[0].startswith("  set by ")
    assert cause[0].endswith(", job nightly, sheet 7")
    assert cause[2] == "  asked     7200 s, of which 3600 s count (above cap)"
    assert cause[3] == "  reason    quota"
    since, before = printed.partition("since then:")[2].split("before that:")
    assert "job later" in since
    assert "job earlier" in before


def test_explain_tells_when_a_models_limit_is_its_backends(cli: Cli) -> None:
    cli("report", "openai", "30")
    assert "applies   to every model of openai" in cli("explain", "openai", "--model", "gpt").out


def test_explain_as_json_has_its_documented_fields(cli: Cli) -> None:
    clear = cli("explain", "openai", "--json").json
    assert clear == {
        "target": "openai",
        "backend": "openai",
        "model": None,
        "limited": False,
        "seconds_remaining": 0.0,
        "resume_at": None,
        "held_until": None,
        "note": "",
        "cause": None,
        "since": [],
        "before": [],
    }
    for seconds in ("10", "20", "30", "5"):
        cli("report", "openai", seconds)
    told = cli("explain", "openai", "--json", "--count", "1").json
    assert told["limited"]
    assert told["cause"]["wait_seconds"] == 30.0
    assert [event["wait_seconds"] for event in told["since"]] == [5.0]
    assert [event["wait_seconds"] for event in told["before"]] == [20.0]


def test_explain_shows_what_came_before_a_clear(cli: Cli) -> None:
    cli("report", "openai", "30")
    cli("clear", "openai")
    head, heading, newest, oldest = cli("explain", "openai").out.splitlines()
    assert head == "openai is not limited"
    assert heading == "earlier:"
    assert " clear " in newest
    assert " report " in oldest


def test_events_are_printed_with_the_newest_last(cli: Cli) -> None:
    cli("report", "openai", "30")
    cli("report", "openai", "10", "--model", "gpt", "--job-id", "j")
    cli("report", "openai", "5")
    cli("clear", "--yes")
    lines = cli("events").out.splitlines()
    assert len(lines) == 5
    assert "  report   openai  30 s  until " in lines[0]
    assert ", job j" in lines[1]
    assert "  openai  5 s  changed nothing  rate_limit  by " in lines[2]
    assert "  clear    openai" in lines[3] + lines[4]


def test_events_as_json_are_one_object_a_line(cli: Cli) -> None:
    cli("report", "openai", "30", "--job-id", "j", "--sheet", "1")
    cli("clear", "--yes")
    cli("clear", "--yes")
    report, clear, idle = cli("events", "--json").json_lines
    assert is_time_with_zone(report.pop("detected_at"))
    assert is_time_with_zone(report.pop("resume_at"))
    assert report.pop("id")
    assert report.pop("reporter")
    assert report == {
        "kind": "report",
        "target": "openai",
        "backend": "openai",
        "model": None,
        "asked_wait_seconds": 30.0,
        "wait_seconds": 30.0,
        "clamped": None,
        "extended": True,
        "reason": "rate_limit",
        "job_id": "j",
        "sheet_num": 1,
        "late_seconds": 0.0,
        "call_age_seconds": None,
        "pace_rate": None,
        "pace_ceiling": None,
        "probe": None,
        "note": "",
    }
    assert (clear["kind"], clear["target"]) == ("clear", "openai")
    assert (idle["kind"], idle["target"]) == ("clear", None)


def test_events_can_be_counted_and_begin_anywhere(cli: Cli) -> None:
    for seconds in ("1", "2", "3"):
        cli("report", "openai", seconds)
    everything = cli("events", "--json").json_lines
    assert [event["wait_seconds"] for event in everything] == [1.0, 2.0, 3.0]
    assert [event["wait_seconds"] for event in cli("events", "--count", "2", "--json").json_lines] == [2.0, 3.0]
    assert cli("events", "--count", "0").out == ""
    second, third = everything[1], everything[2]
    assert cli("events", "--since", second["id"], "--json").json_lines == [third]
    assert cli("events", "--since", second["detected_at"], "--json").json_lines == [second, third]
    for duration in ("60", "10m", "2h"):
        assert cli("events", "--since", duration, "--json").json_lines == everything
    assert cli("events", "--since", "2099-01-01T00:00:00Z").out == ""


def test_twenty_events_are_shown_unless_asked_for_more(cli: Cli) -> None:
    for _ in range(21):
        cli("report", "openai", "0")
    assert len(cli("events").out.splitlines()) == 20
    assert len(cli("events", "--since", "1h").out.splitlines()) == 21


@pytest.mark.parametrize("name", ["a/b", "ключ🗝️", "{x}", "a b", "%2F", "--help-me"])
def test_every_name_that_the_library_takes_can_be_typed(cli: Cli, name: str) -> None:
    assert cli("report", "30", "30", "--model", name).code == 0
    assert cli("report", "--", name, "30").code == 0
    assert cli("check", "--json", "--", name).json["seconds_remaining"] > 29


def test_wait_returns_at_once_when_clear_and_prints_nothing(cli: Cli) -> None:
    outcome = cli("wait", "openai")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_wait_ends_when_the_limit_lifts(cli: Cli) -> None:
    cli("report", "openai", "0.3")
    told = cli("wait", "openai", "--json").json
    assert told.pop("waited_seconds") > 0
    assert told == {"target": "openai", "backend": "openai", "model": None, "clear": True, "seconds_remaining": 0.0}
    assert cli("check", "openai").code == 0


def test_wait_gives_up_with_75_and_one_line_when_the_limit_outlasts_the_timeout(cli: Cli) -> None:
    cli("report", "openai", "30")
    outcome = cli("wait", "openai", "--timeout", "0.1")
    assert outcome.code == 75
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("rate-coordinator: openai is limited for ")
    told = cli("wait", "openai", "--timeout", "0", "--json").json
    assert not told["clear"]
    assert told["seconds_remaining"] > 29


async def refuse_a_call(place: Place) -> None:
    """Begin a pace."""
    coordinator = RateLimitCoordinator.from_url(place.url, place.namespace)
    async with coordinator, coordinator.admit("openai", "gpt") as call:
        await call.limited(0.05)


def test_a_pace_is_shown_and_forgotten(cli: Cli) -> None:
    assert cli("pace", "openai").out == "openai: no pace is remembered: every call may go at once\n"
    asyncio.run(refuse_a_call(cli.place))
    assert cli("pace", "openai", "--json").json == {
        "target": "openai",
        "backend": "openai",
        "model": None,
        "pace": None,
    }
    told = cli("pace", "openai", "--model", "gpt", "--json").json
    assert (told["target"], told["pace"]["target"], told["pace"]["processes"]) == ("openai/gpt", "openai/gpt", 1)
    assert 890 < told["pace"]["forgets_seconds"] < 901
    assert told["pace"].keys() == {
        *("target", "backend", "model", "rate", "ceiling", "admitted_per_second", "forgets_seconds", "processes"),
    }
    assert cli("pace", "openai", "--model", "gpt").out.startswith("openai/gpt: ")
    assert cli("status").out.splitlines()[-1].startswith("openai/gpt: ")
    assert [pace["target"] for pace in cli("status", "--json").json["paces"]] == ["openai/gpt"]
    assert cli("pace", "openai", "--model", "gpt", "--forget").out == "openai/gpt: forgotten\n"
    assert not cli("pace", "openai", "--model", "gpt", "--forget", "--json").json["forgotten"]
    assert cli("status", "--json").json["paces"] == []
    assert cli("events", "--json").json_lines[-1]["kind"] == "pace"


def test_global_options_stand_before_or_after_the_command(cli: Cli) -> None:
    url, namespace = cli.place.url, cli.place.namespace
    cli.bare("report", "openai", "30", "--url", url, "--namespace", namespace)
    assert cli.bare("--url", url, "--namespace", namespace, "--json", "check", "openai").json["limited"]
    # What stands after the command wins.
    wrong = ("--url", "redis://localhost:1", "--namespace", "other")
    assert cli.bare(*wrong, "check", "openai", "--url", url, "--namespace", namespace).code == 75


def test_the_environment_says_where_redis_is_and_options_win_over_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("report", "openai", "30")
    url, namespace = cli.place.url, cli.place.namespace
    monkeypatch.setenv("RATE_COORDINATOR_URL", url)
    monkeypatch.setenv("RATE_COORDINATOR_NAMESPACE", namespace)
    assert cli.bare("check", "openai").code == 75
    monkeypatch.setenv("RATE_COORDINATOR_NAMESPACE", "another")
    assert cli.bare("check", "openai").code == 0
    monkeypatch.setenv("RATE_COORDINATOR_URL", "redis://localhost:1")
    assert cli.bare("check", "openai").code == 1
    assert cli("check", "openai").code == 75
    assert cli.bare("check", "openai", "--url", url, "--namespace", namespace).code == 75
