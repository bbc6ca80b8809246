"""A command that runs with this process's streams."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from rate_coordinator.cli.relay import Relay

NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""Exit codes of a shell for a command that could not be started (POSIX, 2.8.2)."""
KILLED = 128
"""Likewise, plus the signal's number, for one that a signal ended."""

MOST_WORDS = 16 * 1024
MOST_LINES = 30
"""No more of each of two streams is read, so that neither hides the other."""


class CommandNotStarted(Exception):
    """A command that there is not, or that cannot be run.

    Args:
        name: Of the command.
        error: What the system says.
    """

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f"{name}: {error.strerror}")
        self.code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


class Child:
    """A command that runs: in this process's group, with its standard input and all else that is inherited.

    Its two outputs come through a pipe or, to a terminal, through another terminal; where both go to the same place,
    together, so that they keep their order.

    Args:
        pid: Of the process.
        relays: Pass on its outputs; standard error is the last.
    """

    def __init__(self, pid: int, relays: Sequence[Relay]) -> None:
        self._pid = pid
        self._relays = relays
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @classmethod
    def start(cls, command: Sequence[str], blocked: Iterable[int]) -> Self:
        """Start a command.

        Args:
            command: Its name or path, and its arguments.
            blocked: The signals that it begins with blocked.

        Raises:
            CommandNotStarted: It could not be started.
        """
        relays = _relays()
        places = [(os.POSIX_SPAWN_DUP2, relays[0].theirs, 1), (os.POSIX_SPAWN_DUP2, relays[-1].theirs, 2)]
        # Python ignores these.
        default = [signal.SIGPIPE, signal.SIGXFSZ]
        try:
            pid = os.posix_spawnp(
                command[0], list(command), os.environ, file_actions=places, setsigmask=blocked, setsigdef=default
            )
        except OSError as error:
            for relay in relays:
                relay.close()
            raise CommandNotStarted(command[0], error) from error
        finally:
            for relay in relays:
                os.close(relay.theirs)
        return cls(pid, relays)

    @property
    def running(self) -> bool:
        """Whether it has not ended, as far as ``look`` has seen."""
        return not self._exit.done()

    @property
    def words(self) -> bytes:
        """The end of what it printed, standard error last."""
        if len(self._relays) == 1:
            return self._relays[0].tail
        return b"\n".join(
            b"\n".join(relay.tail[-MOST_WORDS:].split(b"\n")[-MOST_LINES - 1 :]) for relay in self._relays
        )

    @property
    def ended_its_line(self) -> bool:
        """Whether nothing stands behind the last newline that it printed."""
        return all(relay.tail[-1:] in {b"", b"\n"} for relay in self._relays)

    @property
    def trouble(self) -> OSError | None:
        """Why its outputs could not be passed on to the end; None also if nobody reads them any more."""
        errors = (relay.error for relay in self._relays)
        return next((error for error in errors if error and not isinstance(error, BrokenPipeError)), None)

    def send(self, number: int) -> None:
        """Send it a signal."""
        if self.running:
            os.kill(self._pid, number)

    def resize(self) -> bool:
        """Tell its terminals the size of ours; return whether it has any."""
        for relay in self._relays:
            relay.resize()
        return any(relay.is_terminal for relay in self._relays)

    def look(self) -> int | None:
        """Look what became of it, after a SIGCHLD; return the signal that stopped it, if one did."""
        stopped_by: int | None = None
        while self.running:
            there, status = os.waitpid(self._pid, os.WUNTRACED | os.WNOHANG)
            if not there:
                break
            if os.WIFSTOPPED(status):
                stopped_by = os.WSTOPSIG(status)
            else:
                self._exit.set_result(os.waitstatus_to_exitcode(status))
        return stopped_by

    async def end(self) -> int:
        """Wait until it has ended and all that it printed is passed on.

        Returns:
            Its exit code; negative for a signal.
        """
        ended, end = os.pipe()
        relaying = asyncio.gather(*(relay.run(ended) for relay in self._relays))
        try:
            code = await self._exit
        finally:
            os.close(end)
        await relaying
        os.close(ended)
        return code


def check_runnable(name: str) -> None:
    """Make sure that there is a command.

    Raises:
        CommandNotStarted: There is none that can be run.
    """
    if shutil.which(name) is None:
        number = errno.EACCES if os.path.dirname(name) and os.path.exists(name) else errno.ENOENT
        raise CommandNotStarted(name, OSError(number, os.strerror(number)))


def rewinder() -> Callable[[], None] | None:
    """Return what lets the next command read the same standard input again; None where that cannot be."""
    begin: int | None = None
    if sys.__stdin__ is not None and not stat.S_ISCHR(os.fstat(0).st_mode):
        try:
            begin = os.lseek(0, 0, os.SEEK_CUR)
        except OSError:
            return None

    def rewind() -> None:
        if begin is not None:
            os.lseek(0, begin, os.SEEK_SET)

    return rewind


def shell_code(code: int) -> int:
    """Return the exit code that a shell tells of a command."""
    return code if code >= 0 else KILLED - code


def _relays() -> list[Relay]:
    ours = [1 if sys.__stdout__ is not None else None, 2 if sys.__stderr__ is not None else None]
    if None not in ours and os.path.sameopenfile(1, 2):
        del ours[0]
    return [Relay(descriptor) for descriptor in ours]
