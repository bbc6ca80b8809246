"""Metrics for Prometheus (extra ``prometheus``), in its text format and in that of OpenMetrics.

https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator
from threading import Lock
from weakref import WeakKeyDictionary

from rate_coordinator.integrations.families import DISTRIBUTIONS, READINGS, Distribution, Family, Labels, Reading, State
from rate_coordinator.integrations.measures import MAX_TARGETS, Coordinator, Measures

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.utils import floatToGoString
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "metrics for Prometheus need the extra 'prometheus': pip install 'rate-coordinator[prometheus]'",
        name=error.name,
    ) from error


class CoordinatorCollector:
    """Tells Prometheus how a coordinator is doing: ``REGISTRY.register(CoordinatorCollector(coordinator))``.

    Everything that happens is counted when it happens, however seldom the metrics are read, from the making of the
    collector on. A registry takes one of these. In prometheus_client's multiprocess mode, collectors of other processes
    are not read: serve each process's own.

    Args:
        coordinator: What to tell of. It need not be started, and is not kept alive by this.
        max_targets: How many backends and models are told apart, 1 or more. The first ones keep their labels; those
            that come later are told of together, as ``other``.

    Raises:
        ValueError: ``max_targets`` is not a whole number of at least 1.
    """

    def __init__(self, coordinator: Coordinator, *, max_targets: int = MAX_TARGETS) -> None:
        self._histograms = {family.name: _Histogram(family) for family in DISTRIBUTIONS}
        self._measures = Measures(coordinator, max_targets, self._record)

    def describe(self) -> Iterator[Metric]:
        """Yield every family without its samples, for the registry to see whether the names are taken."""
        yield from map(_empty, READINGS)
        yield from (histogram.empty() for histogram in self._histograms.values())

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its samples."""
        state = self._measures.state()
        if state is not None:
            yield from (_told(family, state) for family in READINGS)
            yield from (histogram.told() for histogram in self._histograms.values())

    def close(self) -> None:
        """Count no more. Unregister it as well."""
        self._measures.close()

    def _record(self, family: Distribution, labels: Labels, value: float) -> None:
        self._histograms[family.name].record(labels, value)


_registries: WeakKeyDictionary[Coordinator, CollectorRegistry] = WeakKeyDictionary()
_registering = Lock()


def exposition(coordinator: Coordinator, accept: str = "") -> tuple[bytes, str]:
    """Return a coordinator's metrics as an HTTP server answers them to a scrape.

    What is counted by target is counted from the first call on: make one at start.

    Args:
        coordinator: What to tell of.
        accept: The request's ``Accept`` header: whether the scraper takes OpenMetrics.

    Returns:
        The body, and its content type.
    """
    with _registering:
        registry = _registries.get(coordinator)
        if registry is None:
            registry = _registries[coordinator] = CollectorRegistry()
            registry.register(CoordinatorCollector(coordinator))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Histogram:
    """Counts values by bucket, for each set of labels."""

    def __init__(self, family: Distribution) -> None:
        self._family = family
        # One thread records, and replaces what another may be reading.
        self._series: dict[Labels, tuple[list[int], float]] = {}

    def record(self, labels: Labels, value: float) -> None:
        counts, total = self._series.get(labels) or ([0] * (len(self._family.bounds) + 1), 0.0)
        counts = counts.copy()
        counts[bisect_left(self._family.bounds, value)] += 1
        self._series[labels] = (counts, total + value)

    def empty(self) -> HistogramMetricFamily:
        family = self._family
        return HistogramMetricFamily(_name(family), family.about, labels=family.labels, unit=_unit(family))

    def told(self) -> Metric:
        told = self.empty()
        bounds = [*map(floatToGoString, self._family.bounds), "+Inf"]
        for labels, (counts, total) in self._series.copy().items():
            told.add_metric(labels, list(zip(bounds, itertools.accumulate(counts), strict=True)), total)
        return told


def _empty(family: Reading) -> CounterMetricFamily | GaugeMetricFamily:
    of_kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    return of_kind(_name(family), family.about, labels=family.labels, unit=_unit(family))


def _told(family: Reading, state: State) -> Metric:
    told = _empty(family)
    for labels, value in family.read(state).items():
        told.add_metric(labels, value)
    return told


def _name(family: Family) -> str:
    """Return a family's name as OpenTelemetry's metrics are named in Prometheus; the library adds unit and ``_total``.

    https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
    """
    return family.name.replace(".", "_") + ("_per_second" if family.unit == "{call}/s" else "")


def _unit(family: Family) -> str:
    return "seconds" if family.unit == "s" else ""
