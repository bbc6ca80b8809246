"""What the documents tell people to type is answered."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx
import pytest
from starlette.routing import Mount, Route

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.web import create_app
from tests.conftest import Place
from tests.web.serving import TOKEN, Served

ROOT = Path(__file__).parents[2]
COMMANDS = [
    line
    for document in ("README.md", "docs/http.md")
    for line in (ROOT / document).read_text().splitlines()
    if line.startswith("curl ")
]


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_request_that_is_shown_succeeds(command: str, served: Served) -> None:
    """Curl itself need not be there."""
    words = iter(shlex.split(command.replace("$TOKEN", TOKEN)))
    assert next(words) == "curl"
    url, headers, body = "", {}, None
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words)
        else:
            url = word.replace("localhost:8765", f"localhost:{served.port}")
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.request("GET" if body is None else "POST", url, content=body)
    assert answer.status_code == 200, answer.text


def test_every_endpoint_is_described_and_nothing_else(real: Place) -> None:
    described = set(re.findall(r"^\| `(?:GET|POST) ([^`?]+)", (ROOT / "docs/http.md").read_text(), re.MULTILINE))
    app = create_app(RateLimitCoordinator.from_url(real.url))
    there = set()
    for route in app.routes:
        if isinstance(route, Route):
            there.add(route.path)
        elif isinstance(route, Mount):
            inner = [other.path for other in route.routes if isinstance(other, Route)]
            there |= {f"{route.path}{path}" for path in inner or ["/"]}
    assert described == there
