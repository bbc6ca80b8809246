"""What our users' tests get: limits in one line, and a clock that only the test moves."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.testing import ManualClock, RateLimits, SyncRateLimits, manual_rate_limits
from tests.servers import eventually

pytest_plugins = ["rate_coordinator.testing"]

USERS_TESTS = """
import asyncio
import pytest

async def call_upstream(coordinator):
    async with coordinator.admit("openai") as call:
        return call.waited_seconds

{mark}
async def test_mine(rate_limits, rate_limit_coordinator):
    await rate_limits.limit("openai", 30)
    calling = asyncio.create_task(call_upstream(rate_limit_coordinator))
    await rate_limits.advance(29)
    assert await rate_limit_coordinator.is_rate_limited("openai") == (True, 1.0)
    assert not calling.done()
    await rate_limits.advance(2)
    assert await rate_limit_coordinator.is_rate_limited("openai") == (False, 0.0)
    assert await calling == 30.0

def test_mine_without_await(sync_rate_limits, sync_rate_limit_coordinator):
    sync_rate_limits.limit("openai", 30)
    sync_rate_limits.advance(29)
    assert sync_rate_limit_coordinator.is_rate_limited("openai") == (True, 1.0)
    sync_rate_limits.advance(1)
    assert sync_rate_limit_coordinator.is_rate_limited("openai") == (False, 0.0)

{mark}
async def test_every_test_begins_anew(rate_limits):
    assert rate_limits.coordinator.active_limits == {{}}

class TestLonger:
    @pytest.fixture
    def rate_limit_settings(self):
        return {{"max_wait_seconds": 7200}}

    {mark}
    async def test_settings_can_be_overridden(self, rate_limits):
        await rate_limits.limit("openai", 7000)
        assert rate_limits.coordinator.active_limits == {{"openai": 7000.0}}
"""


def run_pytest(directory: Path, tests: str, mode: str) -> str:
    (directory / "conftest.py").write_text('pytest_plugins = ["rate_coordinator.testing"]\n')
    (directory / "test_mine.py").write_text(tests)
    settings = ["-o", f"asyncio_mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *settings, str(directory)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_a_user_needs_one_line_in_conftest_and_whatever_mode_of_pytest_asyncio(tmp_path: Path, mode: str) -> None:
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    assert "4 passed" in run_pytest(tmp_path, USERS_TESTS.format(mark=mark), mode)


def test_the_test_in_the_readme_passes(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (tests,) = re.findall(r"^```python\n(async def test_.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert "1 passed" in run_pytest(tmp_path, tests, "auto")


def test_who_does_not_use_it_pays_nothing() -> None:
    names = "{'pytest', 'fakeredis', 'unittest.mock', 'rate_coordinator.testing'}"
    program = f"import rate_coordinator, sys; print({names} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.stdout == "set()\n", done.stderr


def test_without_the_extra_it_says_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("rate_coordinator.testing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytest_asyncio", None)
    with pytest.raises(ModuleNotFoundError, match=r"rate-coordinator\[testing\]"):
        __import__("rate_coordinator.testing")


async def test_a_limit_lifts_when_its_time_was_moved_on_and_not_before(rate_limits: RateLimits) -> None:
    began = time.monotonic()
    coordinator = rate_limits.coordinator
    await rate_limits.limit("openai", 3000, reason="overloaded")
    await rate_limits.limit("claude", 10, model="opus")
    await rate_limits.advance(10)
    assert coordinator.active_limits == {"openai": 2990.0}
    await rate_limits.advance(2989)
    assert await coordinator.is_rate_limited("openai") == (True, 1.0)
    await rate_limits.advance(1)
    assert await coordinator.is_rate_limited("openai") == (False, 0.0)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("step", [0.1, 0.7, 1 / 3, 30.0])
async def test_however_it_is_moved_the_limit_lifts_when_its_seconds_are_over(
    rate_limits: RateLimits, step: float
) -> None:
    await rate_limits.advance(step / 3)
    await rate_limits.limit("openai", 30)
    for _ in range(round(30 / step)):
        await rate_limits.advance(step)
    slack = max(0.0, 30 - round(30 / step) * step)
    await rate_limits.advance(slack)
    assert rate_limits.coordinator.active_limits == {}


async def test_time_stands_still_between_the_moves(rate_limits: RateLimits) -> None:
    await rate_limits.limit("openai", 0.05)
    await asyncio.sleep(0.2)
    await rate_limits.coordinator.refresh()
    assert rate_limits.coordinator.active_limits == {"openai": pytest.approx(0.05)}


async def test_who_waits_is_woken_and_has_gone_on_when_the_move_returns(rate_limits: RateLimits) -> None:
    await rate_limits.limit("openai", 30)
    woken: list[str] = []

    async def wait(name: str) -> None:
        waited = await rate_limits.coordinator.wait_until_clear("openai")
        woken.append(f"{name} after {waited:g}")

    tasks = [asyncio.create_task(wait(name)) for name in ("one", "two")]
    await rate_limits.advance(15)
    await rate_limits.limit("openai", 30)
    await rate_limits.advance(29.9)
    assert woken == []
    await rate_limits.advance(0.2)
    assert woken == ["one after 45", "two after 45"]
    assert all(task.done() for task in tasks)


async def test_a_timeout_runs_out_by_the_clock_of_the_test(rate_limits: RateLimits) -> None:
    coordinator = rate_limits.coordinator
    coordinator.hint("openai", max_in_flight=1)

    async def call(timeout: float | None) -> None:
        async with coordinator.admit("openai", timeout=timeout):
            await asyncio.Event().wait()

    first = asyncio.create_task(call(None))
    await rate_limits.advance(0)
    second = asyncio.create_task(call(5.0))
    await rate_limits.advance(4.9)
    assert not second.done()
    await rate_limits.advance(0.2)
    with pytest.raises(LimitWaitTimeout):
        await asyncio.wait_for(second, 5)
    first.cancel()


async def test_calls_that_go_at_a_pace_go_each_at_its_time(rate_limits: RateLimits) -> None:
    coordinator, clock = rate_limits.coordinator, rate_limits.clock
    coordinator.hint("openai", initial_rate=2)
    began = clock.now()
    went: list[float] = []

    async def call() -> None:
        async with coordinator.admit("openai"):
            went.append(clock.now() - began)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(call())
        await rate_limits.advance(2.6)
        some = len(went)
        await rate_limits.advance(60)
    assert 1 <= some < 10
    assert len(went) == 10
    assert all(0.1 < later - earlier < 2.0 for earlier, later in pairwise(went[1:]))


async def test_after_a_limit_one_call_goes_first_and_the_others_follow_as_in_production(
    rate_limits: RateLimits,
) -> None:
    await rate_limits.limit("openai", 30)
    went: list[int] = []
    served = asyncio.Event()

    async def call(number: int) -> None:
        async with rate_limits.coordinator.admit("openai"):
            went.append(number)
            await served.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(call(number))
        await rate_limits.advance(31)
        assert went == [0]
        served.set()
        await rate_limits.advance(5)
        assert went == [0, 1, 2]


async def test_a_long_limit_is_tried_before_its_time_as_in_production(rate_limits: RateLimits) -> None:
    await rate_limits.limit("openai", 3600)

    async def call() -> float:
        async with rate_limits.coordinator.admit("openai") as admitted:
            return admitted.waited_seconds

    calling = asyncio.create_task(call())
    await rate_limits.advance(899)
    assert not calling.done()
    await rate_limits.advance(2)
    assert await calling == pytest.approx(900, abs=1)
    assert rate_limits.coordinator.active_limits == {}


async def test_what_is_not_the_coordinators_goes_on_in_real_time(rate_limits: RateLimits) -> None:
    before = time.time()
    sleeping = asyncio.create_task(asyncio.sleep(0.05))
    await rate_limits.advance(3600)
    assert not sleeping.done()
    assert time.time() - before < 60
    await sleeping
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)


async def test_another_coordinator_of_the_program_shares_limits_and_time(rate_limits: RateLimits) -> None:
    async with RateLimitCoordinator.from_url(rate_limits.url, rate_limits.namespace) as mine:
        await rate_limits.limit("openai", 30)
        await rate_limits.advance(10)
        assert mine.active_limits == {"openai": 20.0}
        await rate_limits.clear("openai")
        await rate_limits.advance(0)
        assert mine.active_limits == {}


async def test_events_have_the_time_of_the_clock(rate_limits: RateLimits) -> None:
    await rate_limits.limit("openai", 30)
    await rate_limits.advance(1000)
    await rate_limits.limit("openai", 30)
    newer, older = await rate_limits.coordinator.events()
    assert (newer.detected_at - older.detected_at).total_seconds() == 1000
    assert abs(older.detected_at.timestamp() - time.time()) < 60


async def test_a_coordinator_in_another_threads_event_loop_is_moved_along(rate_limits: RateLimits) -> None:
    started, waited = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def elsewhere() -> float:
        async with RateLimitCoordinator.from_url(rate_limits.url, rate_limits.namespace) as coordinator:
            waiting = asyncio.ensure_future(coordinator.wait_until_clear("openai"))
            await asyncio.sleep(0)
            loop.call_soon_threadsafe(started.set)
            seconds = await waiting
            loop.call_soon_threadsafe(waited.set)
            return seconds

    await rate_limits.limit("openai", 30)
    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    await asyncio.wait_for(started.wait(), 20)
    await rate_limits.advance(29)
    assert not waited.is_set()
    await asyncio.to_thread(rate_limits.clock.advance_blocking, 1)
    await asyncio.wait_for(waited.wait(), 20)
    assert await thread == 30.0


async def test_time_goes_on_when_the_test_is_over() -> None:
    async with manual_rate_limits(max_wait_seconds=10) as limits:
        await limits.limit("openai", 3600)
        assert limits.coordinator.active_limits == {"openai": 10.0}
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        await coordinator.report_rate_limit("openai", 0.05)
        assert await asyncio.wait_for(coordinator.wait_until_clear("openai"), 20) >= 0.03


async def test_there_is_one_time_in_a_process(rate_limits: RateLimits) -> None:
    with pytest.raises(RuntimeError, match="another manual clock"):
        async with manual_rate_limits():
            pass
    with pytest.raises(RuntimeError, match="another manual clock"), ManualClock().in_use():
        pass
    await rate_limits.limit("openai", 30)
    await rate_limits.advance(30)
    assert rate_limits.coordinator.active_limits == {}


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", True])
async def test_time_is_moved_by_a_finite_number_of_seconds_and_never_back(
    rate_limits: RateLimits, seconds: float
) -> None:
    with pytest.raises(ValueError, match="seconds must be a finite number of at least 0"):
        await rate_limits.advance(seconds)


async def test_a_task_that_never_rests_does_not_hold_up_the_clock(rate_limits: RateLimits) -> None:
    loop = asyncio.get_running_loop()
    spinning = True

    def spin() -> None:
        if spinning:
            loop.call_soon(spin)

    spin()
    await rate_limits.limit("openai", 30)
    await asyncio.wait_for(rate_limits.advance(30), 20)
    assert rate_limits.coordinator.active_limits == {}
    spinning = False


def test_a_thread_that_waits_is_woken_at_its_time(sync_rate_limits: SyncRateLimits) -> None:
    coordinator = sync_rate_limits.coordinator
    sync_rate_limits.limit("openai", 30)
    sync_rate_limits.limit("claude", 40, model="opus")
    with ThreadPoolExecutor(2) as threads:
        began = [threads.submit(coordinator.wait_until_clear, name, model) for name, model in WAITED_FOR]
        asyncio.run(eventually(lambda: len(sync_rate_limits.clock._timers) == 2))
        sync_rate_limits.advance(29)
        assert not any(waiting.done() for waiting in began)
        sync_rate_limits.advance(1)
        assert began[0].result(20) == 30.0
        sync_rate_limits.clear("claude")
        assert began[1].result(20) == 30.0


WAITED_FOR = [("openai", None), ("claude", "opus")]


def test_another_kind_of_event_loop_is_moved_as_well() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def use() -> float:
        async with manual_rate_limits() as limits:
            await limits.limit("openai", 30)
            waiting = asyncio.ensure_future(limits.coordinator.wait_until_clear("openai"))
            await limits.advance(29)
            assert not waiting.done()
            await limits.advance(1)
            assert waiting.done()
            return waiting.result()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(use()) == 30.0


async def test_two_that_move_the_time_at_once_never_put_it_back(rate_limits: RateLimits) -> None:
    clock = rate_limits.clock
    began = clock.now()
    waits = [asyncio.create_task(clock._sleep(seconds)) for seconds in (1, 2, 3, 4, 5)]
    await asyncio.gather(rate_limits.advance(5), rate_limits.advance(2))
    assert clock.now() - began >= 5
    assert all(wait.done() for wait in waits)
