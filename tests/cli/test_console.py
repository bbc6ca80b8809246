"""The console script as a shell runs it, each command once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest
import redis

from tests.cli.programs import LONGEST_SECONDS, PROGRAM, Output, do, environment, run, started, wait_for_listener
from tests.conftest import Place


def report_until_heard(place: Place, output: Output) -> dict[str, object]:
    """Report ever longer limits until a program that listens prints its first line, and return that line as JSON."""
    wait_seconds = 30
    while "\n" not in output.text:
        assert wait_seconds < 60, "nothing was heard"
        do(place, "report", "openai", str(wait_seconds))
        wait_seconds += 1
        output.more(1.0)
    line: dict[str, object] = json.loads(output.text.splitlines()[0])
    return line


def test_each_command_runs_and_exits_as_documented(real: Place) -> None:
    assert run(real, "--version").out == f"rate-coordinator {version('rate-coordinator')}\n"
    assert run(real, "status").out == "nothing is limited\n"
    assert run(real, "report", "openai", "30").code == 0
    assert "set by" in run(real, "explain", "openai").out
    assert run(real, "clear", "openai").out == "cleared 1 limit\n"
    assert len(run(real, "events").out.splitlines()) == 2
    assert "reachable" in run(real, "doctor").out


def test_without_a_command_the_help_is_shown(real: Place) -> None:
    outcome = run(real)
    assert outcome.code == 2
    assert "Usage: rate-coordinator" in outcome.out


def test_wait_and_then_runs_what_waits_in_a_shell(real: Place) -> None:
    do(real, "report", "claude", "3")
    done = subprocess.run(
        ["/bin/sh", "-c", f"'{PROGRAM}' check claude; '{PROGRAM}' wait claude && '{PROGRAM}' check claude"],
        env=environment(real),
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 0
    before, after = done.stdout.splitlines()
    assert 0 < float(before) <= 3
    assert after == "0.000"
    assert done.stderr == ""


def test_wait_ends_when_somebody_clears(real: Place, admin: redis.Redis) -> None:
    do(real, "report", "openai", "600")
    with started(real, "wait", "openai") as (process, _):
        wait_for_listener(admin, real)
        do(real, "clear", "openai")
        assert process.wait(LONGEST_SECONDS) == 0


def test_notices_are_json_lines_that_come_at_once(real: Place) -> None:
    with started(real, "notices") as (_, output):
        line = report_until_heard(real, output)
        assert line["kind"] == "limit"
        assert line["target"] == "openai"
        assert str(line["resume_at"]).endswith("+00:00")
        assert {"id", "previous_id", "epoch", "now_ms", "resume_at_ms", "wait_ms", "version"} <= set(line)
        do(real, "clear", "--yes")
        cleared = json.loads(output.until('"kind": "clear"').splitlines()[-1])
        assert cleared["resume_at"] is None
        assert cleared["wait_seconds"] == 0


def test_watch_prints_a_line_for_each_change_without_a_terminal(real: Place) -> None:
    do(real, "report", "before", "600")
    with started(real, "watch") as (_, output):
        output.until("before limited: ")
        do(real, "report", "openai", "30")
        output.until("openai limited: 30.0 s left, until ")
        do(real, "report", "openai", "40")
        output.until("openai extended: 40.0 s left, until ")
        do(real, "clear", "openai")
        output.until("openai cleared\n")
        do(real, "report", "openai", "0.2")
        output.until("openai lifted\n")


def test_watch_as_json_prints_an_object_for_each_change(real: Place) -> None:
    do(real, "report", "openai", "30", "--job-id", "j")
    with started(real, "watch", "--json") as (_, output):
        first = json.loads(output.until("\n"))
        assert (first["change"], first["target"], first["job_id"]) == ("limited", "openai", "j")
        do(real, "clear", "openai")
        second = json.loads(output.until('"cleared"').splitlines()[1])
        assert (second["change"], second["seconds_remaining"]) == ("cleared", 0.0)


def test_following_events_shows_also_reports_that_extend_nothing(real: Place) -> None:
    do(real, "report", "openai", "600", "--job-id", "first")
    with started(real, "events", "--follow") as (_, output):
        output.until("job first")
        do(real, "report", "openai", "1", "--job-id", "second")
        output.until("1 s  changed nothing")
        do(real, "clear", "openai")
        output.until("  clear    openai")
        assert output.text.count("job first") == 1


def test_following_events_goes_on_after_redis_lost_them(real: Place, admin: redis.Redis) -> None:
    do(real, "report", "openai", "600", "--job-id", "first")
    with started(real, "events", "--follow", "--json") as (_, output):
        output.until('"first"')
        do(real, "report", "openai", "700", "--job-id", "second")
        output.until('"second"')
        for key in admin.scan_iter(match=f"{real.keys.prefix}:*"):
            admin.delete(key)
        # A stream with IDs from the past, as on a replica that was behind.
        admin.xadd(real.keys.events, {"nothing": "readable"}, id="1000-0")
        do(real, "report", "openai", "30", "--job-id", "third")
        output.until('"third"')
        assert [json.loads(line)["job_id"] for line in output.text.splitlines()] == ["first", "second", "third"]


def test_a_reader_that_goes_away_ends_it_quietly_even_when_nothing_comes(real: Place) -> None:
    do(real, "report", "openai", "600")
    for arguments in ("events --follow", "watch"):
        done = subprocess.run(
            ["/bin/bash", "-c", f"'{PROGRAM}' {arguments} | head -1; exit ${{PIPESTATUS[0]}}"],
            env=environment(real),
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""
        assert done.returncode == 141


def test_a_table_whose_reader_is_gone_ends_like_all_other_output(real: Place) -> None:
    do(real, "report", "openai", "600")
    for arguments in ("status", "status --json"):
        done = subprocess.run(
            ["/bin/bash", "-c", f"'{PROGRAM}' {arguments} | true; exit ${{PIPESTATUS[0]}}"],
            env=environment(real),
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (141, "")


def test_output_that_cannot_be_written_is_no_reason_for_a_traceback(real: Place) -> None:
    do(real, "report", "openai", "600")
    done = subprocess.run(
        ["/bin/bash", "-c", f"'{PROGRAM}' status >&- && '{PROGRAM}' status > /dev/full"],
        env=environment(real),
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "rate-coordinator: No space left on device\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quickly_and_without_a_traceback(
    real: Place, admin: redis.Redis, number: signal.Signals, code: int
) -> None:
    do(real, "report", "openai", "600")
    with started(real, "wait", "openai") as (process, _):
        wait_for_listener(admin, real)
        process.send_signal(number)
        assert process.wait(LONGEST_SECONDS) == code
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_characters_that_the_locale_does_not_have_are_escaped(real: Place) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    do(real, "report", "ключ", "30")
    told = run(real, "status", env=ascii_only).out
    assert "##########" in told
    assert "\\u043a\\u043b" in told
    assert run(real, "status", "--json", env=ascii_only).json["limits"][0]["target"] == "ключ"


def test_what_only_reads_does_not_wait_for_rich_to_be_loaded(real: Place) -> None:
    program = (
        "import sys; from rate_coordinator.cli import main; code = main(['check', 'openai'])\n"
        "sys.exit('rich' in sys.modules or code)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(real), timeout=LONGEST_SECONDS, check=False)
    assert done.returncode == 0
