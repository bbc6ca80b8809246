"""Metrics through OpenTelemetry (extra ``opentelemetry``): through its API alone, whatever SDK there is.

https://opentelemetry.io/docs/specs/otel/metrics/api/, https://opentelemetry.io/docs/specs/semconv/general/metrics/
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Lock
from typing import Self, TypeAlias
from weakref import WeakKeyDictionary, ref

from rate_coordinator.integrations.families import DISTRIBUTIONS, READINGS, Distribution, Labels, Reading
from rate_coordinator.integrations.measures import MAX_TARGETS, Coordinator, Measures, Snapshot

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter, get_meter_provider
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "metrics through OpenTelemetry need the extra 'opentelemetry': pip install 'rate-coordinator[opentelemetry]'",
        name=error.name,
    ) from error

SCOPE = "rate_coordinator"
"""The instrumentation scope, and what all names of metrics and attributes begin with."""

_Attributes: TypeAlias = tuple[tuple[str, str], ...]


class Instrumentation:
    """What ``instrument`` returns: ends it by ``close``, or as a context manager."""

    def __init__(self, coordinator: Coordinator, max_targets: int, instruments: _Instruments) -> None:
        self._instruments = instruments
        self._namespace = coordinator.health.namespace
        self._coordinator = ref(coordinator)
        self._measures = Measures(coordinator, max_targets, self._record)
        if not instruments.add(self):
            self._measures.close()
            raise ValueError(f"{coordinator!r:.80} is told of already: close what the first call returned")

    def close(self) -> None:
        """Tell no more of the coordinator. Safe to call twice."""
        self._measures.close()
        self._instruments.discard(self)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def is_of_same(self, other: Instrumentation) -> bool:
        """Tell whether both tell of the same coordinator."""
        return self._coordinator() is other._coordinator()

    def state(self) -> Snapshot | None:
        """Return the coordinator's present numbers; None when it is gone."""
        return self._measures.state()

    def attributes(self, names: Labels, values: Labels) -> _Attributes:
        """Return the attributes of one value; what a target does not have is left out."""
        told = (("namespace", self._namespace), *zip(names, values, strict=True))
        return tuple((f"{SCOPE}.{name}", value) for name, value in told if value)

    def _record(self, family: Distribution, labels: Labels, value: float) -> None:
        self._instruments.record(family, value, self.attributes(family.labels, labels))


class _Instruments:
    """The instruments of one provider. It has each of them once, and with the callbacks that came first."""

    def __init__(self, provider: MeterProvider) -> None:
        self._told_of: tuple[Instrumentation, ...] = ()
        self._lock = Lock()
        meter = get_meter(SCOPE, meter_provider=provider)
        self._histograms = {
            family.name: meter.create_histogram(
                family.name, family.unit, family.about, explicit_bucket_boundaries_advisory=family.bounds
            )
            for family in DISTRIBUTIONS
        }
        for family in READINGS:
            create = meter.create_observable_counter if family.kind == "counter" else meter.create_observable_gauge
            create(family.name, [partial(self._observe, family)], family.unit, family.about)

    def add(self, one: Instrumentation) -> bool:
        with self._lock:
            # Its counters would be added up with themselves.
            if any(one.is_of_same(other) for other in self._told_of):
                return False
            self._told_of = (*self._told_of, one)
            return True

    def discard(self, one: Instrumentation) -> None:
        with self._lock:
            self._told_of = tuple(other for other in self._told_of if other is not one)

    def record(self, family: Distribution, value: float, attributes: _Attributes) -> None:
        self._histograms[family.name].record(value, dict(attributes))

    def _observe(self, family: Reading, _: CallbackOptions) -> Iterator[Observation]:
        values: dict[_Attributes, float] = {}
        for one in self._told_of:
            state = one.state()
            if state is None:
                self.discard(one)
                continue
            for labels, value in family.read(state).items():
                attributes = one.attributes(family.labels, labels)
                before = values.get(attributes, 0.0) if family.kind == "counter" else 0.0
                values[attributes] = before + value
        return (Observation(value, dict(attributes)) for attributes, value in values.items())


_of_providers: WeakKeyDictionary[MeterProvider, _Instruments] = WeakKeyDictionary()
_global: list[_Instruments] = []
_making = Lock()


def instrument(
    coordinator: Coordinator, meter_provider: MeterProvider | None = None, *, max_targets: int = MAX_TARGETS
) -> Instrumentation:
    """Tell OpenTelemetry how a coordinator is doing, from now on.

    Everything that happens is counted when it happens, however seldom it is exported. Coordinators of one namespace are
    told of together: their counters are added up, and of their gauges one is told.

    Args:
        coordinator: What to tell of. It need not be started, and is not kept alive by this.
        meter_provider: Where to; the global one if left out, which may be set later.
        max_targets: How many backends and models are told apart, 1 or more. The first ones keep their attributes;
            those that come later are told of together, as ``other``.

    Returns:
        A handle that ends it.

    Raises:
        ValueError: ``max_targets`` is not a whole number of at least 1; or this provider is told of the coordinator
            already.
    """
    return Instrumentation(coordinator, max_targets, _instruments_of(meter_provider))


def _instruments_of(provider: MeterProvider | None) -> _Instruments:
    used = get_meter_provider() if provider is None else provider
    with _making:
        # Those that were made before the global provider was set are its own since then.
        if used is get_meter_provider() and _global:
            return _global[0]
        instruments = _of_providers.get(used)
        if instruments is None:
            instruments = _of_providers[used] = _Instruments(used)
        if used is get_meter_provider():
            _global.append(instruments)
        return instruments
