"""What a scrape of Prometheus finds, for tests to ask about."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

PREFIX = "rate_coordinator_"


class Scrape:
    """One reading of all metrics, through the strict parser of OpenMetrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = generate_latest(registry).decode()  # type: ignore[no-untyped-call]
        self.families: list[Metric] = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        self.series = {
            (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all series of a name that have these labels; 0.0 where there is none."""
        wanted = labels.items()
        return sum(value for (of, told), value in self.series.items() if of == name and wanted <= dict(told).items())

    def values(self, name: str, label: str) -> set[str]:
        """Return all values of a label in the series of a name."""
        return {dict(told)[label] for of, told in self.series if of == name}
