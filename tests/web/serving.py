"""Runs ``rate-coordinator serve`` as people run it, on a free port."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.cli.programs import PROGRAM, Output, environment
from tests.conftest import Place
from tests.servers import running

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    place: Place
    address: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Write something, with the token."""
        async with httpx.AsyncClient(base_url=self.address, headers=BEARER) as client:
            answer = await client.post(f"api/v1/{path}", json=body)
        assert answer.is_success, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def report(self, backend: str, wait_seconds: float, **more: Any) -> None:
        await self.post("report", {"backend": backend, "wait_seconds": wait_seconds, **more})

    async def clear(self) -> None:
        await self.post("clear", {"all": True})


@contextmanager
def serving(place: Place, *arguments: str, token: str = "", port: int = 0) -> Iterator[Served]:
    """Start the console script, wait until it listens, and end it afterwards."""
    process = subprocess.Popen(
        [PROGRAM, "serve", "--port", str(port), "--json", *arguments],
        env=environment(place, RATE_COORDINATOR_TOKEN=token),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running(process):
        assert process.stdout is not None
        told = json.loads(Output(process.stdout.fileno()).until("\n"))
        yield Served(place, told["address"], process)
