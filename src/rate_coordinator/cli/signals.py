"""Signals as messages: a thread takes them, in order, and hands each to the event loop with where it came from."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
"""Ask a program to end."""
FORWARDED = ENDING | {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH}
_FROM_TERMINALS = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH})

Hear = Callable[[int, bool], None]
"""Is called with the number of a signal, and whether the whole foreground group got it from its terminal."""


@contextmanager
def heard(hear: Hear) -> Iterator[frozenset[int]]:
    """Have a function of the running event loop called with each signal that is to be forwarded, and with SIGCHLD.

    Signals that were ignored stay ignored, as ``nohup`` and shells want it. Only for the main thread.

    Yields:
        The signals that were blocked before, which a new process is to begin with.
    """
    loop, ended = asyncio.get_running_loop(), threading.Event()
    taken = {number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN} | {signal.SIGCHLD}
    handlers = {number: signal.getsignal(number) for number in taken}
    for number in taken:
        # For one that the system drops unless it is handled, or hands to a thread that was there before.
        loop.add_signal_handler(number, hear, number, False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)

    def listen() -> None:
        while True:
            number, from_terminal = _next(taken)
            if ended.is_set():
                return
            # The loop may have been closed meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(hear, number, from_terminal)

    listener = threading.Thread(target=listen, name="rate_coordinator signals", daemon=True)
    listener.start()
    try:
        yield frozenset(before)
    finally:
        ended.set()
        signal.pthread_kill(listener.ident or 0, signal.SIGCHLD)
        listener.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler or signal.SIG_DFL)


def stop_as(number: int) -> None:
    """Stop this process as a signal does that nobody handles. Returns when it is continued."""
    handler = signal.signal(number, signal.SIG_DFL)
    # Blocked until it is raised: one that waits already would stop this process, and this one would stop it once more.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    signal.raise_signal(number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    signal.signal(number, handler)


def _next(taken: set[signal.Signals]) -> tuple[int, bool]:
    # Of several that are there the one with the lowest number comes first: SIGTERM before SIGCHLD.
    if sys.platform == "linux":
        told = signal.sigwaitinfo(taken)
        # Above 0: the kernel sent it, not a process.
        return told.si_signo, told.si_code > 0
    number = signal.sigwait(taken)
    return number, number in _FROM_TERMINALS and _in_foreground()


def _in_foreground() -> bool:
    for descriptor in range(3):
        with suppress(OSError):
            return os.tcgetpgrp(descriptor) == os.getpgrp()
    return False
