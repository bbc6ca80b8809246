"""Runs the command line: the console script as people run it, or its entry point within this process."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from rate_coordinator.cli import main
from tests.conftest import Place
from tests.servers import eventually, running

PROGRAM = str(Path(sys.executable).with_name("rate-coordinator"))
LONGEST_SECONDS = 20.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one line of JSON that it printed."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Runs the entry point within this process, with the place given before the command."""

    def __init__(self, place: Place, capture: pytest.CaptureFixture[str]) -> None:
        self.place = place
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        return self.bare("--url", self.place.url, "--namespace", self.place.namespace, *arguments)

    def bare(self, *arguments: str) -> Outcome:
        self._capture.readouterr()
        code = main(arguments)
        return Outcome(code, *self._capture.readouterr())


class Output:
    """What a program prints, read as it comes."""

    def __init__(self, descriptor: int) -> None:
        self.text = ""
        self._descriptor = descriptor

    def until(self, wanted: str, within: float = LONGEST_SECONDS) -> str:
        """Read until a text was printed, and return everything that was printed so far."""
        deadline = time.monotonic() + within
        while wanted not in self.text:
            if not self.more(deadline - time.monotonic()):
                raise AssertionError(f"{wanted!r} was not printed within {within:g} s, but {self.text!r}")
        return self.text

    def more(self, within: float) -> bool:
        """Read what comes next; return whether anything came."""
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, within))
        if not ready:
            return False
        try:
            chunk = os.read(self._descriptor, 65536)
        except OSError:
            # The other side of a terminal was closed.
            return False
        self.text += chunk.decode()
        return bool(chunk)

    def rest(self, within: float = LONGEST_SECONDS) -> str:
        """Read to the end and return everything."""
        while self.more(within):
            pass
        return self.text


def environment(place: Place | None = None, **more: str) -> dict[str, str]:
    """Return this process's environment with the place in the program's own variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RATE_COORDINATOR_")}
    chosen = {} if place is None else {"RATE_COORDINATOR_URL": place.url, "RATE_COORDINATOR_NAMESPACE": place.namespace}
    return {**inherited, **chosen, **more}


def run(place: Place | None, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
    """Run the console script to its end, without a terminal."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        env=environment(place, **(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def do(place: Place, *arguments: str) -> Outcome:
    """Run the entry point within this process, which takes no time, to prepare for what is really tested."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["--url", place.url, "--namespace", place.namespace, *arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def wait_for_listener(admin: redis.Redis, place: Place) -> None:
    """Wait until a program listens, in a namespace that nothing else listens in, and has read its first snapshot."""

    def there() -> bool:
        ((_, listeners),) = admin.pubsub_numsub(place.keys.notices)
        return bool(listeners) and bool(admin.exists(place.keys.order))

    asyncio.run(eventually(there, LONGEST_SECONDS))


@contextmanager
def started(place: Place, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Output]]:
    """Start the console script, without a terminal, and end it afterwards."""
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        env=environment(place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running(process):
        assert process.stdout is not None
        yield process, Output(process.stdout.fileno())


class Terminal:
    """The console script on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[str], descriptor: int) -> None:
        self.process = process
        self.output = Output(descriptor)
        self._descriptor = descriptor

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def resize(self, lines: int, columns: int) -> None:
        termios.tcsetwinsize(self._descriptor, (lines, columns))

    def end(self) -> int:
        """Read to the end and return the exit code."""
        self.output.rest()
        return self.process.wait(LONGEST_SECONDS)


@contextmanager
def on_terminal(place: Place, *arguments: str, program: Sequence[str] = (PROGRAM,), **env: str) -> Iterator[Terminal]:
    """Start the console script, or another program, on a terminal, and end it afterwards."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*program, *arguments],
            env=environment(place, TERM="xterm", **env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            text=True,
            # A session of its own, with this terminal as the one that Ctrl-C comes from.
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        with running(process):
            yield Terminal(process, ours)
    finally:
        os.close(ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
