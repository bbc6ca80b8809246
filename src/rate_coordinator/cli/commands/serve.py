"""``serve``: a web page, a JSON interface and metrics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rate_coordinator import MAX_WAIT_SECONDS
from rate_coordinator.cli.options import Chosen, Json, Namespace, Url, chosen
from rate_coordinator.cli.output import complain, say, say_json
from rate_coordinator.cli.session import coordinator, run, unstarted
from rate_coordinator.cli.values import read_seconds

DEFAULT_PORT = 8765


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="NUMBER", help="0 takes one that is free.")
    ] = DEFAULT_PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="Holds the token that whoever writes must have; else RATE_COORDINATOR_TOKEN does.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name that it may be called by as well; again for more."),
    ] = None,
    max_wait: Annotated[
        str, typer.Option("--max-wait", metavar="SECONDS", help="Longer waits that are reported count as this.")
    ] = f"{MAX_WAIT_SECONDS:g}",
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> int:
    """Serve a web page that shows the limits live.

    Beside it a JSON interface (/api/v1), metrics for Prometheus (/metrics), /healthz and /livez. Nobody can change
    anything without a token. It goes on while Redis is away, and ends with Ctrl-C or SIGTERM.
    """
    cap = read_seconds("--max-wait", max_wait)
    hosts = tuple(allow_host or ())
    return run(_serve(chosen(context, url, namespace, as_json), host, port, token_file, hosts, cap))


async def _serve(
    chosen: Chosen, host: str, port: int, token_file: Path | None, allowed_hosts: tuple[str, ...], cap: float
) -> int:
    # Only here: no other command needs a web server.
    from rate_coordinator.web import create_app, is_loopback, read_token
    from rate_coordinator.web import serve as serve_app

    token = read_token(token_file, os.environ)
    async with unstarted(coordinator(chosen, max_wait_seconds=cap)) as shown:
        await shown.start(degraded_ok=True)
        app = create_app(shown, token=token, host=host, allowed_hosts=allowed_hosts)

        def tell(address: str) -> None:
            if not is_loopback(host):
                told = ", and the token passes unencrypted" if token else ""
                complain(f"whoever reaches {host} can see the limits{told}: put a proxy with TLS and a login before it")
            if chosen.as_json:
                say_json({"address": address, "writable": token is not None})
            else:
                say(f"serving at {address} ({'writing needs the token' if token else 'read-only: no token'})")

        await serve_app(app, host, port, tell)
    return 0
