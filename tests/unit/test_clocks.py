"""Only the server's clock counts, and when it is stepped nobody is released early or held too long."""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path

import pytest

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.clock import ServerClock

PACKAGE = Path(__file__).parents[2] / "src" / "rate_coordinator"
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
SHOWS_TIMES = {
    "engine.py": "resume times of limits that no server has been asked about yet, for people to read",
    "diagnosis.py": "measures by how much this host's wall clock differs from the server's",
}


OWN_TIMERS = {
    "timers.py": "where all others are",
    "dispenser.py": "patience with a server",
    "engine.py": "patience with a server",
    "link.py": "patience with a server",
    "notices.py": "lets others go on, without a pause",
    "outbox.py": "patience with a server",
    "routes.py": "patience with a server",
    "store.py": "patience with a server",
    "subscription.py": "patience with a server",
    "synchroniser.py": "spreads what a fleet asks of a server",
}


def wall_clock_readings(source: Path) -> list[str]:
    """Return every call of a wall clock in a module."""
    calls = (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call))
    names = [ast.unparse(call.func) for call in calls]
    return [name for name in names if ".".join(name.split(".")[-2:]) in WALL_CLOCKS]


def test_no_decision_of_the_core_reads_a_wall_clock() -> None:
    """P12 P14: the two kinds of time never meet, because one of them is not there."""
    readings = {path.name: wall_clock_readings(path) for path in PACKAGE.glob("*.py")}
    assert {name for name, found in readings.items() if found} <= SHOWS_TIMES.keys()
    assert sum(len(found) for found in readings.values()) <= 3


def test_what_is_waited_for_by_the_processs_clock_takes_timers_that_a_test_can_move() -> None:
    """``rate_coordinator.testing`` puts a clock beneath ``clock.now`` and ``timers``, and beneath no other timer."""
    texts = {path.name: path.read_text() for path in PACKAGE.glob("*.py")}
    timers = r"asyncio\.(timeout|sleep|wait_for)\(|loop(\(\))?\.call_(later|at)\("
    own = {name for name, text in texts.items() if re.search(timers, text)}
    assert "waiters.py" in texts
    assert own <= OWN_TIMERS.keys()
    assert len(re.findall(timers, texts["dispenser.py"])) == 1


def test_the_search_for_wall_clocks_finds_them(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("import time, datetime\na = time.time()\nb = datetime.datetime.now()\nc = time.monotonic()\n")
    assert wall_clock_readings(module) == ["time.time", "datetime.datetime.now"]


@pytest.mark.parametrize("step", [3600.0, -3600.0], ids=["an hour forward", "an hour back"])
async def test_a_server_whose_clock_is_stepped_releases_nobody_early_and_holds_nobody_longer(
    monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """P13: as after a fail-over to a machine whose clock differs."""
    real_time = time.time
    async with RateLimitCoordinator.from_url(f"memory://clock{step:g}") as coordinator:
        await coordinator.report_rate_limit("openai", 60.0)
        await coordinator.refresh()
        monkeypatch.setattr(time, "time", lambda: real_time() + step)
        for _ in range(3):
            await coordinator.refresh()
            limited, seconds = await coordinator.is_rate_limited("openai")
            assert limited
            assert 55.0 < seconds <= 60.0
        async with RateLimitCoordinator.from_url(f"memory://clock{step:g}") as late:
            assert (await late.is_rate_limited("openai"))[1] <= 60.0
        again = await coordinator.report_rate_limit("openai", 30.0)
        assert again.seconds_remaining <= 60.0
        assert 25.0 < (await coordinator.is_rate_limited("openai"))[1] <= 60.0
        assert await coordinator.clear_limits() == 1
        assert await coordinator.is_rate_limited("openai") == (False, 0.0)


def test_round_trips_that_agree_are_no_step() -> None:
    clock = ServerClock()
    clock.observe(1_000_000, 10.0, 10.2)
    clock.observe(1_005_100, 15.0, 15.2)
    assert clock.generation == 0
    clock.observe(1_010_100 + 3_600_000, 20.0, 20.2)
    assert clock.generation == 1
    clock.observe(1_015_100 + 3_600_000, 25.0, 25.2)
    assert clock.generation == 1


def test_a_message_that_was_long_on_its_way_contradicts_the_last_round_trip() -> None:
    clock = ServerClock()
    assert not clock.contradicted_by(1_000_000, 10.0)
    clock.observe(1_000_000, 10.0, 10.1)
    assert not clock.contradicted_by(1_005_050, 15.1)
    assert clock.contradicted_by(1_005_050, 16.0)
    assert clock.contradicted_by(1_008_000, 15.1)
