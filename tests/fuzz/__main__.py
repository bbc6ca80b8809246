"""Fuzz: ``python -m tests.fuzz [TARGET …] [--seconds 60]``, which all targets share."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.targets import TARGETS

START_SECONDS = 60.0
LONGEST_BYTES = 8192


def fuzz(name: str, seconds: float) -> bool:
    """Fuzz one target in a process of its own; print what it did, and return whether nothing was found."""
    _, seeds = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        corpus = Path(directory, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            corpus.joinpath(str(number)).write_bytes(seed)
        options = [f"-max_total_time={max(1, round(seconds))}", f"-max_len={LONGEST_BYTES}", "-timeout=5"]
        options += [f"-artifact_prefix={directory}/", "-print_final_stats=1", str(corpus)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.one", name, *options],
            capture_output=True,
            timeout=seconds + START_SECONDS,
            check=False,
        )
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        inputs = re.search(r"number_of_executed_units:\s*(\d+)", said)
        coverage = re.findall(r"cov: (\d+)", said)
        failed = done.returncode != 0 or inputs is None
        print(
            f"{name:<8} {inputs[1] if inputs else 0:>9} inputs, {coverage[-1] if coverage else 0:>5} branches reached: "
            f"{'FAILED' if failed else 'nothing found'}",
            flush=True,
        )
        if failed:
            print(said[-4000:])
            for path in sorted(Path(directory).glob("*-*")):
                print(f"on {path.read_bytes()!r}")
        return not failed


def main() -> int:
    """Run as a command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz what reads others' messages and keys."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all if none is named")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long in all; %(default)g if left out")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target is called {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        parser.error("atheris is not installed: there are wheels of it for CPython 3.11 to 3.13 on Linux (x86-64)")
    return 0 if all([fuzz(name, arguments.seconds / len(names)) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
