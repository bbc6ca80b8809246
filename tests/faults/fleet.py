"""Many coordinators in one process: ``python -m tests.faults.fleet <url> <namespace> <first> <how many>``.

Each line on standard input is answered by one on standard output, in JSON: ``report`` has every coordinator report,
``states`` tells how many are in which state and how many reports are kept.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any, Self

from rate_coordinator import RateLimitCoordinator
from tests.servers import START_SECONDS


class Fleet:
    """A process with many coordinators, as seen by a test."""

    def __init__(self, url: str, namespace: str, first: int, count: int) -> None:
        self._arguments = [url, namespace, str(first), str(count)]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.fleet", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await self.ask("states")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def ask(self, what: str) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what.encode() + b"\n")
        async with asyncio.timeout(START_SECONDS):
            return json.loads(await self._process.stdout.readline())


async def serve(url: str, namespace: str, first: int, count: int) -> None:
    """Do what is asked for until standard input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    fleet = [RateLimitCoordinator.from_url(url, namespace, max_events=1000) for _ in range(count)]
    await asyncio.gather(*(coordinator.start() for coordinator in fleet))
    answer: Any
    while line := (await reader.readline()).strip():
        if line == b"report":
            reports = (one.report_rate_limit(f"b{first + n}", 600.0) for n, one in enumerate(fleet))
            answer = Counter(str(result.delivered) for result in await asyncio.gather(*reports))
        else:
            answer = Counter(one.health.state for one in fleet)
            answer["kept"] = sum(one.health.reports_buffered for one in fleet)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
