"""What a worker counts, for Prometheus and OTLP."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from inferway.errors import InferwayError
from inferway.names import parse_version
from inferway_chassis.telemetry import LATENCY_BUCKETS_SECONDS

_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_LOAD_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_VERSION = ("model", "version")


class WorkerMetrics:
    """All metrics of a worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers them."""
        self.requests = Counter(
            "inferway_worker_requests", "Requests answered, by code.", (*_VERSION, "code"), registry=registry
        )
        self.seconds = Histogram(
            "inferway_worker_request_duration_seconds",
            "From receipt of a request to its answer.",
            _VERSION,
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        self.queue_rows = Gauge(
            "inferway_worker_queue_rows", "Rows that wait for compute.", _VERSION, registry=registry
        )
        self.batch_rows = Histogram(
            "inferway_worker_batch_rows",
            "Rows in a computed batch.",
            _VERSION,
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self.memory_bytes = Gauge(
            "inferway_worker_runner_memory_bytes",
            "Resident memory of a version's process.",
            _VERSION,
            registry=registry,
        )
        self.crashes = Counter(
            "inferway_worker_runner_crashes", "Runner processes that ended by themselves.", _VERSION, registry=registry
        )
        self.loads = Counter(
            "inferway_worker_loads", "Attempts to load a version, by result.", ("result",), registry=registry
        )
        self.load_seconds = Histogram(
            "inferway_worker_load_duration_seconds",
            "From the decision to load a version to READY.",
            buckets=_LOAD_BUCKETS,
            registry=registry,
        )

    def of_version(self, version: str) -> VersionMetrics:
        """The metrics of one version, given its resource name."""
        model, number = parse_version(version)
        return VersionMetrics(self, model, str(number))

    def forget(self, version: str) -> None:
        """Drops the gauges of a version that is gone; its counters stay, as counters must."""
        model, number = parse_version(version)
        for gauge in (self.queue_rows, self.memory_bytes):
            gauge.remove_by_labels({"model": model, "version": str(number)})


class VersionMetrics:
    """The metrics of one version, looked up once."""

    def __init__(self, metrics: WorkerMetrics, model: str, version: str) -> None:
        """Made by `WorkerMetrics.of_version`."""
        self._requests = metrics.requests
        self._labels = (model, version)
        self._ok = metrics.requests.labels(model, version, "OK")
        self._seconds = metrics.seconds.labels(model, version)
        self._batch_rows = metrics.batch_rows.labels(model, version)
        self.queue_rows = metrics.queue_rows.labels(model, version)
        self.memory_bytes = metrics.memory_bytes.labels(model, version)
        self.crashes = metrics.crashes.labels(model, version)

    def succeeded(self, batch_rows: int, seconds: list[float]) -> None:
        """A batch was answered; `seconds` has the duration of each request in it."""
        self._batch_rows.observe(batch_rows)
        self._ok.inc(len(seconds))
        for value in seconds:
            self._seconds.observe(value)

    def failed(self, error: InferwayError, seconds: float) -> None:
        """A request was answered with an error."""
        self._requests.labels(*self._labels, error.code).inc()
        self._seconds.observe(seconds)
