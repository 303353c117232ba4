"""Sends the counters of a Prometheus registry by OTLP: one set of counters, two ways to read it."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family

_LOG = logging.getLogger(__name__)
_SCOPE = InstrumentationScope("inferway")


class OtlpMetrics:
    """Exports a registry every `interval_seconds` from a thread of its own."""

    def __init__(
        self, registry: CollectorRegistry, resource: Resource, endpoint: str, interval_seconds: float = 10.0
    ) -> None:
        """`endpoint` is `host:port`, plaintext gRPC."""
        self._registry = registry
        self._resource = resource
        self._exporter = OTLPMetricExporter(endpoint=endpoint, insecure=True, timeout=2)
        self._interval_seconds = interval_seconds
        self._started_ns = time.time_ns()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)

    def start(self) -> None:
        """Begins to export."""
        self._thread.start()

    def stop(self) -> None:
        """Exports once more and ends."""
        self._stopped.set()
        self._thread.join(timeout=3)
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            self._export()
        self._export()

    def _export(self) -> None:
        metrics = list(metrics_of(self._registry.collect(), self._started_ns, time.time_ns()))
        data = MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(_SCOPE, metrics, "")], "")])
        try:
            self._exporter.export(data, timeout_millis=2000)
        except Exception:  # noqa: BLE001 - telemetry must never end a process, whatever the exporter raises
            _LOG.debug("metrics were not exported", exc_info=True)


def metrics_of(families: Iterable[Family], started_ns: int, now_ns: int) -> Iterable[Metric]:
    """Translates Prometheus families into OTLP metrics with the same names, labels and values."""
    cumulative = AggregationTemporality.CUMULATIVE
    for family in families:
        if family.type == "histogram":
            points = list(_histogram_points(family, started_ns, now_ns))
            yield Metric(family.name, family.documentation, "", Histogram(points, cumulative))
            continue
        numbers = [
            NumberDataPoint(sample.labels, started_ns, now_ns, sample.value)
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]
        if family.type == "counter":
            yield Metric(family.name + "_total", family.documentation, "", Sum(numbers, cumulative, is_monotonic=True))
        else:
            yield Metric(family.name, family.documentation, "", Gauge(numbers))


def _histogram_points(family: Family, started_ns: int, now_ns: int) -> Iterable[HistogramDataPoint]:
    bounds: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        if sample.name.endswith("_bucket"):
            bounds[labels].append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    for labels, pairs in bounds.items():
        cumulative = [0.0, *(count for _, count in sorted(pairs))]
        counts = [int(high - low) for low, high in itertools.pairwise(cumulative)]
        yield HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=started_ns,
            time_unix_nano=now_ns,
            count=int(cumulative[-1]),
            sum=sums.get(labels, 0.0),
            bucket_counts=counts,
            explicit_bounds=[bound for bound, _ in sorted(pairs)[:-1]],
            min=0.0,
            max=0.0,
        )
