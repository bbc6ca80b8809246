"""A Sentinel trio and a cluster of six, started on free ports of this machine within a few seconds, and stopped again.

Their members know each other from the start, by files that they would otherwise write themselves: to find one another
takes them longer than most tests.
"""

from __future__ import annotations

import random
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.servers import START_SECONDS, RedisServer
from tools.find_redis import Server

SERVICE = "mymaster"
SLOTS = 16384
BUS_OFFSET = 10_000
# They and those of a cluster's bus are below what systems hand out for outgoing connections.
_CANDIDATES = iter(random.sample(range(10_000, 22_000), 5_000))


def within(condition: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    """Wait until a condition holds and return its value, or fail once so many seconds have passed."""
    deadline = time.monotonic() + seconds
    said: object = None
    while True:
        try:
            if said := condition():
                return said
        except RedisError as error:
            said = error
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s: {said!r}"
        time.sleep(0.02)


def replicas_in_step(master: RedisServer) -> int:
    """Return how many replicas get what is written. One that is being synchronised is connected, and gets nothing."""
    told: Any = master.admin.info("replication")
    replicas = [told[f"slave{number}"] for number in range(told["connected_slaves"])]
    return sum(replica["state"] == "online" and replica["lag"] <= 1 for replica in replicas)


def replicated(master: RedisServer, key: str) -> float:
    """Wait until every replica has what was written before this call, and return when that was.

    Args:
        master: Whose replicas.
        key: That it may write.
    """
    at = time.time()

    def everywhere() -> bool:
        with master.admin.client() as one:  # type: ignore[no-untyped-call]
            replicas = replicas_in_step(master)
            one.set(key, at)
            return replicas > 0 and int(one.wait(replicas, 1000)) == replicas

    within(everywhere)
    return at


def _free(ports: range) -> bool:
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def member_port() -> int:
    """Return a port that is free, and whose cluster bus would be."""
    return next(
        port
        for port in _CANDIDATES
        if _free(range(port, port + 1)) and _free(range(port + BUS_OFFSET, port + BUS_OFFSET + 1))
    )


class Sentinel:
    """One Sentinel process.

    Args:
        binary: The server program.
        password: That clients, and other Sentinels, have to know.
    """

    def __init__(self, binary: str, password: str | None = None) -> None:
        self.port = member_port()
        self.identity = secrets.token_hex(20)
        self._binary = binary
        self._password = password
        self._directory = tempfile.TemporaryDirectory(prefix="sentinel-", ignore_cleanup_errors=True)
        self._file = Path(self._directory.name, "sentinel.conf")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def admin(self) -> redis.Redis:
        return client(self.port, self._password)

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def configure(self, lines: list[str]) -> None:
        if self._password:
            lines = [*lines, f"requirepass {self._password}", f"sentinel sentinel-pass {self._password}"]
        common = [f"port {self.port}", "bind 127.0.0.1", f'dir "{self._directory.name}"', "logfile sentinel.log"]
        self._file.write_text("\n".join([*common, f"sentinel myid {self.identity}", *lines, ""]))

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._binary, str(self._file), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_SECONDS)
            self._process = None

    def close(self) -> None:
        self.stop()
        self._directory.cleanup()


class SentinelTrio:
    """A master, two replicas and three Sentinels.

    Args:
        server: The program of all of them.
        password: Of the data nodes.
        sentinel_password: Of the Sentinels.
    """

    def __init__(self, server: Server, *, password: str | None = None, sentinel_password: str | None = None) -> None:
        self._password = password
        options: dict[str, Any] = {"repl_diskless_sync_delay": "0"}
        if password:
            options |= {"requirepass": password, "masterauth": password}
        self.nodes = [RedisServer(server.path, **options)]
        self.nodes += [
            RedisServer(server.path, replicaof=f"127.0.0.1 {self.nodes[0].port}", **options) for _ in range(2)
        ]
        self.sentinels = [Sentinel(server.path, sentinel_password) for _ in range(3)]

    @property
    def url(self) -> str:
        return self.url_of(*(sentinel.port for sentinel in self.sentinels))

    def url_of(self, *ports: int, service: str = SERVICE, database: str = "") -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"redis+sentinel://{hosts}/{service}{database}"

    def masters(self) -> set[int]:
        """Return the ports of what the Sentinels that live take for the master: one when they agree."""
        living = [sentinel for sentinel in self.sentinels if sentinel.running]
        told: list[Any] = [one.admin.sentinel_get_master_addr_by_name(SERVICE) for one in living]
        return {int(port) for _, port in told}

    @property
    def master(self) -> RedisServer:
        """The node that all Sentinels agree on and that thinks so too."""

        def agreed() -> RedisServer | None:
            ports = self.masters()
            node = next(node for node in self.nodes if node.port in ports)
            return node if len(ports) == 1 and node.admin.info("replication")["role"] == "master" else None

        found: RedisServer = within(agreed)
        return found

    def successor_of(self, old: RedisServer, seconds: float = START_SECONDS) -> RedisServer:
        """Wait until all Sentinels have agreed on another master than ``old`` and return it."""
        within(lambda: old.port not in self.masters(), seconds)
        return self.master

    def bring_back(self, node: RedisServer) -> None:
        """Start a node that was killed, as a replica of whoever is the master now."""
        # A Sentinel that is not done yet sends replicas to a node that comes back as if it were still the master.
        within(lambda: {state["port"] for state in self._states()} == {self.master.port})
        node.configure(replicaof=f"127.0.0.1 {self.master.port}")
        node.start()
        self.settle()

    def settle(self) -> None:
        """Wait until everything is as at the start: both replicas in step, all Sentinels at one."""

        def settled() -> bool:
            master = self.master
            return replicas_in_step(master) == 2 and all(
                (state["num-slaves"], state["num-other-sentinels"], state["flags"], state["port"])
                == (2, 2, "master", master.port)
                for state in self._states()
            )

        within(settled)

    def _states(self) -> list[Any]:
        """Return what each Sentinel that lives knows of the master that it watches: the old one until it is done."""
        return [one.admin.sentinel_master(SERVICE) for one in self.sentinels if one.running]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for close in (*(one.close for one in self.nodes), *(one.close for one in self.sentinels)):
                stack.callback(close)
            for node in self.nodes:
                node.start()
            master = self.nodes[0].port
            for sentinel in self.sentinels:
                lines = [
                    f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2",
                    f"sentinel down-after-milliseconds {SERVICE} 1000",
                    f"sentinel failover-timeout {SERVICE} 5000",
                    f"sentinel parallel-syncs {SERVICE} 2",
                    *(f"sentinel known-replica {SERVICE} 127.0.0.1 {node.port}" for node in self.nodes[1:]),
                    *(
                        f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other.port} {other.identity}"
                        for other in self.sentinels
                        if other is not sentinel
                    ),
                ]
                if self._password:
                    lines.append(f"sentinel auth-pass {SERVICE} {self._password}")
                sentinel.configure(lines)
                sentinel.start()
            self.settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Cluster:
    """Three masters with a replica each.

    Args:
        server: The program of all of them.
        password: Of all of them.
    """

    def __init__(self, server: Server, *, password: str | None = None) -> None:
        self._password = password
        options: dict[str, Any] = {"cluster_enabled": "yes", "cluster_node_timeout": "2000"}
        options |= {
            "cluster_config_file": "nodes.conf",
            "repl_diskless_sync_delay": "0",
            "cluster_replica_validity_factor": "0",
        }
        if password:
            options |= {"requirepass": password, "masterauth": password}
        self.nodes = [RedisServer(server.path, port=member_port(), **options) for _ in range(6)]
        self.identities = {node.port: secrets.token_hex(20) for node in self.nodes}

    @property
    def url(self) -> str:
        return self.url_of(*(node.port for node in self.nodes[:3]))

    def url_of(self, *ports: int) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)

    def master_of(self, key: str) -> RedisServer:
        """Return the node that serves a key, as the living nodes agree."""

        def agreed() -> RedisServer | None:
            found = {self._master_port(node, key_slot(key.encode())) for node in self.nodes if node.running}
            if len(found) != 1:
                return None
            return next(node for node in self.nodes if node.port in found and node.running)

        master: RedisServer = within(agreed)
        return master

    def successor_of(self, old: RedisServer, key: str, seconds: float = START_SECONDS) -> RedisServer:
        """Wait until all living nodes but ``old``, which may stand still, agree on another one for a key; return it."""
        others = [node for node in self.nodes if node is not old and node.running]

        def agreed() -> RedisServer | None:
            ports = {self._master_port(node, key_slot(key.encode())) for node in others}
            return next((node for node in others if {node.port} == ports), None)

        successor: RedisServer = within(agreed, seconds)
        return successor

    def _master_port(self, asked: RedisServer, slot: int) -> int:
        slots: Any = asked.admin.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        return next((int(master[1]) for first, last, master, *_ in slots if first <= slot <= last), 0)

    def masters(self) -> list[RedisServer]:
        """Return the nodes that serve slots."""
        return [node for node in self.nodes if node.admin.info("replication")["role"] == "master"]

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot with all its keys from one master to another, as resharding does.

        Source: https://redis.io/docs/latest/commands/cluster-setslot/
        """
        run: Callable[..., Any] = source.admin.execute_command
        accept: Callable[..., Any] = target.admin.execute_command
        accept("CLUSTER", "SETSLOT", slot, "IMPORTING", self.identities[source.port])
        run("CLUSTER", "SETSLOT", slot, "MIGRATING", self.identities[target.port])
        authentication = ["AUTH", self._password] if self._password else []
        while keys := run("CLUSTER", "GETKEYSINSLOT", slot, 10):
            run("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, *authentication, "KEYS", *keys)
        for node in (target, source, *(node for node in self.masters() if node not in (source, target))):
            node.admin.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.identities[target.port])  # type: ignore[no-untyped-call]

    def settle(self) -> None:
        """Wait until every slot is served and every replica in step, in everybody's eyes."""

        def settled() -> bool:
            for node in self.nodes:
                state: Any = node.admin.cluster("info")
                if state["cluster_state"] != "ok" or state["cluster_known_nodes"] != "6":
                    return False
                if node.admin.info("replication").get("master_link_status", "up") != "up":
                    return False
            return [replicas_in_step(node) for node in self.masters()] == [1, 1, 1]

        within(settled)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.callback(node.close)
            for node in self.nodes:
                (node.directory / "nodes.conf").write_text("\n".join([*self._members(node), ""]))
                node.start()
            self.settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _members(self, myself: RedisServer) -> Iterator[str]:
        """Yield what a node would write about all nodes.

        Source: https://redis.io/docs/latest/commands/cluster-nodes/
        """
        for number, node in enumerate(self.nodes):
            place = f"{self.identities[node.port]} 127.0.0.1:{node.port}@{node.port + BUS_OFFSET}"
            flags = "myself," if node is myself else ""
            epoch = number % 3 + 1
            if number < 3:
                first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
                yield f"{place} {flags}master - 0 0 {epoch} connected {first}-{last}"
            else:
                master = self.identities[self.nodes[number - 3].port]
                yield f"{place} {flags}slave {master} 0 0 {epoch} connected"
        yield "vars currentEpoch 3 lastVoteEpoch 0"


def client(port: int, password: str | None = None) -> redis.Redis:
    """Return a client that does not try again."""
    return redis.Redis(
        port=port,
        password=password,
        decode_responses=True,
        protocol=2,
        socket_timeout=5,
        retry=Retry(NoBackoff(), 0),
    )
