"""The server as a process, and a browser that looks at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.cli.programs import Cli
from tests.conftest import SERVERS, Place
from tests.servers import RedisServer
from tests.web.pages import View, chromium
from tests.web.serving import TOKEN, Served, serving


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The newest server alone: what differs between servers is the library's matter."""
    with RedisServer(SERVERS[0].path) as running:
        yield running


@pytest.fixture(scope="session")
def served(redis_server: RedisServer) -> Iterator[Served]:
    """One server for all tests that do not end it, with a token."""
    with serving(Place(redis_server.url, f"test {uuid4()}"), token=TOKEN) as served:
        yield served


@pytest.fixture
def cli(real: Place, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line within this process, at a namespace on a real server."""
    return Cli(real, capsys)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One headless Chromium for all tests."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(),
            # As root there is no sandbox; the others keep it from looking for hosts that nobody asked for.
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def view(browser: Browser) -> AsyncIterator[View]:
    """A new tab. Whatever goes wrong in it, or goes elsewhere than to its server, fails the test."""
    context = await browser.new_context(viewport={"width": 1200, "height": 900})
    view = View(await context.new_page())
    yield view
    await context.close()
    assert view.troubles == []
