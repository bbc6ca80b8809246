"""The demo from beginning to end: a Redis, an upstream, and four processes that work twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rate_coordinator.demo.board import Board
from rate_coordinator.demo.calls import call
from rate_coordinator.demo.crew import ChildFailed, Crew
from rate_coordinator.demo.messages import Count, Ready
from rate_coordinator.demo.outcome import Outcome, PhaseOutcome
from rate_coordinator.demo.plan import (
    LONGEST_SECONDS,
    USUAL_SECONDS,
    PhaseName,
    Plan,
    RedisJob,
    UpstreamJob,
    WorkerJob,
)
from rate_coordinator.demo.redis_program import NoServer, RedisProgram, find_redis
from rate_coordinator.demo.views import JsonView, PlainView, View

FAILED = 1
KILLED = 128
"""A command that a signal ended exits with this and the signal's number."""

LONGEST_DIRECTORY = 60
"""A Unix socket's path has to fit into about 100 bytes, 42 of which are ours."""


def run_demo(*, seconds: float | None = None, plain: bool = False, as_json: bool = False) -> int:
    """Show four processes sharing a rate limit, first without coordination and then with it.

    Everything that it starts is gone when it returns, also after Ctrl-C, SIGTERM and SIGHUP.

    Args:
        seconds: About how long to take, in seconds; None for the usual 18.
        plain: Print plain lines, also on a terminal.
        as_json: Print nothing but one JSON document at the end.

    Returns:
        The exit code: 0, 1 when it could not be shown (stderr tells why), 128 and the signal's number after a signal.

    Raises:
        ValueError: ``seconds`` is not a positive number.
    """
    plan = Plan.lasting(USUAL_SECONDS if seconds is None else seconds)
    try:
        redis = find_redis()
        return asyncio.run(_run(plan, redis, _choose_view(plain=plain, as_json=as_json)))
    except NoServer as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:  # before or after the time in which it is handled in good order
        return KILLED + signal.SIGINT


async def _run(plan: Plan, redis: RedisProgram, view: View) -> int:
    """Run the demo and turn whatever ends it into an exit code."""
    with _cancelled_by_signals() as received:
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                view.conclude(await demonstrate(plan, redis, view))
        except asyncio.CancelledError:
            if not received:
                raise
            return _complain("Stopped; nothing is left running.", KILLED + received[0])
        except TimeoutError:
            return _complain(f"The demo was given up: it was not done after {LONGEST_SECONDS:g} s.", FAILED)
        except ChildFailed as error:
            return _complain(str(error), FAILED)
        except BrokenPipeError:
            # Whoever read the output has left. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return KILLED + signal.SIGPIPE
        except OSError as error:
            return _complain(f"The demo could not go on: {error}", FAILED)
    return 0


async def demonstrate(plan: Plan, redis: RedisProgram, view: View) -> Outcome:
    """Have the same work done twice, without and with coordination.

    Raises:
        ChildFailed: One of the processes ended that should not have.
    """
    began_at = time.monotonic()
    view.introduce(plan, redis)
    with tempfile.TemporaryDirectory(
        prefix="rate-coordinator-demo-", dir=_directory(), ignore_cleanup_errors=True
    ) as directory:
        async with Crew() as crew:
            await crew.start("Redis", "redis_keeper", RedisJob(program=redis.path, directory=directory))
            await crew.start("the upstream", "upstream", UpstreamJob(plan=plan))
            addresses: dict[str, str] = {}
            while len(addresses) < 2:
                name, message = await crew.hear()
                if isinstance(message, Ready):
                    addresses[name] = message.address
            stage = Stage(plan, crew, addresses["Redis"], addresses["the upstream"], view)
            alone = await stage.perform("alone")
            together = await stage.perform("together")
    seconds = round(time.monotonic() - began_at, 3)
    return Outcome(redis=redis, plan=plan, alone=alone, together=together, seconds=seconds)


class Stage:
    """Where the workers perform: with a Redis and an upstream that run."""

    def __init__(self, plan: Plan, crew: Crew, redis_url: str, upstream: str, view: View) -> None:
        self._plan = plan
        self._crew = crew
        self._redis_url = redis_url
        self._upstream = upstream
        self._view = view

    async def perform(self, phase: PhaseName) -> PhaseOutcome:
        """Have four processes do their work, and return what happened.

        Raises:
            ChildFailed: One of the processes ended that should not have.
        """
        names = [f"worker {number}" for number in range(1, self._plan.workers + 1)]
        board = Board.of(phase, names)
        with self._view.phase(board):
            for name in names:
                await self._crew.start(name, "worker", self._job(phase, name))
            while not board.all_are("done"):
                name, message = await self._crew.hear()
                board.apply(name, message)
                self._view.changed(board, name, message)
                if board.began_at is None and board.all_are("ready"):
                    board.began_at = time.monotonic()
                    for each in names:
                        self._crew.say_go(each)
        reply = await asyncio.to_thread(call, self._upstream, "GET", f"/{phase}")
        count = Count.model_validate_json(reply.body)
        return PhaseOutcome.of(board, count, {name: self._crew.pid(name) for name in names})

    def _job(self, phase: PhaseName, name: str) -> WorkerJob:
        """Return what to tell a worker. The namespace is all that differs between the two ways.

        In a namespace of its own a process reports to itself alone, and does everything else just the same.
        """
        return WorkerJob(
            name=name,
            redis_url=self._redis_url,
            namespace="together" if phase == "together" else f"alone: {name}",
            upstream=self._upstream,
            account=phase,
            jobs=self._plan.jobs_per_worker,
        )


@contextmanager
def _cancelled_by_signals() -> Iterator[list[int]]:
    """Let the first signal to end cancel this task, and further ones do nothing: cleaning up has begun.

    Yields:
        The signal, once it has come.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def stop(number: int) -> None:
        if not received:
            received.append(number)
            task.cancel()

    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # One that is ignored stays so: `nohup` and a shell's background jobs ask for that.
    signals = [number for number in ends if signal.getsignal(number) != signal.SIG_IGN]
    for number in signals:
        loop.add_signal_handler(number, stop, number)
    try:
        yield received
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _choose_view(*, plain: bool, as_json: bool) -> View:
    if as_json:
        return JsonView()
    if plain or not sys.stdout.isatty() or os.environ.get("TERM") in {None, "", "dumb"}:
        return PlainView()
    try:
        from rate_coordinator.demo.live import LiveView
    except ModuleNotFoundError:  # rich comes with the extra 'cli'
        return PlainView()
    return LiveView()


def _directory() -> str | None:
    """Return where to make the temporary directory: the usual place, which is None, unless its name is too long."""
    return None if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_DIRECTORY else "/tmp"


def _complain(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return code
