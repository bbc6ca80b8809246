"""A tab that shows the page, and what goes wrong in it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pytest
from playwright.async_api import ConsoleMessage, Locator, Page, Request

from tools.find_chromium import from_path

PATIENCE_MS = 20_000
"""How long a busy machine may take to show something."""


def chromium() -> str:
    """Return the browser's path; without one, tests are skipped, but fail in continuous integration."""
    path = from_path()
    if path is None:
        reason = "no Chromium to look at the page with: run `make test`, which finds or installs one"
        if os.environ.get("CI"):
            raise RuntimeError(reason)
        pytest.skip(reason)
    return path


class View:
    """One tab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles: list[str] = []
        self._host = ""
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._says)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.troubles.append(f"dialog: {dialog.message}"))
        page.on("request", self._requests)

    async def open(self, address: str) -> None:
        """Go to the page and wait until it shows something."""
        self._host = urlsplit(address).netloc
        await self.page.goto(address)
        await self.connection("live").wait_for()

    def connection(self, state: str) -> Locator:
        return self.page.locator(f'#connection[data-state="{state}"]')

    def limit(self, text: str) -> Locator:
        """Return the row of a limit that has a text in it."""
        return self.page.locator("#limits > li").filter(has_text=text)

    def _says(self, message: ConsoleMessage) -> None:
        # That a server cannot be reached is told by the browser, not by the page.
        if message.type in {"error", "warning"} and "net::ERR_" not in message.text:
            self.troubles.append(f"{message.type}: {message.text}")

    def _requests(self, request: Request) -> None:
        if urlsplit(request.url).netloc != self._host:
            self.troubles.append(f"request: {request.url}")
