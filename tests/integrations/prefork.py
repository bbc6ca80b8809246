"""Programs that fork or end while threads use a sync coordinator; run as ``python -m tests.integrations.prefork``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from rate_coordinator import CoordinatorMisuse, ForkedCoordinator
from rate_coordinator.sync import RateLimitCoordinator

CHILDREN = 5


def forks(url: str, namespace: str) -> None:
    """Fork while others wait, read and report; children use what they inherited, and end as programs do."""
    coordinator = RateLimitCoordinator.from_url(url, namespace)
    coordinator.hint("hinted", max_in_flight=1)
    heard: list[int] = []
    coordinator.on_notice(lambda notice: heard.append(os.getpid()))
    coordinator.start()
    coordinator.report_rate_limit("waited for", 600.0)
    waiting = threading.Thread(target=lambda: said("released", coordinator.wait_until_clear("waited for") > 0))
    stop = threading.Event()
    busy = [threading.Thread(target=work, args=(coordinator, number, stop)) for number in range(3)]
    for thread in (waiting, *busy):
        thread.start()
    stream = coordinator.notices()
    with coordinator.admit("inherited"):
        for number in range(CHILDREN):
            time.sleep(0.05)
            if os.fork() == 0:
                try:
                    next(stream)
                except ForkedCoordinator:
                    pass
                else:
                    raise AssertionError("a stream was taken over")
                in_child(coordinator, number, heard)
                # Leaves the block as well: the call that it admits is the parent's.
                sys.exit(0)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(CHILDREN)]
    stop.set()
    for thread in busy:
        thread.join()
    said("codes", codes)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not all(f"child {n}" in coordinator.active_limits for n in range(CHILDREN)):
        time.sleep(0.01)
    said("parent knows", sorted(name for name in coordinator.active_limits if name.startswith("child ")))
    said("reconnects", coordinator.health.reconnects)
    coordinator.clear_limits("waited for")
    waiting.join(10)
    coordinator.close()


def work(coordinator: RateLimitCoordinator, number: int, stop: threading.Event) -> None:
    while not stop.is_set():
        coordinator.report_rate_limit(f"busy {number}", 0.01)
        with coordinator.admit(f"idle {number}"):
            coordinator.is_rate_limited(f"busy {number}")


def in_child(coordinator: RateLimitCoordinator, number: int, heard: list[int]) -> None:
    signal.alarm(20)
    assert coordinator.health.state == "new"
    assert coordinator.is_rate_limited("waited for")[0]
    assert "waited for" in coordinator.active_limits
    coordinator.report_rate_limit(f"child {number}", 600.0)
    reporter = next(event.reporter for event in coordinator.recent_events if event.backend_type == f"child {number}")
    assert reporter.endswith(f":{os.getpid()}"), reporter
    assert coordinator.limits
    with coordinator.admit("hinted"):
        try:
            coordinator.admit("hinted", timeout=0.0).__enter__()
        except TimeoutError:
            pass
        else:
            raise AssertionError("the hint was forgotten")
    deadline = time.monotonic() + 10
    while os.getpid() not in heard:
        assert time.monotonic() < deadline, "the callback was forgotten"
        time.sleep(0.01)
    if number % 2:
        coordinator.close()


def ends(url: str, namespace: str) -> None:
    """Report and come to an end without closing, while threads wait."""
    coordinator = RateLimitCoordinator.from_url(url, namespace, command_timeout=0.5)
    coordinator.start(degraded_ok=True)
    said("delivered", coordinator.report_rate_limit("openai", 600.0).delivered)
    threading.Thread(target=coordinator.wait_until_clear, args=("openai",), daemon=True).start()
    threading.Thread(target=list, args=(coordinator.notices(),), daemon=True).start()
    # They may or may not come to tell that they were released, before there is no interpreter any more.
    threading.excepthook = lambda _: None


def interrupted(url: str, namespace: str) -> None:
    """Be interrupted in every kind of wait, and by a handler that closes."""
    coordinator = RateLimitCoordinator.from_url(url, namespace)
    coordinator.hint("one at a time", max_in_flight=1)
    coordinator.report_rate_limit("openai", 600.0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with coordinator.admit("one at a time"):
        stream = coordinator.notices()
        waits: list[Any] = [
            lambda: coordinator.wait_until_clear("openai"),
            lambda: coordinator.admit("openai").__enter__(),
            lambda: coordinator.admit("one at a time").__enter__(),
            lambda: next(stream),
        ]
        for wait in waits:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                wait()
            except KeyboardInterrupt:
                said("interrupted", True)
    with coordinator.admit("one at a time", timeout=1.0):
        said("given back", True)

    def close(signum: int, frame: FrameType | None) -> None:
        coordinator.close()

    signal.signal(signal.SIGTERM, close)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        coordinator.wait_until_clear("openai")
    except CoordinatorMisuse as error:
        said("closed", type(error).__name__)


def said(what: str, value: object) -> None:
    print(json.dumps([what, value]), flush=True)


if __name__ == "__main__":
    {"forks": forks, "ends": ends, "interrupted": interrupted}[sys.argv[1]](*sys.argv[2:])
