"""A server of its own for each fault; one version where the version does not matter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import SERVERS
from tests.faults.harness import SECRET
from tests.faults.proxy import Proxy
from tests.servers import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that the test may break."""
    with RedisServer(SERVERS[0].path) as running:
        yield running


@pytest.fixture
def durable_server() -> Iterator[RedisServer]:
    """A server that writes everything to disk before it answers."""
    with RedisServer(SERVERS[0].path, appendonly="yes", appendfsync="always") as running:
        yield running


@pytest.fixture
def locked_server() -> Iterator[RedisServer]:
    """A server with a password."""
    with RedisServer(SERVERS[0].path, requirepass=SECRET) as running:
        yield running


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[Proxy]:
    """The network between a coordinator and ``server``."""
    async with Proxy(server.port) as running:
        yield running
