"""A process of its own with a coordinator in it, told what to do through its standard input: one JSON line a command.

Run by ``Worker``; by hand: ``python -m tests.worker redis://127.0.0.1:6379 my-namespace '{}'``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any, Self

from rate_coordinator import LimitWaitTimeout, Notice, RateLimitCoordinator
from tests.servers import START_SECONDS, eventually


class Worker:
    """A worker process, as seen by a test.

    Args:
        url: Where its coordinator connects.
        namespace: Of the coordinator.
        prelude: Python that the process runs before it imports anything of the library.
        settings: More arguments of ``from_url``.
    """

    def __init__(self, url: str, namespace: str, *, prelude: str = "", **settings: Any) -> None:
        self._arguments = [url, namespace, json.dumps(settings)]
        self._prelude = prelude
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        code = f"{self._prelude}\nfrom tests.worker import main\nmain()"
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert await self.do("ready") is True
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def do(self, what: str, *arguments: Any, **keywords: Any) -> Any:
        """Have it call a method of its coordinator, or one of ``Commands``, and return what came of it."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, arguments, keywords]).encode() + b"\n")
        async with asyncio.timeout(START_SECONDS):
            answer = json.loads(await self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)


class Commands:
    """What a worker can do besides calling its coordinator."""

    def __init__(self, coordinator: RateLimitCoordinator) -> None:
        self._coordinator = coordinator
        self._heard: list[dict[str, Any]] = []
        coordinator.on_notice(self._hear)

    def _hear(self, notice: Notice) -> None:
        self._heard.append({**notice.model_dump(), "heard_at": time.monotonic()})

    async def ready(self) -> bool:
        await self._coordinator.start()
        return True

    async def active(self) -> dict[str, float]:
        return self._coordinator.active_limits

    async def resume_times(self) -> dict[str, int]:
        return {str(limit.target): round(limit.resume_at.timestamp() * 1000) for limit in self._coordinator.limits}

    async def recent(self) -> int:
        return len(self._coordinator.recent_events)

    async def heard(self) -> list[dict[str, Any]]:
        return self._heard

    async def health(self) -> dict[str, Any]:
        return self._coordinator.health.model_dump()

    async def limited(self, target: str) -> float:
        """Wait until a target is limited and return when that was seen."""
        await eventually(lambda: target in self._coordinator.active_limits)
        return time.monotonic()

    async def wall_clock(self) -> float:
        return time.time()

    async def reports(self, backend: str, count: int, wait_seconds: float) -> list[str | None]:
        """Report so many times at once and return the events' IDs."""
        results = await asyncio.gather(
            *(self._coordinator.report_rate_limit(backend, wait_seconds, sheet_num=n) for n in range(count))
        )
        return [result.event_id for result in results]

    async def demand(self, backend: str, tasks: int, seconds: float) -> list[float]:
        """Let so many tasks be admitted again and again for a while; return when each call was admitted."""
        admitted: list[float] = []
        ends = time.monotonic() + seconds

        async def keep_calling() -> None:
            while (left := ends - time.monotonic()) > 0:
                try:
                    async with self._coordinator.admit(backend, timeout=left):
                        admitted.append(time.monotonic())
                except LimitWaitTimeout:
                    return
                await asyncio.sleep(0)

        await asyncio.gather(*(keep_calling() for _ in range(tasks)))
        return admitted

    async def hold_a_call(self, backend: str) -> bool:
        """Let a call be admitted that never ends."""
        admitted = asyncio.Event()

        async def call() -> None:
            async with self._coordinator.admit(backend):
                admitted.set()
                await asyncio.get_running_loop().create_future()

        self._calling = asyncio.create_task(call())
        return await admitted.wait()

    async def storm(self, count: int) -> int:
        """Report one after the other, each longer than the last."""
        for number in range(count):
            await self._coordinator.report_rate_limit(f"b{number % 5}", 100 + number / 100)
        return count


async def serve(url: str, namespace: str, settings: dict[str, Any]) -> None:
    """Carry out what is asked for until standard input ends."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with RateLimitCoordinator.from_url(url, namespace, **settings) as coordinator:
        commands = Commands(coordinator)
        while line := await reader.readline():
            what, arguments, keywords = json.loads(line)
            try:
                method = getattr(commands, what, None) or getattr(coordinator, what)
                result = await method(*arguments, **keywords)
                answer = {"result": result.model_dump(mode="json") if hasattr(result, "model_dump") else result}
            except Exception as error:
                answer = {"error": repr(error)}
            print(json.dumps(answer), flush=True)


def main() -> None:
    """Run the worker."""
    asyncio.run(serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))


if __name__ == "__main__":
    main()
