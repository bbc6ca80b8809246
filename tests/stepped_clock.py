"""A wall clock that a test sets while a real server runs by it."""

from __future__ import annotations

import mmap
import struct
import subprocess
from functools import cached_property
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class SteppedClock:
    """The clock of the programs that are started with its environment: this host's, shifted.

    Args:
        directory: Where it is built, and where its programs look.
        shift_seconds: How far it is ahead, in whole seconds.
    """

    def __init__(self, directory: Path, shift_seconds: int = 0) -> None:
        self._directory = directory
        self._file = directory / "shift"
        self._file.write_bytes(struct.pack("d", shift_seconds))

    def step(self, shift_seconds: int) -> None:
        """Set it, at once, to so many seconds ahead of this host's."""
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            shared[:] = struct.pack("d", shift_seconds)

    @cached_property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to run by it."""
        library = self._directory / "stepped_clock.so"
        command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True, timeout=60)
        return {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(self._file)}
