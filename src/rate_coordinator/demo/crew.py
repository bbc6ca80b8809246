"""The demo's child processes: started, listened to, and all gone at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from rate_coordinator.demo.messages import READER, AnyMessage, Done
from rate_coordinator.demo.plan import RedisJob, UpstreamJob, WorkerJob

LEAVE_SECONDS = 3.0
"""How long children have to leave by themselves."""


class ChildFailed(Exception):
    """A child process ended that should not have; the message says which, and its last words."""


class Child:
    """One child process."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process
        self.done = False
        self.words: deque[str] = deque(maxlen=20)
        """The last of what it said that was no message: a traceback."""
        self.listening: asyncio.Task[None] | None = None

    @property
    def failure(self) -> str | None:
        """Why its end was not a good one; None if it was."""
        if self.done and self.process.returncode == 0:
            return None
        last = next((word for word in reversed(self.words) if word.strip()), "it said nothing")
        return f"{self.name} ended unexpectedly (status {self.process.returncode}): {last.strip()}"


class Crew:
    """Child processes whose messages arrive in one place. An async context manager: it leaves none behind."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}
        self._inbox: asyncio.Queue[tuple[Child, AnyMessage | None]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End all children."""
        children = list(self._children.values())
        for child in children:
            _input(child).close()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await asyncio.gather(*(child.process.wait() for child in children))
        for child in children:
            _kill_remains(child)
        await asyncio.gather(*(child.process.wait() for child in children))
        await asyncio.gather(*(child.listening for child in children if child.listening is not None))

    def pid(self, name: str) -> int:
        """Return a child's process ID."""
        return self._children[name].process.pid

    async def start(self, name: str, module: str, job: RedisJob | UpstreamJob | WorkerJob) -> None:
        """Start one of this package's modules as a process of its own.

        Args:
            name: What to call it.
            module: The module's name.
            job: What to tell it.
        """
        process = await asyncio.create_subprocess_exec(
            # -P: a redis.py in the directory that the demo is called from is not the one that we mean.
            *(sys.executable, "-P", "-m", f"rate_coordinator.demo.{module}", job.model_dump_json()),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            # Out of reach of the terminal's Ctrl-C, which is for the demo: it ends its children in good order.
            process_group=0,
        )
        child = self._children[name] = Child(name, process)
        child.listening = asyncio.create_task(self._listen(child))

    def say_go(self, name: str) -> None:
        """Let a child begin."""
        _input(self._children[name]).write(b"go\n")

    async def hear(self) -> tuple[str, AnyMessage]:
        """Return the next message of any child, with the child's name.

        Raises:
            ChildFailed: One ended before it was done.
        """
        while True:
            child, message = await self._inbox.get()
            if message is not None:
                return child.name, message
            if child.failure is not None:
                raise ChildFailed(child.failure)

    async def _listen(self, child: Child) -> None:
        """Put all that a child says into the inbox, and None when it has ended."""
        assert child.process.stdout is not None
        async for line in child.process.stdout:
            try:
                message = READER.validate_json(line)
            except ValidationError:
                child.words.append(line.decode(errors="replace"))
            else:
                child.done = child.done or isinstance(message, Done)
                self._inbox.put_nowait((child, message))
        await child.process.wait()
        self._inbox.put_nowait((child, None))


def _input(child: Child) -> asyncio.StreamWriter:
    assert child.process.stdin is not None
    return child.process.stdin


def _kill_remains(child: Child) -> None:
    """Kill a child that did not leave, or what one left behind that was killed, with all that it has started."""
    if child.process.returncode != 0:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)
