"""Stores to run promises against: one parametrised fixture for every kind of server there is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

import pytest
import redis
from hypothesis import settings

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.keys import Keys
from tests.servers import RedisServer, listed_rights, servers
from tests.tls import Certificates, tls_port
from tests.topologies import Cluster, SentinelTrio
from tools.find_redis import Server

settings.register_profile("default", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SERVERS = servers()

# Whoever starts the tests in the background makes them ignore these, and so would every program that they start.
if threading.current_thread() is threading.main_thread():
    for ignored in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(ignored) is signal.SIG_IGN:
            signal.signal(ignored, signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL)
NEWEST, OLDEST = SERVERS[0], SERVERS[-1]


@dataclass(frozen=True)
class Place:
    """Somewhere to coordinate that no other test uses."""

    url: str
    namespace: str

    @property
    def keys(self) -> Keys:
        return Keys(self.namespace)


class Make(Protocol):
    """Makes coordinators of one place, started, and closes them after the test."""

    async def __call__(self, *, start: bool = True, **settings: Any) -> RateLimitCoordinator: ...


@pytest.fixture(scope="session", params=SERVERS, ids=lambda server: f"{server.product}-{server.version}")
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that all tests share; each uses a namespace of its own and breaks nothing."""
    server: Server = request.param
    with RedisServer(server.path) as running:
        yield running


@pytest.fixture(params=SERVERS, ids=lambda server: f"{server.product}-{server.version}")
def own_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server for this test alone, which may break it."""
    server: Server = request.param
    with RedisServer(server.path) as running:
        yield running


@pytest.fixture
def real(redis_server: RedisServer) -> Place:
    """A namespace on a real server."""
    return Place(redis_server.url, f"test {uuid4()}")


@pytest.fixture
def admin(redis_server: RedisServer) -> redis.Redis:
    """A client of the shared server, for looking behind the library's back."""
    return redis_server.admin


@pytest.fixture(scope="session")
def sentinel_trio() -> Iterator[SentinelTrio]:
    """A Sentinel trio that all tests share; each uses a namespace of its own and breaks nothing."""
    with SentinelTrio(NEWEST) as trio:
        yield trio


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster that all tests share; each uses a namespace of its own and breaks nothing."""
    with Cluster(NEWEST) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def old_cluster() -> Iterator[Cluster]:
    """Likewise, of servers whose channels do not belong to slots yet."""
    with Cluster(OLDEST) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for this machine."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def guarded(certificates: Certificates) -> Iterator[str]:
    """The URL of a server that speaks TLS, asks for a certificate, and grants a user no more than the listed rights."""
    user: dict[str, Any] = {"user": " ".join(["coordinator", *listed_rights(), "~*", "&*"])}
    with tls_port(NEWEST, certificates, ask_clients=True, **user) as port:
        yield f"rediss://coordinator:password@127.0.0.1:{port}?{certificates.trust}&{certificates.identity}"


@pytest.fixture(scope="session")
def unix() -> Iterator[str]:
    """The URL of a server's Unix socket."""
    with RedisServer(NEWEST.path) as running:
        yield f"unix://{running.socket}"


SHARED: list[str | Server] = [*SERVERS, "unix", "guarded", "sentinel_trio", "cluster", "old_cluster"]
"""Every kind of place that processes can share: each version, each way in, behind Sentinels, on clusters."""


def _named(kind: str | Server) -> str:
    return kind if isinstance(kind, str) else f"{kind.product}-{kind.version}"


def _url_of(kind: str | Server, request: pytest.FixtureRequest) -> Iterator[str]:
    if isinstance(kind, str):
        there = request.getfixturevalue(kind)
        yield there if isinstance(there, str) else there.url
    else:
        with RedisServer(kind.path) as running:
            yield running.url


@pytest.fixture(scope="session", params=["embedded", *SHARED], ids=_named)
def _any_server(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "embedded":
        yield None
    else:
        yield from _url_of(request.param, request)


@pytest.fixture(scope="session", params=SHARED, ids=_named)
def _shared_server(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _url_of(request.param, request)


@pytest.fixture
def place(_any_server: str | None) -> Place:
    """A namespace on every kind of server: those of ``shared_place``, and the embedded one."""
    name = str(uuid4())
    return Place(_any_server or f"memory://{name}", f"test {name}")


@pytest.fixture
def shared_place(_shared_server: str) -> Place:
    """A namespace on every kind of server that processes can share."""
    return Place(_shared_server, f"test {uuid4()}")


@pytest.fixture
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Make coordinators of the test's place: its ``place``, ``shared_place``, ``real`` or ``own_server``."""
    made: list[RateLimitCoordinator] = []
    if given := {"place", "shared_place"}.intersection(request.fixturenames):
        where: Place = request.getfixturevalue(given.pop())
    elif "own_server" in request.fixturenames:
        where = Place(request.getfixturevalue("own_server").url, "test")
    else:
        where = request.getfixturevalue("real")

    async def make(*, start: bool = True, **settings: Any) -> RateLimitCoordinator:
        settings = {"namespace": where.namespace, **settings}
        coordinator = RateLimitCoordinator.from_url(settings.pop("url", where.url), **settings)
        made.append(coordinator)
        if start:
            await coordinator.start()
        return coordinator

    yield make
    for coordinator in made:
        await coordinator.aclose()
