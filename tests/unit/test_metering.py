"""Those who count are told of everything, and harm nobody."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest

from rate_coordinator import LimitWaitTimeout, Meter, Notice, RateLimitCoordinator, Reason
from tests.servers import eventually


@dataclass
class Ledger:
    """A meter that writes everything down."""

    waits: list[tuple[str, str | None, bool]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reports: list[tuple[str, str | None, float, str]] = field(default_factory=list)
    changes: list[tuple[str, str, str | None]] = field(default_factory=list)
    delays: list[float | None] = field(default_factory=list)

    def waited(self, backend: str, model: str | None, seconds: float, *, cleared: bool) -> None:
        self.waits.append((backend, model, cleared))
        self.seconds.append(seconds)

    def reported(self, backend: str, model: str | None, asked_wait_seconds: float, reason: Reason | str) -> None:
        self.reports.append((backend, model, asked_wait_seconds, reason))

    def changed(self, notice: Notice, delay_seconds: float | None) -> None:
        self.changes.append((notice.kind, notice.backend, notice.model))
        self.delays.append(delay_seconds)


class Broken(Ledger):
    """A meter that raises whatever it is told."""

    def waited(self, backend: str, model: str | None, seconds: float, *, cleared: bool) -> None:
        raise OSError("no space left")

    def reported(self, backend: str, model: str | None, asked_wait_seconds: float, reason: Reason | str) -> None:
        raise OSError("no space left")

    def changed(self, notice: Notice, delay_seconds: float | None) -> None:
        raise OSError("no space left")


async def test_a_meter_is_told_of_each_wait_report_and_change_once() -> None:
    ledger = Ledger()
    meter: Meter = ledger
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        coordinator.add_meter(meter)
        coordinator.add_meter(meter)
        async with coordinator.admit("openai", "gpt"):
            pass
        async with coordinator.admit("openai", "gpt") as call:
            await call.limited(7000.0, reason="quota")
        with pytest.raises(LimitWaitTimeout):
            await coordinator.wait_until_clear("openai", "gpt", timeout=0.0)
        backends: list[str | tuple[str, str]] = [("openai", "gpt"), "gemini"]
        assert await coordinator.wait_until_any_clear(backends) == "gemini"
        assert await coordinator.wait_until_clear("gemini") == 0.0
        await eventually(lambda: len(ledger.changes) == 1)

    going, gone = ("openai", "gpt", True), ("openai", "gpt", False)
    assert ledger.waits == [going, going, gone, ("gemini", None, True), ("gemini", None, True)]
    assert ledger.seconds[3:] == [0.0, 0.0]
    assert ledger.reports == [("openai", "gpt", 7000.0, "quota")]
    assert ledger.changes == [("limit", "openai", "gpt")]
    assert ledger.delays[0] is not None
    assert 0.0 <= ledger.delays[0] < 5.0


async def test_a_meter_that_was_removed_is_told_nothing_more() -> None:
    kept, removed = Ledger(), Ledger()
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        coordinator.add_meter(kept)
        coordinator.add_meter(removed)
        coordinator.remove_meter(removed)
        coordinator.remove_meter(removed)
        await coordinator.report_rate_limit("openai", 5.0)
    assert len(kept.reports) == 1
    assert removed.reports == []


async def test_what_a_meter_raises_is_logged_once_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """P30: neither the call nor the next meter notices."""
    ledger = Ledger()
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        coordinator.add_meter(Broken())
        coordinator.add_meter(ledger)
        async with coordinator.admit("openai") as call:
            assert (await call.limited(5.0)).delivered
        await eventually(lambda: ledger.changes)
    assert len(ledger.waits) == len(ledger.reports) == len(ledger.changes) == 1
    (logged,) = [record for record in caplog.records if record.name == "rate_coordinator.metering"]
    assert (logged.levelno, logged.getMessage()) == (logging.ERROR, "a meter raised")
