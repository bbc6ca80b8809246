"""The command line within this process, at the place of the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.programs import Cli
from tests.conftest import SERVERS, Place
from tests.servers import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The newest server alone: what differs between servers is the library's matter (and the doctor's)."""
    with RedisServer(SERVERS[0].path) as running:
        yield running


@pytest.fixture
def cli(real: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The entry point, at a namespace on a real server."""
    monkeypatch.delenv("RATE_COORDINATOR_URL", raising=False)
    monkeypatch.delenv("RATE_COORDINATOR_NAMESPACE", raising=False)
    return Cli(real, capsys)
