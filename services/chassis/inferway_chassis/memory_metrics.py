"""The memory gate's figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferway_chassis.memory_gate import MemoryGate, Refused


class MemoryMetrics(Collector):
    """Read at each scrape."""

    def __init__(self, gate: MemoryGate) -> None:
        """Of one gate."""
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        """All families."""
        gate = self._gate
        refused = CounterMetricFamily("inferway_memory_refused", "Refused for want of memory.", labels=["what"])
        for what in Refused:
            refused.add_metric([what], gate.refused[what])
        yield GaugeMetricFamily("inferway_memory_used_share", "Of the limit; 0 without one.", gate.share)
        yield GaugeMetricFamily("inferway_memory_held_bytes", "Of unanswered requests.", gate.held_bytes)
        yield refused
