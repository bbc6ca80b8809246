"""``rate-coordinator serve`` as a process: where it listens, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
import redis

from rate_coordinator.web.api import MOST_VIEWERS
from tests.cli.programs import Cli, environment
from tests.conftest import Place
from tests.servers import RedisServer, eventually, free_port
from tests.web.serving import TOKEN, Served, serving


@pytest.fixture
async def client(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.address, timeout=20) as client:
        yield client


async def test_it_serves_the_page_and_everything_beside_it(client: httpx.AsyncClient, served: Served) -> None:
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Rate limits</title>" in page.text
    for path, kind in (("page.js", "text/javascript"), ("page.css", "text/css"), ("icon.svg", "image/svg+xml")):
        assert (await client.get(path)).headers["content-type"].startswith(kind)
        assert f'"{path}"' in page.text
    assert (await client.get("/healthz")).json()["state"] == "connected"
    assert "rate_coordinator" in (await client.get("/metrics")).text
    assert served.address.startswith("http://127.0.0.1:")


async def test_it_listens_on_loopback_alone_unless_told_otherwise(served: Served) -> None:
    others = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None)} - {"127.0.0.1", "127.0.1.1"}
    others = {other for other in others if not str(other).startswith(("127.", "::1"))}
    for other in others:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((str(other), served.port), timeout=5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_it_ends_in_order_while_streams_are_open(real: Place, number: int, code: int) -> None:
    with serving(real, token=TOKEN) as served:
        async with httpx.AsyncClient(base_url=served.address, timeout=20) as client, AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(client.stream("GET", "/api/v1/stream")) for _ in range(3)]
            began = time.monotonic()
            served.process.send_signal(number)
            texts = [(await stream.aread()).decode() for stream in streams]
            assert await asyncio.to_thread(served.process.wait, 20) == code
        # It need not be cut off, which happens after 3 seconds.
        assert time.monotonic() - began < 2.9
        assert all("event: state" in text for text in texts)
        assert served.process.stderr is not None
        assert served.process.stderr.read() == ""


async def test_there_are_no_more_streams_than_it_can_bear(client: httpx.AsyncClient, served: Served) -> None:
    async def look() -> tuple[str, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status = (await reader.readline()).decode()
        # What comes first tells that it is counted.
        await reader.readuntil(b"retry" if "200" in status else b"detail")
        return status, writer

    writers = []
    try:
        for _ in range(MOST_VIEWERS):
            status, writer = await look()
            writers.append(writer)
            assert "200" in status
        status, writer = await look()
        writers.append(writer)
        assert "503" in status
        assert (await client.get("/api/v1/status")).status_code == 200
    finally:
        for writer in writers:
            writer.close()

    async def again() -> bool:
        status, writer = await look()
        writer.close()
        return "200" in status

    await eventually(again)


async def test_it_starts_and_says_so_while_redis_is_away() -> None:
    place = Place(f"redis://:s3cr3t@127.0.0.1:{free_port()}", "test")
    with serving(place, "--max-wait", "2h", token=TOKEN) as served:
        async with httpx.AsyncClient(base_url=served.address, timeout=20) as client:
            ill = await client.get("/healthz")
            kept = await served.post("report", {"backend": "openai", "wait_seconds": 10_000})
            status = await client.get("/api/v1/status")
        assert ill.status_code == 503
        assert status.json()["health"]["state"] == "degraded"
        assert [limit["delivered"] for limit in status.json()["limits"]] == [False]
        assert (kept["delivered"], kept["wait_seconds"]) == (False, 7200.0)
        assert "s3cr3t" not in ill.text + status.text
        served.process.terminate()
        assert served.process.stderr is not None
        said = await asyncio.to_thread(served.process.stderr.read)
        assert "Redis cannot be heard" in said
        assert "s3cr3t" not in said
        assert TOKEN not in said


async def test_elsewhere_than_on_loopback_it_warns_of_who_can_see(real: Place) -> None:
    with serving(real, "--host", "0.0.0.0") as served:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", timeout=20) as client:
            assert (await client.get("/healthz", headers={"host": "any.example"})).status_code == 200
        served.process.terminate()
        assert served.process.stderr is not None
        said = await asyncio.to_thread(served.process.stderr.read)
    assert "whoever reaches 0.0.0.0 can see the limits" in said


def test_a_host_that_is_not_found_is_one_clear_error_that_names_it(cli: Cli) -> None:
    outcome = cli("serve", "--host", "256.1.1.1", "--port", "0")

    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert "cannot listen on '256.1.1.1'" in line


def test_a_port_that_is_taken_is_one_clear_error(cli: Cli, served: Served) -> None:
    outcome = cli("serve", "--port", str(served.port))

    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert "in use" in line


def test_a_server_that_cannot_be_used_is_one_clear_error(
    cli: Cli, admin: redis.Redis, redis_server: RedisServer
) -> None:
    admin.execute_command("ACL", "SETUSER", "poor", "on", ">s3cr3t", "~*", "&*", "+ping", "+hello", "+info")  # type: ignore[no-untyped-call]

    outcome = cli("--url", f"redis://poor:s3cr3t@127.0.0.1:{redis_server.port}", "serve", "--port", "0")

    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert "poor" in line or "permission" in line.lower() or "refuses" in line
    assert "s3cr3t" not in line


def test_a_token_that_cannot_be_used_is_wrong_usage_and_not_repeated(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_COORDINATOR_TOKEN", "too short")
    outcome = cli("serve", "--port", "0")

    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert "at least 16" in line
    assert "too short" not in line


def test_what_is_missing_is_named_with_its_extra_and_no_other_command_needs_it(real: Place) -> None:
    code = """
import sys
from rate_coordinator.cli import app, main
assert not {"starlette", "uvicorn", "prometheus_client"} & sys.modules.keys()
sys.modules["starlette"] = None
sys.exit(main(["serve"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(real), capture_output=True, text=True, timeout=20
    )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip install 'rate-coordinator[serve]'" in line
