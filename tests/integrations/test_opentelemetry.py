"""What OpenTelemetry is told, through the real SDK, and that it is the same as what Prometheus is told."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from prometheus_client import CollectorRegistry

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.integrations.opentelemetry import instrument
from rate_coordinator.integrations.prometheus import CoordinatorCollector
from tests.conftest import Make, Place
from tests.integrations.scrapes import Scrape
from tests.servers import eventually

STORM = 1500
"""More notices in a moment than any listener is kept."""

LATER = """
import asyncio, logging
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from rate_coordinator import RateLimitCoordinator
from rate_coordinator.integrations.opentelemetry import instrument

async def main():
    logging.disable()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    make = RateLimitCoordinator.from_url
    async with make("memory://", "one") as one, make("memory://", "two") as two:
        instrument(one)
        set_meter_provider(provider)
        instrument(two, provider)
        await one.report_rate_limit("openai", 60)
        await two.report_rate_limit("openai", 60)
        metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        print(*sorted(f"{metric.name}={len(metric.data.data_points)}" for metric in metrics if "report" in metric.name))
    provider.shutdown()

asyncio.run(main())
"""


class Exported:
    """One collection of all metrics."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        data = reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        self.metrics: dict[str, Any] = {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str, **attributes: str) -> list[Any]:
        """Return all points of a metric that have these attributes."""
        metric = self.metrics.get(f"rate_coordinator.{name}")
        wanted = {f"rate_coordinator.{attribute}": value for attribute, value in attributes.items()}.items()
        return [point for point in metric.data.data_points if wanted <= point.attributes.items()] if metric else []

    def total(self, name: str, **attributes: str) -> float:
        """Return the sum of all points, of a histogram their counts."""
        points = self.points(name, **attributes)
        return sum(point.count if isinstance(point, HistogramDataPoint) else point.value for point in points)


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


async def test_every_report_and_every_change_is_counted_once_however_seldom_it_is_exported(
    make: Make, real: Place, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    """P57: counts equal events, and labels are capped."""
    one, other = await make(notice_buffer=8), await make(notice_buffer=8)
    with instrument(one, provider, max_targets=10):
        other.on_notice(lambda notice: asyncio.sleep(0.01))
        await asyncio.gather(*(other.report_rate_limit(f"backend {number}", 60.0) for number in range(STORM)))
        await asyncio.gather(*(one.report_rate_limit("backend 0", 60.0, reason="quota") for _ in range(300)))
        await eventually(lambda: one.health.notices_received >= STORM)

        told = Exported(reader)
        assert told.total("changes") == one.health.notices_received
        assert told.total("reports", reason="quota") == told.total("reports") == 300
        assert told.total("asked_wait") == told.total("reports_delivered") == 300
        assert told.total("limits_active") == STORM
        assert len(told.points("changes")) == len(told.points("limit_remaining")) == 11


async def test_both_exporters_tell_the_same(
    make: Make, real: Place, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    coordinator = await make()
    registry = CollectorRegistry()
    registry.register(CoordinatorCollector(coordinator))
    instrument(coordinator, provider)
    async with coordinator.admit("openai", "gpt") as call:
        await call.limited(0.2)
    async with coordinator.admit("openai", "gpt"):
        pass
    await coordinator.report_rate_limit("claude", 7200.0, reason="quota")
    with pytest.raises(LimitWaitTimeout):
        await coordinator.wait_until_clear("claude", timeout=1.0)
    await eventually(lambda: coordinator.health.notices_received >= 2)
    # What goes on by itself is left out, and what is measured anew each time.
    moving = re.compile("script_calls|resyncs|round_trip|remaining|pace_|fleet_|changes|notice|waiting")

    exported, scraped = Exported(reader), Scrape(registry)

    compared = 0
    for name, metric in exported.metrics.items():
        for point in metric.data.data_points:
            if moving.search(name):
                continue
            compared += 1
            labels = {key.rpartition(".")[2]: value for key, value in point.attributes.items()}
            assert labels.pop("namespace") == real.namespace
            base = name.partition(".")[2] + ("_seconds" if metric.unit == "s" else "")
            if isinstance(point, HistogramDataPoint):
                assert scraped.total(f"{base}_count", **labels) == point.count
                assert scraped.total(f"{base}_sum", **labels) == pytest.approx(point.sum)
                for bound, below in zip(point.explicit_bounds, accumulated(point.bucket_counts), strict=False):
                    assert scraped.total(f"{base}_bucket", le=str(bound), **labels) == below
            else:
                assert isinstance(point, NumberDataPoint)
                total = "_total" if hasattr(metric.data, "is_monotonic") else ""
                assert scraped.total(base + total, **labels) == point.value
    assert compared >= 15
    names = {family.name.removeprefix("rate_coordinator_") for family in scraped.families if family.samples}
    units = {"s": "_seconds", "{call}/s": "_per_second"}
    assert names == {name.partition(".")[2] + units.get(metric.unit, "") for name, metric in exported.metrics.items()}


def accumulated(counts: Sequence[int]) -> list[int]:
    return [sum(counts[: number + 1]) for number in range(len(counts))]


async def test_waits_of_hours_and_days_are_told_apart_without_a_view(
    make: Make, real: Place, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    """P57: the SDK takes the advised buckets, which reach beyond an hour."""
    coordinator = await make()
    instrument(coordinator, provider)
    for asked in (1800.0, 2 * 3600.0, 3 * 86400.0):
        await coordinator.report_rate_limit("claude", asked)

    (point,) = Exported(reader).points("asked_wait", backend="claude")
    counted = {bound: count for bound, count in zip(point.explicit_bounds, point.bucket_counts, strict=False) if count}
    assert counted == {3600.0: 1, 6 * 3600.0: 1, 7 * 86400.0: 1}
    assert "rate_coordinator.model" not in point.attributes


async def test_names_and_units_follow_the_rules(
    make: Make, real: Place, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    coordinator = await make()
    instrument(coordinator, provider)
    async with coordinator.admit("openai"):
        pass
    metrics = Exported(reader).metrics.values()

    assert len(metrics) >= 15
    for metric in metrics:
        assert re.fullmatch(r"rate_coordinator\.[a-z]+(_[a-z]+)*", metric.name)
        assert not re.search("seconds|total|count$", metric.name)
        assert metric.unit in ("", "s", "{call}/s") or re.fullmatch(r"\{[a-z]+\}", metric.unit)
        assert metric.description.endswith(".")


async def test_two_coordinators_are_told_apart_and_one_that_was_closed_is_told_no_more(
    make: Make, real: Place, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    one, other = await make(namespace="one"), await make(namespace="two")
    handle = instrument(one, provider)
    instrument(other, provider)
    await one.clear_limits()
    await other.clear_limits()
    await one.report_rate_limit("openai", 60.0)
    for _ in range(2):
        await other.report_rate_limit("openai", 60.0)
    told = Exported(reader)
    assert (told.total("reports", namespace="one"), told.total("reports", namespace="two")) == (1, 2)
    assert told.total("connected") == 2

    handle.close()
    handle.close()
    await one.report_rate_limit("openai", 60.0)
    told = Exported(reader)
    assert told.points("reports", namespace="one") == []
    assert told.total("asked_wait", namespace="one") == 1
    assert told.total("reports", namespace="two") == 2

    with instrument(one, provider):
        await one.report_rate_limit("openai", 60.0)
        assert Exported(reader).total("reports", namespace="one") == 1


async def test_a_coordinator_is_told_of_once_to_each_provider(
    make: Make, real: Place, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    """P57: what is counted twice does not equal the events."""
    coordinator = await make()
    with instrument(coordinator, provider), instrument(coordinator, NoOpMeterProvider()):
        with pytest.raises(ValueError, match=r"RateLimitCoordinator .* is told of already"):
            instrument(coordinator, provider)
        await coordinator.report_rate_limit("openai", 60.0)
        told = Exported(reader)
        assert told.total("reports") == told.total("asked_wait") == 1
    with instrument(coordinator, provider):
        assert Exported(reader).total("connected") == 1


async def test_coordinators_of_one_namespace_are_told_of_together(
    make: Make, real: Place, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    for _ in range(2):
        coordinator = await make()
        instrument(coordinator, provider)
        await coordinator.report_rate_limit("openai", 60.0)
    told = Exported(reader)
    assert told.total("reports") == told.total("asked_wait") == 2
    assert told.total("connected") == told.total("limits_active") == 1


async def test_a_coordinator_that_is_forgotten_is_told_no_more(
    real: Place, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    coordinator = RateLimitCoordinator.from_url(real.url)
    instrument(coordinator, provider)
    assert Exported(reader).points("connected")[0].value == 0
    del coordinator
    gc.collect()
    assert Exported(reader).metrics == {}


async def test_without_an_sdk_nothing_happens(make: Make, real: Place) -> None:
    coordinator = await make()
    with instrument(coordinator), instrument(coordinator, NoOpMeterProvider()):
        async with coordinator.admit("openai") as call:
            assert (await call.limited(1.0)).delivered


def test_the_global_provider_may_be_set_later_or_be_named() -> None:
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rate_coordinator.reports=2" in done.stdout


def test_a_cap_that_cannot_be_used_is_refused() -> None:
    coordinator = RateLimitCoordinator.from_url("redis://localhost")
    with pytest.raises(ValueError, match="max_targets must be a whole number of at least 1, not 0"):
        instrument(coordinator, max_targets=0)
