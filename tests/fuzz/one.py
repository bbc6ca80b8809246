"""Fuzz one target in this process until the time is over or it fails: ``python -m tests.fuzz.one TARGET OPTION …``."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Hand everything behind the name to libFuzzer, which ends the process."""
    with atheris.instrument_imports(include=["rate_coordinator", "tests.fuzz.targets"]):
        from tests.fuzz.targets import TARGETS
    name, *arguments = sys.argv[1:]
    target, _ = TARGETS[name]
    atheris.Setup([sys.argv[0], *arguments], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
