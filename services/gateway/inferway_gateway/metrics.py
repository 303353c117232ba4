"""The gateway's counters for Prometheus, read from the domain's own numbers when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferway_chassis.rpc_metrics import buckets
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.outcomes import Outcomes

_ARM = ("endpoint", "arm", "version")


class GatewayMetrics(Collector):
    """Counting a request costs an addition; labels and text are made here, at each scrape."""

    def __init__(self, outcomes: Outcomes, dispatcher: Dispatcher, snapshot_age_seconds: Callable[[], float]) -> None:
        """`snapshot_age_seconds`: since the registry was last heard."""
        self._outcomes, self._dispatcher, self._snapshot_age_seconds = outcomes, dispatcher, snapshot_age_seconds

    def collect(self) -> Iterator[Metric]:
        """All families of the gateway."""
        yield from self._arms()
        yield from self._queues()
        yield GaugeMetricFamily(
            "inferway_gateway_snapshot_age_seconds",
            "Since the registry was last heard; routing goes on meanwhile.",
            self._snapshot_age_seconds(),
        )

    def _arms(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "inferway_gateway_requests", "Predictions ended, by status code.", labels=[*_ARM, "code"]
        )
        retries = CounterMetricFamily("inferway_gateway_retries", "Attempts after the first.", labels=_ARM)
        seconds = HistogramMetricFamily(
            "inferway_gateway_request_duration_seconds", "From receipt to answer, of answered requests.", labels=_ARM
        )
        for key, arm in list(self._outcomes.arms.items()):
            for code, count in list(arm.by_code.items()):
                requests.add_metric([*key, code], count)
            retries.add_metric(key, arm.retries)
            seconds.add_metric(key, buckets(arm.bounds, arm.latency_counts), arm.latency_sum)
        yield from (requests, retries, seconds)

    def _queues(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("inferway_gateway_queue_requests", "Requests waiting.", labels=["version"])
        rows = GaugeMetricFamily("inferway_gateway_queue_rows", "Rows waiting.", labels=["version"])
        lanes = GaugeMetricFamily("inferway_gateway_links_ready", "Links that serve it.", labels=["version"])
        for version, pool in list(self._dispatcher.pools()):
            waiting.add_metric([version], pool.queue.items)
            rows.add_metric([version], pool.queue.rows)
            lanes.add_metric([version], len(pool.lanes))
        yield from (waiting, rows, lanes)
