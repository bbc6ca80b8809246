"""Certificates for this machine, and servers that speak TLS with them."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import trustme

from tests.servers import RedisServer, free_port
from tools.find_redis import Server


class Certificates:
    """A certificate authority, and what it has signed for this machine and for one client, as files.

    Args:
        directory: Where the files are written.
    """

    def __init__(self, directory: Path) -> None:
        self.authority = directory / "ca.pem"
        self.server = directory / "server.pem"
        self.client = directory / "client.pem"
        self.other_authority = directory / "other.pem"
        authority, other = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(str(self.authority))
        other.cert_pem.write_to_path(str(self.other_authority))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(self.server))
        authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(str(self.client))

    @property
    def trust(self) -> str:
        """The options of a URL with which a client trusts the servers."""
        return urlencode({"ssl_ca_certs": str(self.authority)})

    @property
    def identity(self) -> str:
        """The options with which a client proves who it is."""
        return urlencode({"ssl_certfile": str(self.client), "ssl_keyfile": str(self.client)})


@contextmanager
def tls_port(server: Server, certificates: Certificates, *, ask_clients: bool, **options: Any) -> Iterator[int]:
    """Run a server and yield the port on which it speaks TLS: by itself, or through a proxy where it was built without.

    Args:
        server: The program.
        certificates: What it shows, and whom it trusts.
        ask_clients: Whether clients have to show a certificate.
        options: More of the server's configuration.
    """
    if speaks_tls(server):
        port = free_port()
        pair: dict[str, Any] = {"tls_cert_file": str(certificates.server), "tls_key_file": str(certificates.server)}
        trust: dict[str, Any] = {
            "tls_ca_cert_file": str(certificates.authority),
            "tls_auth_clients": "yes" if ask_clients else "no",
        }
        with RedisServer(server.path, tls_port=str(port), **pair, **trust, **options):
            yield port
    else:
        with (
            RedisServer(server.path, **options) as plain,
            TlsProxy(certificates, plain.port, ask_clients=ask_clients) as proxy,
        ):
            yield proxy.port


def speaks_tls(server: Server) -> bool:
    """Return whether a server was built with TLS: it complains of missing certificates, not of the option."""
    command = [server.path, "--port", "0", "--tls-port", str(free_port()), "--save", ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return "tls-cert-file" in done.stdout


class TlsProxy:
    """Takes TLS off connections and hands them on to a port of the loopback interface, in a thread of its own.

    Args:
        certificates: What it shows, and whom it trusts.
        port: Where the server listens.
        ask_clients: Whether clients have to show a certificate.
    """

    def __init__(self, certificates: Certificates, port: int, *, ask_clients: bool = False) -> None:
        self.port = 0
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.server)
        if ask_clients:
            self._context.load_verify_locations(certificates.authority)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> TlsProxy:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        # A client that refuses the certificate is no news here.
        self._loop.set_exception_handler(lambda loop, context: None)
        server = await asyncio.start_server(self._forward_both, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forward_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, target_writer))
                group.create_task(self._forward(target_reader, writer))
        finally:
            for one in (writer, target_writer):
                one.transport.abort()
            for one in (writer, target_writer):
                with suppress(OSError):
                    await one.wait_closed()
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
