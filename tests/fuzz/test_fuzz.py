"""A few seconds of fuzzing, and what its targets do with honest input; ``make fuzz`` goes on for a minute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rate_coordinator.mirror import Mirror
from tests.fuzz import targets
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_what_it_begins_from(name: str) -> None:
    target, seeds = TARGETS[name]
    for seed in seeds:
        target(seed)


def test_a_few_seconds_of_fuzzing_find_nothing() -> None:
    pytest.importorskip("atheris", reason="there are wheels of atheris for CPython 3.11 to 3.13 on Linux (x86-64)")
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing found") == len(TARGETS)


def test_what_is_found_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The targets can fail: a mirror that does not take an honest snapshot in is found by the first input."""
    monkeypatch.setattr(Mirror, "replace", lambda *arguments: set())
    with pytest.raises(AssertionError):
        targets.mirrors(b"")
