"""The examples run as they are, and do what they say."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import redis

from tests.conftest import Make, Place
from tests.servers import RedisServer, free_port, running

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LONGEST_SECONDS = 30


def environment(url: str | None) -> dict[str, str]:
    without_ours = {name: value for name, value in os.environ.items() if not name.startswith("RATE_COORDINATOR_")}
    return without_ours if url is None else {**without_ours, "RATE_COORDINATOR_URL": url}


def run(example: str, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / example, *arguments],
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


@contextmanager
def started(example: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    with running(subprocess.Popen(command, env=environment(None), stdout=subprocess.PIPE, text=True)) as process:
        yield process


async def next_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process says; what says nothing is killed by the fixture that started it."""
    assert process.stdout is not None
    async with asyncio.timeout(LONGEST_SECONDS):
        return (await asyncio.to_thread(process.stdout.readline)).rstrip("\n")


@pytest.fixture
def fresh(redis_server: RedisServer) -> RedisServer:
    """The shared server without what an example that ran before left in the default namespace."""
    redis_server.admin.delete(*redis_server.admin.keys("{rate_coordinator}:*"), "none")
    return redis_server


@pytest.mark.parametrize("how", ["option", "environment"])
def test_two_daemons_share_a_limit_of_which_one_heard_first_hand(fresh: RedisServer, how: str) -> None:
    said = run("two_daemons.py", "--url", fresh.url) if how == "option" else run("two_daemons.py", url=fresh.url)
    assert (said.returncode, said.stderr) == (0, ""), said

    refusal = re.search(r"^(\S+ \S+) (\S+) got a 429, Retry-After 1 s", said.stdout, re.MULTILINE)
    assert refusal, said.stdout
    refused_at, reporter = datetime.fromisoformat(refusal[1]), refusal[2]
    (other,) = {"daemon-1", "daemon-2"} - {reporter}
    hearing = re.search(rf"^\S+ \S+ {other} hears from {reporter}: back off for ([\d.]+) s", said.stdout, re.MULTILINE)
    assert hearing, said.stdout
    assert 0.9 < float(hearing[1]) <= 1.0
    # From the first refusal to the end of the limit nothing goes through, but for a call that was on its way.
    calls = re.findall(r"^(\S+ \S+) \S+ call \d+ went through", said.stdout, re.MULTILINE)
    gaps = [(datetime.fromisoformat(at) - refused_at).total_seconds() for at in calls]
    assert len(calls) == 10
    assert not [gap for gap in gaps if 0.3 < gap < 0.99], said.stdout
    assert re.search(rf"^\S+ \S+ {other} goes on after waiting [\d.]+ s", said.stdout, re.MULTILINE)
    # A machine that is busy may have both calls on their way at once; then both are refused.
    assert re.search(r"^the upstream was called (11 times and refused 1|12 times and refused 2)$", said.stdout, re.M)


@pytest.mark.parametrize("where", ["memory", "redis"])
def test_the_scheduler_skips_what_is_limited_and_returns_to_it(fresh: RedisServer, where: str) -> None:
    said = run("scheduler.py") if where == "memory" else run("scheduler.py", "--url", fresh.url)
    assert said.returncode == 0, said
    lines = [line for line in said.stdout.splitlines() if not line.startswith("everything is limited")]
    assert lines == [
        "refused  summary (example-llm/example-large), to be left alone for 0.5 s",
        "done     title (example-llm/example-small)",
        "done     issue (example-forge)",
        "done     summary (example-llm/example-large)",
        "done     review (example-llm/example-large)",
    ]
    assert "everything is limited, the next in 0." in said.stdout
    assert fresh.admin.xlen("{rate_coordinator}:events") == (0 if where == "memory" else 1)


async def test_the_listener_tells_limits_and_clears_in_plain_redis_py(real: Place, make: Make) -> None:
    arguments = ["--url", real.url, "--namespace", real.namespace, "--count", "3"]
    with started("notice_listener.py", *arguments) as listener:
        assert await next_line(listener) == f"listening to {real.keys.notices}"
        coordinator = await make(reporter="one")
        await coordinator.report_rate_limit("claude", 30.0, "night run", 7)
        assert await next_line(listener) == "claude: limited for 30.000 s, says one (job night run)"
        await coordinator.report_rate_limit("claude", 5.0, model="opus")
        assert await next_line(listener) == "claude/opus: limited for 5.000 s, says one (job None)"
        await coordinator.clear_limits("claude", model="opus")
        assert await next_line(listener) == "claude/opus: cleared, says one"
        assert await asyncio.to_thread(listener.wait, LONGEST_SECONDS) == 0


async def test_the_listener_passes_over_kinds_that_it_does_not_know(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    with started("notice_listener.py", "--url", real.url, "--namespace", real.namespace, "--count", "1") as listener:
        await next_line(listener)
        admin.publish(real.keys.notices, '{"version":2,"kind":"something new"}')
        coordinator = await make(reporter="one")
        await coordinator.report_rate_limit("claude", 30.0)
        assert (await next_line(listener)).startswith("claude: limited for 30.000 s")
        assert await asyncio.to_thread(listener.wait, LONGEST_SECONDS) == 0


def test_the_listener_needs_nothing_of_this_library() -> None:
    text = (EXAMPLES / "notice_listener.py").read_text()
    assert not re.search(r"^\s*(import|from)\s+rate_coordinator", text, re.MULTILINE)


@pytest.mark.parametrize("example", ["two_daemons.py", "scheduler.py", "notice_listener.py"])
def test_without_a_redis_an_example_says_so_and_fails(example: str) -> None:
    said = run(example, "--url", f"redis://127.0.0.1:{free_port()}")
    assert said.returncode == 1
    assert "connecting to 127.0.0.1" in said.stderr
    assert "Traceback" not in said.stderr
