"""What Prometheus is told, and that it is all of it."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator, sync
from rate_coordinator.integrations.families import DISTRIBUTIONS, READINGS
from rate_coordinator.integrations.measures import OTHER
from rate_coordinator.integrations.prometheus import CoordinatorCollector, exposition
from tests.conftest import Make, Place
from tests.integrations.scrapes import PREFIX, Scrape
from tests.servers import RedisServer, eventually

STORM = 1500
"""More notices in a moment than any listener is kept."""


def registry_of(coordinator: RateLimitCoordinator, max_targets: int = 100) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(CoordinatorCollector(coordinator, max_targets=max_targets))
    return registry


@contextmanager
def scraped_from(registry: CollectorRegistry) -> Iterator[str]:
    """The library's own HTTP server, which reads in threads of its own."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_every_report_and_every_change_is_counted_once_however_seldom_it_is_scraped(
    make: Make, real: Place
) -> None:
    """P57: counts equal events, in who made them and in who heard of them."""
    one, other = await make(notice_buffer=8), await make(notice_buffer=8)
    registries = [registry_of(one), registry_of(other)]
    # A slow listener loses notices; metrics do not.
    other.on_notice(lambda notice: asyncio.sleep(0.01))

    await asyncio.gather(*(one.report_rate_limit(f"backend {number}", 60.0) for number in range(STORM)))
    await asyncio.gather(*(one.report_rate_limit("backend 0", 1.0, reason="overloaded") for _ in range(200)))
    await other.report_rate_limit("backend 0", 90.0, model="model")

    await eventually(lambda: all(Scrape(each).total("changes_total") == STORM + 1 for each in registries))
    first, second = map(Scrape, registries)
    assert other.health.notices_dropped > 0
    assert first.total("reports_total", reason="rate_limit") == STORM
    assert first.total("reports_total", reason="overloaded") == 200
    assert first.total("asked_wait_seconds_count") == STORM + 200
    assert first.total("reports_delivered_total") == STORM + 200
    assert second.total("reports_total") == 1
    assert second.total("changes_total", kind="limit") == STORM + 1
    events = await one.events()
    assert first.total("reports_total") + second.total("reports_total") == len(events)
    assert second.total("limits_active") == STORM + 1


async def test_labels_are_capped_and_no_counter_goes_down_or_vanishes(make: Make, real: Place) -> None:
    """P57: those that come late are counted together, and nothing is lost or counted twice."""
    coordinator = await make()
    registry = registry_of(coordinator, max_targets=10)
    before = Scrape(registry)
    for batch in range(5):
        names = [f"backend {number}" for number in range(batch * 20, batch * 20 + 20)]
        await asyncio.gather(*(coordinator.report_rate_limit(name, 30.0) for name in [*names, OTHER]))
        await coordinator.report_rate_limit("backend 0", 30.0)
        now = Scrape(registry)
        counted = {
            series: value for series, value in before.series.items() if re.search("_(total|count|bucket)$", series[0])
        }
        assert all(now.series[series] >= value for series, value in counted.items())
        before = now

    assert before.total("reports_total") == 5 * 22
    assert before.total("reports_total", backend="backend 0") == 6
    for name in ("reports_total", "asked_wait_seconds_count", "limit_remaining_seconds"):
        assert len(before.values(name, "backend")) == 11
        assert OTHER in before.values(name, "backend")
    assert before.total("limits_active") == len(coordinator.active_limits) == 101


async def test_a_limit_that_lifts_is_told_no_more_and_its_counters_stay(make: Make, real: Place) -> None:
    coordinator = await make()
    registry = registry_of(coordinator)
    await coordinator.report_rate_limit("openai", 500.0, model="gpt")
    told = Scrape(registry)
    assert told.total("limit_remaining_seconds", backend="openai", model="gpt") == pytest.approx(500.0, abs=30.0)
    assert told.total("limits_active") == 1

    await coordinator.clear_limits()
    await eventually(lambda: Scrape(registry).total("changes_total", kind="clear") == 1)
    told = Scrape(registry)
    assert told.values("limit_remaining_seconds", "backend") == set()
    assert told.total("limits_active") == 0
    assert told.total("reports_total", backend="openai", model="gpt") == 1


async def test_waits_of_hours_and_days_are_told_apart(make: Make, real: Place) -> None:
    """P57: buckets reach beyond an hour."""
    coordinator = await make()
    registry = registry_of(coordinator)
    for asked in (3600.0, 2 * 3600.0, 3 * 86400.0, 20 * 86400.0, 1e300, float("inf"), float("nan"), -5.0):
        await coordinator.report_rate_limit("claude", asked)

    told = Scrape(registry)
    below = {bound: told.total("asked_wait_seconds_bucket", le=bound) for bound in ("900.0", "3600.0", "21600.0")}
    assert below == {"900.0": 3, "3600.0": 4, "21600.0": 5}
    assert told.total("asked_wait_seconds_bucket", le="86400.0") == 5
    assert told.total("asked_wait_seconds_bucket", le="604800.0") == 6
    assert told.total("asked_wait_seconds_bucket", le="+Inf") == told.total("asked_wait_seconds_count") == 8
    assert told.total("asked_wait_seconds_sum") == 3600.0 + 7200.0 + 23 * 86400.0 + 366 * 86400.0


async def test_time_that_calls_wait_is_told_whatever_became_of_them(make: Make, real: Place) -> None:
    coordinator = await make()
    registry = registry_of(coordinator)
    async with coordinator.admit("openai"):
        pass
    assert await coordinator.wait_until_clear("openai") == 0.0
    assert Scrape(registry).total("wait_seconds_bucket", le="1.0", outcome="cleared") == 2

    await coordinator.report_rate_limit("openai", 0.3)
    async with coordinator.admit("openai"):
        pass
    await coordinator.report_rate_limit("openai", 60.0)
    with pytest.raises(LimitWaitTimeout):
        await coordinator.wait_until_clear("openai", timeout=1.0)
    with pytest.raises(LimitWaitTimeout):
        async with coordinator.admit("openai", "gpt", timeout=1.0):
            pass
    waiting = asyncio.create_task(coordinator.wait_until_any_clear(["openai"]))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])

    told = Scrape(registry)
    assert told.total("wait_seconds_count", backend="openai", model="", outcome="cleared") == 3
    assert told.total("wait_seconds_sum", outcome="cleared") >= 0.3
    assert told.total("wait_seconds_count", backend="openai", model="", outcome="given_up") == 2
    assert told.total("wait_seconds_count", backend="openai", model="gpt", outcome="given_up") == 1
    assert told.total("calls_avoided_total") == 2


async def test_the_pace_is_told_as_the_coordinator_knows_it(make: Make, real: Place) -> None:
    coordinator = await make()
    registry = registry_of(coordinator)
    assert Scrape(registry).values("pace_rate_per_second", "backend") == set()
    coordinator.hint("openai", initial_rate=50)
    async with coordinator.admit("openai") as call:
        await call.limited(0.2)
    async with coordinator.admit("openai"):
        pass
    pace = await coordinator.pace("openai")
    assert pace is not None

    told = Scrape(registry)
    (known,) = coordinator.health.paces
    assert told.total("pace_rate_per_second", backend="openai", model="") == known.rate > 0
    assert told.total("pace_ceiling_per_second", backend="openai", model="") == known.ceiling
    assert told.total("fleet_rate_per_second", backend="openai", model="") == known.fleet_per_second
    assert told.values("calls_waiting", "backend") == {"openai"}


async def test_how_far_the_mirror_is_behind_is_told_of_every_notice(make: Make, real: Place) -> None:
    coordinator, other = await make(), await make()
    registry = registry_of(coordinator)
    for number in range(20):
        await other.report_rate_limit(f"backend {number}", 60.0)
    await eventually(lambda: Scrape(registry).total("notice_delay_seconds_count") == 20)

    told = Scrape(registry)
    assert 0.0 <= told.total("notice_delay_seconds_sum") < 20 * 5.0
    assert coordinator.health.notice_delay_seconds is not None
    assert told.total("notices_received_total") == 20


async def test_an_outage_is_told_while_it_lasts_and_remembered_after_it(own_server: RedisServer, make: Make) -> None:
    coordinator = await make(command_timeout=1.0)
    registry = registry_of(coordinator)
    assert Scrape(registry).total("connected") == 1
    assert Scrape(registry).total("degraded_seconds_total") == 0

    own_server.stop()
    await eventually(lambda: Scrape(registry).total("connected") == 0)
    result = await coordinator.report_rate_limit("openai", 60.0)
    assert not result.delivered
    told = Scrape(registry)
    assert (told.total("reports_total"), told.total("reports_delivered_total")) == (1, 0)
    assert told.total("reports_buffered") == 1
    assert told.total("limits_active") == 1
    await eventually(lambda: Scrape(registry).total("degraded_seconds_total") > 0.2)

    own_server.start()
    await eventually(lambda: Scrape(registry).total("connected") == 1, within=30)
    await eventually(lambda: Scrape(registry).total("reports_delivered_total") == 1)
    ended = Scrape(registry).total("degraded_seconds_total")
    assert ended > 0.2
    assert ended == Scrape(registry).total("degraded_seconds_total")
    assert Scrape(registry).total("reports_total") == 1


async def test_scrapes_from_other_threads_disturb_nothing_and_lose_nothing(make: Make, real: Place) -> None:
    coordinator = await make()
    registry = registry_of(coordinator)
    ended = False

    def scrape() -> int:
        scrapes = 0
        while not ended:
            with urlopen(url) as answer:
                list(text_string_to_metric_families(answer.read().decode()))
            scrapes += 1
        return scrapes

    with scraped_from(registry) as url:
        scraping = [asyncio.create_task(asyncio.to_thread(scrape)) for _ in range(2)]
        for number in range(40):
            async with coordinator.admit(f"backend {number}") as call:
                await call.limited(60.0 if number % 2 else 0.0)
        ended = True
        assert all(await asyncio.gather(*scraping))
    told = Scrape(registry)
    assert told.total("reports_total") == told.total("wait_seconds_count") == 40


async def test_all_names_follow_the_rules_and_all_are_explained(make: Make, real: Place) -> None:
    coordinator = await make()
    families = Scrape(registry_of(coordinator)).families

    assert len(families) >= 25
    for family in families:
        assert re.fullmatch(PREFIX + "[a-z]+(_[a-z]+)*", family.name)
        assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation)
        assert not re.search("(milli|_ms|minutes|hours|_total$)", family.name)
        assert family.name.endswith(f"_{family.unit}") if family.unit else not family.name.endswith("seconds")
        assert family.unit in ("", "seconds")


def test_the_list_of_all_metrics_is_complete() -> None:
    coordinator = RateLimitCoordinator.from_url("redis://localhost")
    cells = []
    for family, metric in zip((*READINGS, *DISTRIBUTIONS), CoordinatorCollector(coordinator).describe(), strict=True):
        series = metric.name.removeprefix(PREFIX) + ("_total" if metric.type == "counter" else "")
        name, labels = family.name.removeprefix("rate_coordinator."), ", ".join(f"`{label}`" for label in family.labels)
        unit = f"`{family.unit}`" if family.unit else ""
        cells.append(f"| `{name}` | {unit} | `{series}` | {metric.type} | {labels} | {family.about} |")

    listed = (Path(__file__).parents[2] / "docs/metrics.md").read_text().splitlines()
    assert [line for line in listed if line.startswith("| `")] == cells


async def test_odd_names_are_told_as_they_are(make: Make, real: Place) -> None:
    coordinator = await make()
    registry = registry_of(coordinator)
    names = ['say "hi"', "back\\slash", "a/b", '"},{evil="1', "模型", OTHER]
    for name in names:
        await coordinator.report_rate_limit(name, 60.0, model=name)
    told = Scrape(registry)
    for name in names:
        assert told.total("reports_total", backend=name, model=name) == 1


async def test_a_registry_takes_one_collector_until_it_is_unregistered(make: Make, real: Place) -> None:
    coordinator = await make()
    registry = CollectorRegistry()
    collector = CoordinatorCollector(coordinator)
    registry.register(collector)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(CoordinatorCollector(await make()))

    await coordinator.report_rate_limit("openai", 60.0)
    collector.close()
    await coordinator.report_rate_limit("openai", 60.0)
    assert Scrape(registry).total("reports_total") == 1
    registry.unregister(collector)
    assert Scrape(registry).families == []
    registry.register(CoordinatorCollector(coordinator))


async def test_what_is_closed_can_be_read_and_what_is_forgotten_is_not_kept(make: Make, real: Place) -> None:
    coordinator = await make()
    registry = registry_of(coordinator)
    await coordinator.report_rate_limit("openai", 60.0)
    await coordinator.aclose()
    assert Scrape(registry).total("reports_total") == 1
    assert Scrape(registry).total("connected") == 0

    forgotten = RateLimitCoordinator.from_url(real.url)
    registry = registry_of(forgotten)
    assert Scrape(registry).total("connected") == 0
    assert len(Scrape(registry).families) >= 25
    exposition(forgotten)
    del forgotten
    gc.collect()
    assert Scrape(registry).families == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_who_does_not_await_is_told_of_as_well(real: Place) -> None:
    with sync.RateLimitCoordinator.from_url(real.url, real.namespace) as coordinator:
        registry = CollectorRegistry()
        registry.register(collector := CoordinatorCollector(coordinator))
        with coordinator.admit("openai") as call:
            call.limited(60.0)
        with pytest.raises(LimitWaitTimeout):
            coordinator.wait_until_clear("openai", timeout=0)
        told = Scrape(registry)
        assert told.total("reports_total") == told.total("limits_active") == told.total("connected") == 1
        assert told.total("wait_seconds_count", outcome="cleared") == 1
        assert told.total("wait_seconds_count", outcome="given_up") == 1

        child = os.fork()
        if not child:
            counted = 0.0
            try:
                coordinator.report_rate_limit("gemini", 60.0)
                counted = Scrape(registry).total("reports_total")
            finally:
                os._exit(int(counted))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2

        collector.close()
        coordinator.report_rate_limit("openai", 60.0)
        assert Scrape(registry).total("reports_total") == 1
        assert b"rate_coordinator_connected 1.0" in exposition(coordinator)[0]


async def test_who_serves_it_gets_the_format_that_the_scraper_asks_for(make: Make, real: Place) -> None:
    coordinator = await make()
    body, content_type = exposition(coordinator)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"rate_coordinator_reports_total{" not in body

    await coordinator.report_rate_limit("openai", 60.0)
    body, _ = exposition(coordinator)
    assert b'rate_coordinator_reports_total{backend="openai",model="",reason="rate_limit"} 1.0\n' in body
    body, content_type = exposition(coordinator, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "many", None])
def test_a_cap_that_cannot_be_used_is_refused(count: int) -> None:
    coordinator = RateLimitCoordinator.from_url("redis://localhost")
    with pytest.raises(ValueError, match="max_targets must be a whole number of at least 1, not"):
        CoordinatorCollector(coordinator, max_targets=count)
