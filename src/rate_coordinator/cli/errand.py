"""What ``run`` does: attempts at a command, each admitted, watched and reported."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from rate_coordinator import Admission, LimitWaitTimeout, RateLimitCoordinator, ReportResult, UpstreamAnswer
from rate_coordinator.answers import read_output
from rate_coordinator.cli import signals, texts
from rate_coordinator.cli.child import KILLED, Child, CommandNotStarted, check_runnable, rewinder, shell_code
from rate_coordinator.cli.commands.check import LIMITED
from rate_coordinator.cli.countdown import counting_down
from rate_coordinator.cli.output import complain, is_terminal
from rate_coordinator.cli.session import unstarted

_JOB_CONTROL = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


@dataclass(frozen=True)
class Errand:
    """A command, and how it is to be run; durations are in seconds."""

    backend: str
    model: str | None
    command: tuple[str, ...]
    attempts: int
    """How often it is run at most."""
    timeout: float | None
    """Longest wait before each attempt."""
    job_id: str | None
    guess_seconds: float | None
    """How long a limit lasts that does not say so; None for what the library thinks."""
    require_redis: bool
    quiet: bool

    @property
    def target(self) -> str:
        """What is called, as it is shown."""
        return texts.printable(texts.target(self.backend, self.model))


def carry_out(errand: Errand, coordinator: RateLimitCoordinator) -> int:
    """Run a command and return the exit code.

    Raises:
        ValueError: An argument cannot be used.
        CoordinatorUnavailable: Redis is away, and the errand requires it.
        ServerUnsuitable: Redis refuses something that is needed.
    """
    rewind = rewinder()
    if errand.attempts > 1 and rewind is None:
        raise ValueError(
            "--attempts needs a standard input that can be read again: a file, a terminal or /dev/null, not a pipe"
        )
    try:
        check_runnable(errand.command[0])
        with _silence() if errand.quiet else nullcontext():
            return asyncio.run(_Attempts(errand, coordinator, rewind).run())
    except CommandNotStarted as error:
        complain(str(error))
        return error.code


class _Failed(Exception):
    """The command failed for another reason than a limit: it was neither served nor refused."""

    def __init__(self, code: int) -> None:
        self.code = code


class _Attempts:
    def __init__(self, errand: Errand, coordinator: RateLimitCoordinator, rewind: Callable[[], None] | None) -> None:
        self._errand = errand
        self._coordinator = coordinator
        self._rewind = rewind
        self._task: asyncio.Task[object] | None = None
        self._child: Child | None = None
        self._blocked: frozenset[int] = frozenset()
        self._asked_to_end: int | None = None

    async def run(self) -> int:
        self._task = asyncio.current_task()
        with signals.heard(self._hear) as self._blocked:
            try:
                async with unstarted(self._coordinator):
                    # What cannot be used is refused before anything is connected.
                    self._admit()
                    await self._coordinator.start(degraded_ok=not self._errand.require_redis)
                    return await self._try()
            except asyncio.CancelledError:
                if self._asked_to_end is None:
                    raise
                return KILLED + self._asked_to_end

    async def _try(self) -> int:
        code = LIMITED
        for left in reversed(range(self._errand.attempts)):
            try:
                code, result = await self._attempt()
            except LimitWaitTimeout as error:
                self._say(str(error))
                break
            again = result is not None and left > 0 and self._asked_to_end is None
            if result is not None:
                self._say(_told(self._errand.target, result) + (f"; {left} more to try" if again else ""))
            if not again:
                break
            if self._rewind is not None:
                self._rewind()
        return shell_code(code)

    async def _attempt(self) -> tuple[int, ReportResult | None]:
        """Wait and run the command once; return its exit code, and what became of the report of a limit."""
        errand = self._errand
        try:
            async with AsyncExitStack() as admitted:
                async with (
                    nullcontext() if errand.quiet else counting_down(self._coordinator, errand.backend, errand.model)
                ):
                    call = await admitted.enter_async_context(self._admit())
                child = self._child = Child.start(errand.command, self._blocked)
                # What the library warns of would stand in the middle of the command's own output.
                with _silence():
                    code = await child.end()
                if child.trouble is not None:
                    self._say(f"the command's output: {child.trouble.strerror}")
                result = await self._observe(call, read_output(child.words, code))
                if result is None and code != 0:
                    raise _Failed(code)
        except _Failed as failed:
            return failed.code, None
        return code, result

    async def _observe(self, call: Admission, answer: UpstreamAnswer) -> ReportResult | None:
        if self._errand.guess_seconds is None:
            return await call.observe(answer, self._errand.job_id)
        return await call.observe(answer, self._errand.job_id, guess_seconds=self._errand.guess_seconds)

    def _admit(self) -> Admission:
        return self._coordinator.admit(self._errand.backend, self._errand.model, timeout=self._errand.timeout)

    def _hear(self, number: int, from_terminal: bool) -> None:
        """A signal has come; the command got it as well, if it came from the terminal."""
        child = self._child if self._child is not None and self._child.running else None
        if number in signals.ENDING:
            # Nobody who asks for an end wants another attempt.
            self._asked_to_end = number
        if child is None:
            if number in signals.ENDING and self._task is not None:
                self._task.cancel()
            elif number == signal.SIGTSTP:
                signals.stop_as(number)
        elif number == signal.SIGCHLD:
            stopped_by = child.look()
            if stopped_by in _JOB_CONTROL:
                # Whoever controls the job watches this process.
                signals.stop_as(stopped_by)
        elif number == signal.SIGWINCH:
            # Its own terminal had the old size when the signal reached it.
            if child.resize() or not from_terminal:
                child.send(number)
        elif not from_terminal:
            child.send(number)

    def _say(self, text: str) -> None:
        if self._errand.quiet:
            return
        if self._child is not None and not self._child.ended_its_line and is_terminal(sys.stderr):
            # A line is begun by erasing what is there.
            print(file=sys.stderr)
        complain(text)


def _told(target: str, result: ReportResult) -> str:
    limited = f"{target} refused; it is limited for {texts.seconds(result.seconds_remaining)}"
    if not result.delivered:
        return f"{limited}, which no other process knows, because Redis is away"
    return f"{limited}, until {texts.clock_time(result.resume_at)}" if result.resume_at else f"{target} refused"


@contextmanager
def _silence() -> Iterator[None]:
    logger = logging.getLogger("rate_coordinator")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
