"""The processes of a chaos run, as the driver sees them."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

LONGEST_LINE = 2**20


class Crew:
    """All processes of the run. Each has a number that no other ever had.

    Args:
        tell: Called with the number of a process and everything that it tells.
    """

    def __init__(self, tell: Callable[[int, dict[str, Any]], None]) -> None:
        self.processes: list[Process] = []
        self._tell = tell
        self._numbers = itertools.count()
        self._arguments: Callable[[int], list[str]] = lambda number: []

    async def start(self, count: int, arguments: Callable[[int], list[str]]) -> None:
        """Start so many processes with the arguments of ``tests.chaos.worker`` that belong to each number."""
        self._arguments = arguments
        for _ in range(count):
            self.processes.append(await self._new())

    async def replace(self, place: int, dies: Callable[[int, float], None]) -> tuple[int, int]:
        """Kill a process and start another one in its place.

        Args:
            place: Which.
            dies: Called with its number and when it was killed; everything that it told is taken in by then.

        Returns:
            The numbers of both.
        """
        old = self.processes[place]
        killed_at = time.time()
        await old.end()
        dies(old.number, killed_at)
        self.processes[place] = heir = await self._new()
        await heir.do("resume")
        return old.number, heir.number

    async def all(self, what: str) -> list[Any]:
        """Have every process call a method of its ``Life`` and return the results."""
        return await asyncio.gather(*(process.do(what) for process in self.processes))

    async def end(self) -> None:
        """Kill every process that lives."""
        for process in self.processes:
            await process.end()

    async def _new(self) -> Process:
        number = next(self._numbers)
        process = Process(number, self._arguments(number), self._tell)
        await process.start()
        return process


class Process:
    """One process of the run.

    Args:
        number: Which.
        arguments: Of ``tests.chaos.worker``.
        tell: Called with the number and everything that the process tells.
    """

    def __init__(self, number: int, arguments: list[str], tell: Callable[[int, dict[str, Any]], None]) -> None:
        self.number = number
        self._arguments = arguments
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, in a session of its own: an interrupt from the keyboard is the driver's to deal with."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.worker", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LONGEST_LINE,
        )
        self._listening = asyncio.create_task(self._listen(self._process))

    async def do(self, what: str, *arguments: Any, within: float = 10.0) -> Any:
        """Have it call a method of its ``Life`` and return the result. Everything told before is taken in by then."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, arguments]).encode() + b"\n")
        async with asyncio.timeout(within):
            answer = await self._answers.get()
        if answer is None:
            raise RuntimeError(f"process {self.number} has ended with {await self._process.wait()}")
        return answer["result"]

    def stop(self) -> float:
        """Stop it where it is and return when."""
        self._send(signal.SIGSTOP)
        return time.time()

    def wake(self) -> float:
        """Let it go on and return when."""
        self._send(signal.SIGCONT)
        return time.time()

    async def end(self) -> None:
        """Kill it, if it still lives, and wait for its end."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        if self._listening is not None:
            await asyncio.wait([self._listening])

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            try:
                told = json.loads(line)
            except ValueError:
                # It was killed in the middle of a line.
                break
            if told["kind"] == "answer":
                self._answers.put_nowait(told)
            else:
                self._tell(self.number, told)
        self._answers.put_nowait(None)
