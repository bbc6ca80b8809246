"""docker-compose.yml is valid, claims what we recommend, and its commands work.

Containers cannot be run everywhere, but what runs in them is a few commands: the tests run those natively, on ports
that are free here.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jsonschema
import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from tests.servers import running, servers
from tools.find_redis import WHEELS, Server

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MOUNTED = "/usr/local/etc/redis"
PASSWORD = "correct horse"
WITHIN_SECONDS = 30.0
# They and those of their cluster buses are below what systems hand out for outgoing connections.
CANDIDATES = random.sample(range(10_000, 22_000), 2_000)

T = TypeVar("T")


class Topology:
    """The services of one profile, running natively: each with its own directory, all with ports that are free here.

    Args:
        profile: Of docker-compose.yml; "" for what runs without one.
        server: The program that takes the place of the image's.
        directory: Where they may write.
    """

    def __init__(self, profile: str, server: Server, directory: Path) -> None:
        self.services = {
            name: service
            for name, service in SERVICES.items()
            if service.get("profiles", [""]) == [profile] and service["command"] != ["sleep", "infinity"]
        }
        published = [port for service in SERVICES.values() for port in service.get("ports", [])]
        inner = [_last_ports(port) for port in published]
        self.ports = {port: _free_port() for ports in inner for port in ports}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._directory = directory
        # Sentinel has servers rewrite their configuration: it must not be the repository's.
        self._mounted = shutil.copytree(ROOT / "deploy", directory / "deploy")
        self._environment = _environment(directory / "bin", server)
        self._stack = ExitStack()

    def __enter__(self) -> Topology:
        """Start each service when those that it depends on are healthy, as compose does."""
        try:
            waiting = dict(self.services)
            while waiting:
                name = next(
                    name for name, service in waiting.items() if not waiting.keys() & service.get("depends_on", {})
                )
                service = waiting.pop(name)
                for other, terms in service.get("depends_on", {}).items():
                    assert terms == {"condition": "service_healthy"}
                    within(partial(self.is_healthy, other))
                self._start(name, [self._here(part) for part in service["command"]])
            for name in self.services:
                within(partial(self.is_healthy, name))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def is_healthy(self, name: str) -> bool:
        """Run the health check of a service; one without a check has to finish, and well."""
        service = self.services[name]
        if "healthcheck" not in service:
            finished = self._processes[name].poll()
            assert not finished, self.said(name)
            return finished == 0
        how, command = service["healthcheck"]["test"]
        assert how == "CMD-SHELL"
        assert self._processes[name].poll() is None, self.said(name)
        check = ["sh", "-c", self._here(command.replace("$$", "$"))]
        return (
            subprocess.run(check, env=self._environment, capture_output=True, timeout=20, check=False).returncode == 0
        )

    def said(self, name: str) -> str:
        return (self._directory / name / "log").read_text()[-2000:]

    def stop(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait(WITHIN_SECONDS)

    def _start(self, name: str, command: list[str]) -> None:
        home = self._directory / name
        home.mkdir()
        with (home / "log").open("w") as log:
            process = subprocess.Popen(
                command, env=self._environment, cwd=home, text=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._processes[name] = self._stack.enter_context(running(process))

    def _here(self, text: str) -> str:
        """Translate what is written for a container."""
        text = text.replace(MOUNTED, str(self._mounted))
        return re.sub(r"\b\d{4,5}\b", lambda port: str(self.ports.get(int(port[0]), port[0])), text)


def within(condition: Callable[[], T], seconds: float = WITHIN_SECONDS) -> T:
    """Wait until a condition holds and return its value, or fail once so many seconds have passed."""
    deadline = time.monotonic() + seconds
    said: object = None
    while True:
        try:
            if value := condition():
                return value
            said = value
        except RedisError as error:
            said = error
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s: {said!r}"
        time.sleep(0.05)


def connect(port: int, password: str | None = PASSWORD) -> redis.Redis:
    once = Retry(NoBackoff(), 0)
    return redis.Redis(port=port, password=password, decode_responses=True, protocol=2, socket_timeout=5, retry=once)


def _last_ports(published: str) -> range:
    """Return the container's ports of ``127.0.0.1:6381-6383:6381-6383``."""
    first, _, last = published.rpartition(":")[2].partition("-")
    return range(int(first), int(last or first) + 1)


def _free_port() -> int:
    """Return a port that is free, as is its cluster bus, 10000 above; never the same again."""
    while True:
        port = CANDIDATES.pop()
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def _environment(programs: Path, server: Server) -> dict[str, str]:
    """Return an environment in which ``redis-server`` and ``redis-cli`` are what an image would have."""
    beside = [Path(server.path).parent, Path(server.path).resolve().parent]
    in_wheels = [program.parent for wheel in WHEELS if (program := wheel.program())]
    places = [*beside, *map(Path, os.get_exec_path()), *in_wheels]
    clients = [place / name for place in places for name in ("redis-cli", "valkey-cli")]
    client = next((path for path in clients if path.is_file()), None)
    assert client is not None, "no redis-cli beside the server, on PATH, or in the fetched wheel"
    programs.mkdir()
    (programs / "redis-server").symlink_to(server.path)
    (programs / "redis-cli").symlink_to(client)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "REDISCLI_AUTH": PASSWORD}


def test_the_file_follows_the_compose_specification() -> None:
    schema = json.loads(files("check_jsonschema.builtin_schemas.vendor").joinpath("compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)

    assert schema["title"] == "Compose Specification"
    assert [error.message for error in validator(schema).iter_errors(COMPOSE)] == []


def test_without_a_profile_there_is_one_redis_and_two_topologies_can_be_asked_for() -> None:
    by_profile: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        (profile,) = service.get("profiles", [""])
        by_profile.setdefault(profile, []).append(name)

    assert by_profile[""] == ["redis"]
    assert sum("node.sh" in str(SERVICES[name]["command"]) for name in by_profile["sentinel"]) == 3
    assert sum("sentinel.sh" in str(SERVICES[name]["command"]) for name in by_profile["sentinel"]) == 3
    assert sum("node.sh" in str(SERVICES[name]["command"]) for name in by_profile["cluster"]) == 6


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_starts_without_a_password(name: str) -> None:
    assert SERVICES[name]["environment"]["REDISCLI_AUTH"].startswith("${REDIS_PASSWORD:?")


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_data_of_the_recommended_redis_outlives_its_container() -> None:
    assert "redis-data:/data" in SERVICES["redis"]["volumes"]
    assert "redis-data" in COMPOSE["volumes"]


def test_all_of_a_topology_shares_the_network_that_publishes_its_ports() -> None:
    for name, service in SERVICES.items():
        if "profiles" in service and not name.endswith("-network"):
            assert service["network_mode"] == f"service:{service['profiles'][0]}-network"
            assert "ports" not in service
            if "healthcheck" in service:
                assert service["command"][2] in str(service["healthcheck"]["test"])


each_version = pytest.mark.parametrize("server", servers(), ids=lambda server: f"{server.product}-{server.version}")


@each_version
def test_a_server_of_each_version_takes_the_recommended_configuration(server: Server, tmp_path: Path) -> None:
    with Topology("", server, tmp_path) as topology, connect(topology.ports[6379]) as client:
        configured: dict[str, str] = {}
        for name in ("maxmemory-policy", "appendonly", "appendfsync"):
            configured |= client.config_get(name)
        with connect(topology.ports[6379], password=None) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()

    assert configured == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}


def sentinel_fails_over(server: Server, directory: Path) -> None:
    with Topology("sentinel", server, directory) as topology, ExitStack() as stack:
        nodes = [topology.ports[port] for port in (6381, 6382, 6383)]
        watchers = [topology.ports[port] for port in (26379, 26380, 26381)]
        sentinels = [stack.enter_context(connect(port, password=None)) for port in watchers]

        def masters() -> set[tuple[str, int]]:
            return {sentinel.sentinel_get_master_addr_by_name("mymaster") for sentinel in sentinels}

        def know_each_other() -> bool:
            states = [sentinel.sentinel_master("mymaster") for sentinel in sentinels]
            return all((state["num-slaves"], state["num-other-sentinels"]) == (2, 2) for state in states)

        within(know_each_other)
        assert masters() == {("127.0.0.1", nodes[0])}
        with connect(nodes[0]) as master:
            master.set("key", "value")
            assert master.wait(2, 5000) == 2

        topology.stop("sentinel-node-1")

        within(lambda: len(masters()) == 1 and masters() <= {("127.0.0.1", node) for node in nodes[1:]})
        ((_, port),) = masters()
        with connect(port) as promoted:
            assert promoted.get("key") == "value"
            within(lambda: promoted.info("replication")["role"] == "master" and promoted.set("key", "newer"))


def cluster_fails_over(server: Server, directory: Path) -> None:
    with Topology("cluster", server, directory) as topology, ExitStack() as stack:
        nodes = [topology.ports[port] for port in range(7001, 7007)]
        clients = [stack.enter_context(connect(port)) for port in nodes]
        roles = [client.info("replication") for client in clients]
        assert [role["role"] for role in roles] == ["master"] * 3 + ["slave"] * 3
        assert sorted(role["master_port"] for role in roles[3:]) == sorted(nodes[:3])
        assert clients[1].cluster("info")["cluster_slots_ok"] == "16384"

        topology.stop("cluster-node-1")

        heir = next(client for client, role in zip(clients, roles, strict=True) if role.get("master_port") == nodes[0])
        within(lambda: heir.info("replication")["role"] == "master")
        within(lambda: heir.cluster("info")["cluster_state"] == "ok")


class Runs(Protocol):
    """Returns when what was begun with a server of this version has gone well."""

    def __call__(self, run: Callable[[Server, Path], None], server: Server) -> None: ...


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Begin all at once: a fail-over is mostly waiting."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        begun = {
            (run, server): pool.submit(run, server, tmp_path_factory.mktemp(run.__name__))
            for run in (sentinel_fails_over, cluster_fails_over)
            for server in servers()
        }
        yield lambda run, server: begun[run, server].result(2 * WITHIN_SECONDS)


@each_version
def test_with_the_sentinel_profile_a_replica_takes_over_from_a_master_that_dies(
    server: Server, side_by_side: Runs
) -> None:
    side_by_side(sentinel_fails_over, server)


@each_version
def test_with_the_cluster_profile_a_replica_takes_over_from_a_master_that_dies(
    server: Server, side_by_side: Runs
) -> None:
    side_by_side(cluster_fails_over, server)
