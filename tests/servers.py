"""Real Redis servers that tests and benchmarks start on free ports of this machine, and stop again."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from tools.find_redis import Server, available

START_SECONDS = 20.0


def free_port() -> int:
    """Return a port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One ``redis-server`` (or ``valkey-server``) in a directory of its own, without persistence unless asked for.

    Args:
        binary: The program; the machine's own if left out.
        port: Where it listens; any free one if left out.
        options: More of its configuration, as pairs of name and value.
    """

    def __init__(self, binary: str | None = None, *, port: int | None = None, **options: str) -> None:
        self.binary = binary or available()[0].path
        self.port = port or free_port()
        self.environment: dict[str, str] = {}
        """What its environment has from its next start on, beside this program's."""
        self._directory = tempfile.TemporaryDirectory(prefix="redis-", ignore_cleanup_errors=True)
        self.socket = str(Path(self._directory.name) / "redis.sock")
        self._options = {"save": "", "appendonly": "no", **{name.replace("_", "-"): v for name, v in options.items()}}
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: redis.Redis | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def directory(self) -> Path:
        """Where it writes."""
        return Path(self._directory.name)

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    @property
    def admin(self) -> redis.Redis:
        """A client of its own for looking behind the library's back."""
        if self._admin is None:
            password = self._options.get("requirepass")
            self._admin = redis.Redis(port=self.port, password=password, decode_responses=True, protocol=2)
        return self._admin

    def start(self) -> Self:
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--daemonize", "no"]
        command += ["--dir", self._directory.name, "--unixsocket", self.socket, "--logfile", "redis.log"]
        for name, value in self._options.items():
            command += [f"--{name}", *(value.split(" ") if value else [""])]
        environment = os.environ | self.environment
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.admin.ping()
                return self
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = Path(self._directory.name, "redis.log")
                    said = log.read_text() if log.exists() else ""
                    raise RuntimeError(f"{self.binary} did not start:\n{said[-2000:]}") from None
                time.sleep(0.01)

    def configure(self, **options: str) -> None:
        """Change its configuration from its next start on."""
        self._options.update({name.replace("_", "-"): value for name, value in options.items()})

    def stop(self) -> None:
        """End it, and everything that it has not written to disk with it."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        if self._process is not None:
            self.resume()
            self._process.kill()
            self._process.wait(START_SECONDS)
            self._process = None

    def pause(self) -> None:
        """Let it go silent without a word, as a machine does that hangs."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def servers() -> list[Server]:
    """Return one server program of each version that is there."""
    found = {server.version_info: server for server in reversed(available())}
    if not found:
        raise RuntimeError("no redis-server to test against: run `make test`, which finds or fetches one")
    return [found[version] for version in sorted(found, reverse=True)]


def listed_rights() -> list[str]:
    """Return the rights that the README lists, as for ``ACL SETUSER``, without those to keys and channels."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    command = next(line for line in text.splitlines() if line.startswith("redis-cli ACL SETUSER"))
    limited_to = ("reset", "~", "&")
    return [rule for rule in shlex.split(command)[4:] if not rule.startswith(limited_to)]


async def eventually(condition: Callable[[], Any], within: float = 10.0) -> Any:
    """Wait until a condition holds and return its value, or fail once so many seconds have passed."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {within:g} s: {condition}")
        await asyncio.sleep(0.005)


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Make sure that a process that was started is gone afterwards."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(START_SECONDS)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
