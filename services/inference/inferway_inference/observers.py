"""What watches versions: their counters, metrics and spans, handed to the parts that feed them."""

from __future__ import annotations

from opentelemetry.trace import Tracer

from inferway_inference.counters import VersionCounters
from inferway_inference.metrics import VersionMetrics, WorkerMetrics
from inferway_inference.tracing import Tracing


class Observers:
    """Of one worker."""

    def __init__(self, metrics: WorkerMetrics, tracer: Tracer) -> None:
        """Feeds `metrics`, and makes spans with `tracer`."""
        self._metrics, self._tracer = metrics, tracer

    def of_version(
        self, version: str, counters: VersionCounters, runner_pid: int
    ) -> tuple[VersionCounters, VersionMetrics, Tracing]:
        """What an executor of `version` feeds."""
        return counters, self._metrics.of_version(version), Tracing(self._tracer, version, runner_pid)

    def loaded(self, seconds: float) -> None:
        """A load succeeded."""
        self._metrics.loads.labels("success").inc()
        self._metrics.load_seconds.observe(seconds)

    def load_failed(self) -> None:
        """A load failed."""
        self._metrics.loads.labels("failure").inc()

    def crashed(self, version: str) -> None:
        """A runner ended by itself."""
        self._metrics.of_version(version).crashes.inc()

    def memory(self, version: str, memory_bytes: int) -> None:
        """A version's memory was looked at."""
        self._metrics.of_version(version).memory_bytes.set(memory_bytes)

    def forget(self, version: str) -> None:
        """A version is gone."""
        self._metrics.forget(version)
