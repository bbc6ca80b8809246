"""Runs the application until it is cancelled, and ends in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

MOST_CONNECTIONS = 1024
ENDS_WITHIN_SECONDS = 3


async def serve(app: Starlette, host: str, port: int, ready: Callable[[str], object]) -> None:
    """Serve until cancelled. Open streams are ended then, and what is under way is waited for, a few seconds at most.

    Args:
        app: Made by ``create_app``.
        host: The address or name to listen on.
        port: 0 to 65535; 0 takes one that is free.
        ready: Called once with the page's address when it is listened on.

    Raises:
        OSError: It cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=ENDS_WITHIN_SECONDS,
    )
    with await _listen(host, port) as listener:
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="rate_coordinator serve")
        try:
            ready(f"http://{_written(host)}:{listener.getsockname()[1]}/")
            await asyncio.shield(serving)
        finally:
            # It would wait for streams that never end.
            app.state.board.feed.close()
            server.should_exit = True
            await asyncio.wait([serving])
            serving.result()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the event loop."""
        yield


async def _listen(host: str, port: int) -> socket.socket:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {host!r:.80}: {error.strerror}") from None
    family, _, _, _, address = found[0]
    return socket.create_server((address[0], address[1]), family=family, backlog=128)


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host
