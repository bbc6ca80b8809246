"""The upstream: a small HTTP/1.1 server, a process of its own, that keeps a record of every request."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

from benchmarks.harness import LONGEST_SECONDS, Options, monotonic_ns, receive
from benchmarks.herd.policies import LONGEST_LATENCY_SECONDS, SHORTEST_LATENCY_SECONDS, Gate, Policy

SENT_HEADER = b"X-Sent-Ns"
"""When the client sent the request, on the clock that all processes of a machine share."""
BACKLOG = 1024
SERVED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(slots=True)
class Request:
    """What became of one request. Times are those of ``monotonic_ns``."""

    sent_ns: int
    served: bool
    answered_ns: int | None = None
    """When the answer left the server; None for one that nobody waited for."""


async def serve(options: Options, pipe: Connection, policy: Policy) -> None:
    """Be the upstream's process: send the port, receive the start, serve until told to end, send the record."""
    record: list[Request] = []
    gate: asyncio.Future[Gate] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(partial(_serve_connection, gate, record), "127.0.0.1", 0, backlog=BACKLOG)
    async with server:
        pipe.send(server.sockets[0].getsockname()[1])
        gate.set_result(policy.gate(await receive(pipe)))
        await receive(pipe, LONGEST_SECONDS)
        pipe.send(record)
        # Its end comes with the clients', so that none of them sees a connection break.
        await asyncio.to_thread(pipe.poll, LONGEST_SECONDS)


async def _serve_connection(
    gate: asyncio.Future[Gate], record: list[Request], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one request after the other until the client goes away."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            retry_after = (await gate).refuse(monotonic_ns())
            request = Request(_sent_ns(head), served=retry_after is None)
            record.append(request)
            await asyncio.sleep(random.uniform(SHORTEST_LATENCY_SECONDS, LONGEST_LATENCY_SECONDS))
            writer.write(SERVED if retry_after is None else _refusal(retry_after))
            request.answered_ns = monotonic_ns()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _sent_ns(head: bytes) -> int:
    _, _, rest = head.partition(SENT_HEADER + b": ")
    return int(rest.partition(b"\r\n")[0])


def _refusal(retry_after: int) -> bytes:
    return b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %d\r\nContent-Length: 0\r\n\r\n" % retry_after
