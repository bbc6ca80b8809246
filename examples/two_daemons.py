"""Two daemons share a limit: one is refused and reports it, the other backs off at once.

    python examples/two_daemons.py --url redis://localhost:6379

Starts a small upstream that refuses for a while after some calls, and two processes that call it. Only the first
refusal reaches a daemon; the other hears of it and waits, without having been refused itself. Ends after a few seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Barrier

from rate_coordinator import CoordinatorUnavailable, Notice, RateLimitCoordinator

BACKEND = "example-upstream"
CALLS_PER_DAEMON = 5
SECONDS_BETWEEN_CALLS = 0.3


# --- What a daemon does. This is the part to copy. -------------------------------------------------------------------


async def daemon(name: str, url: str, upstream: str, together: Barrier) -> None:
    """Call the upstream whenever it may be called, and report each refusal to all the other daemons."""

    def on_notice(notice: Notice) -> None:
        if notice.kind == "limit" and notice.backend == BACKEND and notice.reporter != name:
            say(name, f"hears from {notice.reporter}: back off for {notice.wait_seconds:.2f} s")

    async with RateLimitCoordinator.from_url(url, reporter=name) as coordinator:
        coordinator.on_notice(on_notice)
        await asyncio.to_thread(together.wait, timeout=20)
        await asyncio.sleep(0 if name == "daemon-1" else SECONDS_BETWEEN_CALLS / 2)  # they take turns

        done = 0
        while done < CALLS_PER_DAEMON:
            waited = await coordinator.wait_until_clear(BACKEND)
            if waited:
                say(name, f"goes on after waiting {waited:.2f} s")
            retry_after = await asyncio.to_thread(call, upstream)
            if retry_after is None:
                done += 1
                say(name, f"call {done} went through")
            else:
                say(name, f"got a 429, Retry-After {retry_after:g} s: reports it")
                await coordinator.report_rate_limit(BACKEND, retry_after, job_id=f"{name} call {done + 1}")
            await asyncio.sleep(SECONDS_BETWEEN_CALLS)


def call(upstream: str) -> float | None:
    """Call the upstream; return None when it answered, or for how many seconds it wants to be left alone."""
    try:
        with urllib.request.urlopen(upstream, timeout=5) as response:
            response.read()
            return None
    except urllib.error.HTTPError as error:
        if error.code != 429:
            raise
        return float(error.headers["Retry-After"])


# --- The stage: an upstream that limits, and two processes. ----------------------------------------------------------


class Upstream(BaseHTTPRequestHandler):
    """Answers a few calls, then refuses for a second whatever comes, then answers again."""

    calls, refused, calls_before_limit, limit_seconds = 0, 0, 4, 1
    limited_until = 0.0
    lock = threading.Lock()

    def do_GET(self) -> None:
        with self.lock:
            Upstream.calls += 1
            if Upstream.calls == self.calls_before_limit + 1:
                Upstream.limited_until = time.monotonic() + self.limit_seconds
            limited = time.monotonic() < self.limited_until
            Upstream.refused += limited
        self.send_response(429 if limited else 200)
        if limited:
            self.send_header("Retry-After", str(self.limit_seconds))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent: the daemons tell what happens."""


def run_daemon(name: str, url: str, upstream: str, together: Barrier) -> None:
    """Be a process that is a daemon."""
    try:
        asyncio.run(daemon(name, url, upstream, together))
    except CoordinatorUnavailable as error:
        sys.exit(f"{name}: {error}")


def say(name: str, what: str) -> None:
    """Tell what happens, and when: the same clock in all processes of a machine."""
    now = datetime.now().isoformat(sep=" ", timespec="milliseconds")
    # One write for the whole line: two processes share the output.
    print(f"{now} {name} {what}\n", end="", flush=True)


def main() -> int:
    """Run the upstream and both daemons until they are done; return the exit code."""
    parser = argparse.ArgumentParser(description="Two daemons share one rate limit through Redis.")
    parser.add_argument("--url", default=os.environ.get("RATE_COORDINATOR_URL", "redis://localhost:6379"))
    url = parser.parse_args().url

    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        upstream = f"http://127.0.0.1:{server.server_port}/"
        daemons = [
            context.Process(target=run_daemon, args=(name, url, upstream, together))
            for name in ("daemon-1", "daemon-2")
        ]
        try:
            for process in daemons:
                process.start()
            for process in daemons:
                process.join(timeout=30)
        finally:
            for process in daemons:
                if process.is_alive():
                    process.kill()
            server.shutdown()
    print(f"the upstream was called {Upstream.calls} times and refused {Upstream.refused}")
    return 0 if all(process.exitcode == 0 for process in daemons) else 1


if __name__ == "__main__":
    sys.exit(main())
