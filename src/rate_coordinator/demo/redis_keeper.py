"""Runs a Redis server for as long as the demo lasts, and not a moment longer.

The server itself would not notice that the demo was killed. This process does (see ``child.py``), ends the server and
removes its directory.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from rate_coordinator.demo.child import run_child
from rate_coordinator.demo.messages import Ready, tell
from rate_coordinator.demo.plan import RedisJob

START_SECONDS = 15.0
STOP_SECONDS = 2.0
POLL_SECONDS = 0.01


async def work(told: RedisJob) -> None:
    """Run the server until cancelled.

    It listens on a Unix socket in a directory that only this user can enter: no port can be taken, and no password
    is needed.

    Raises:
        RuntimeError: The server ended by itself, or never answered.
    """
    directory = Path(told.directory)
    socket = directory / "redis.sock"
    server: Process | None = None
    try:
        server = await asyncio.create_subprocess_exec(
            *(told.program, "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
            *("--dir", str(directory), "--logfile", "redis.log", "--save", "", "--appendonly", "no"),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        announcing = asyncio.create_task(announce(socket))
        try:
            ended = asyncio.create_task(server.wait())
            await asyncio.wait({announcing, ended}, return_when=asyncio.FIRST_COMPLETED)
            if announcing.done():
                announcing.result()
                await ended
        finally:
            announcing.cancel()
        raise RuntimeError(f"{told.program} ended by itself: {last_words(directory / 'redis.log')}")
    finally:
        if server is not None:
            await stop(server)
        shutil.rmtree(directory, ignore_errors=True)


async def announce(socket: Path) -> None:
    """Tell the server's address as soon as it answers.

    Raises:
        RuntimeError: It never did.
    """
    for _ in range(int(START_SECONDS / POLL_SECONDS)):
        if await answers(socket):
            tell(Ready(address=f"unix://{quote(str(socket))}"))
            return
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"Redis did not answer within {START_SECONDS:g} s")


async def answers(socket: Path) -> bool:
    """Return whether a server at this socket answers ``PING``."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()


async def stop(server: Process) -> None:
    """End the server, the hard way if it does not leave when asked to."""
    with suppress(ProcessLookupError):
        server.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await server.wait()
    except TimeoutError:
        server.kill()
        await server.wait()


def last_words(log: Path) -> str:
    """Return the last line of the server's log."""
    try:
        return log.read_text(errors="replace").strip().splitlines()[-1]
    except (OSError, IndexError):
        return "it left no log"


if __name__ == "__main__":
    job = RedisJob.model_validate_json(sys.argv[1])
    run_child(lambda go: work(job))
