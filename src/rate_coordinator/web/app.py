"""The application that a server runs: the page, the JSON interface and what guards them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.integrations.prometheus import exposition
from rate_coordinator.web.api import Api
from rate_coordinator.web.board import Board
from rate_coordinator.web.guard import Guard, trusted_hosts
from rate_coordinator.web.problems import fail, refuse
from rate_coordinator.web.token import Token

PAGE = Path(__file__).with_name("page")


def create_app(
    coordinator: RateLimitCoordinator,
    *,
    token: Token | None = None,
    host: str = "127.0.0.1",
    allowed_hosts: Collection[str] = (),
) -> Starlette:
    """Make an ASGI application. Its lifespan starts the coordinator, also without Redis, but does not close it.

    Args:
        coordinator: What it shows, asks and tells.
        token: What requests that write have to bear (``Authorization: Bearer …``); without it nobody can write.
        host: Where it will be listened on. On a loopback address it answers to no other names than those of this
            machine.
        allowed_hosts: Names, without a port, that it answers to as well.
    """
    board = Board(coordinator, {"version": version("rate-coordinator"), "writable": token is not None})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # What is counted by target is counted from here on.
        exposition(coordinator)
        await coordinator.start(degraded_ok=True)
        running = asyncio.create_task(board.run(), name="rate_coordinator web")
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    app = Starlette(
        routes=[*Api(coordinator, board, token).routes(), Mount("/", StaticFiles(directory=PAGE, html=True))],
        middleware=[Middleware(Guard, hosts=trusted_hosts(host, allowed_hosts))],
        exception_handlers={HTTPException: refuse, Exception: fail},
        lifespan=lifespan,
    )
    app.state.board = board
    return app
