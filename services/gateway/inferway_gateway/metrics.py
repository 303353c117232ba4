"""The gateway's counters for Prometheus, read from the domain's own numbers when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferway_chassis.routing_feed import RoutingFeed
from inferway_chassis.rpc_metrics import buckets
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.outcomes import Outcomes

_ARM = ("endpoint", "arm", "version")


class GatewayMetrics(Collector):
    """Counting a request costs an addition; labels and text are made here, at each scrape."""

    def __init__(self, outcomes: Outcomes, dispatcher: Dispatcher, feed: RoutingFeed) -> None:
        """Nothing is counted here: all numbers belong to these three."""
        self._outcomes, self._dispatcher, self._feed = outcomes, dispatcher, feed

    def collect(self) -> Iterator[Metric]:
        """All families of the gateway."""
        yield from self._arms()
        yield from self._queues()
        yield from self._workers()
        yield CounterMetricFamily(
            "inferway_gateway_poison_requests",
            "Requests that crashed two runners and are refused for a while.",
            self._dispatcher.guard.convictions,
        )
        yield GaugeMetricFamily(
            "inferway_gateway_snapshot_age_seconds",
            "Since the registry was last heard; routing goes on meanwhile.",
            self._feed.stale_seconds,
        )
        yield CounterMetricFamily(
            "inferway_gateway_snapshots_refused", "Snapshots that could not be used.", self._feed.refused
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
        panic = GaugeMetricFamily(
            "inferway_gateway_panic", "Whether so many workers are ejected that all are used.", labels=["version"]
        )
        for version, pool in list(self._dispatcher.pools()):
            waiting.add_metric([version], pool.queue.items)
            rows.add_metric([version], pool.queue.rows)
            lanes.add_metric([version], len(pool.lanes))
            panic.add_metric([version], pool.roster.panic)
        yield from (waiting, rows, lanes, panic)

    def _workers(self) -> Iterator[Metric]:
        breaker = GaugeMetricFamily(
            "inferway_gateway_breaker", "0 closed, 1 half open, 2 open: ejected.", labels=["version", "address"]
        )
        ejections = CounterMetricFamily(
            "inferway_gateway_ejections", "How often ejected.", labels=["version", "address"]
        )
        workers = list(self._dispatcher.workers)
        for version, pool in list(self._dispatcher.pools()):
            for worker in workers:
                member = pool.roster.members.get(worker)
                if member is not None:
                    breaker.add_metric([version, worker.address], member.breaker)
                    ejections.add_metric([version, worker.address], member.ejections)
        silences = CounterMetricFamily(
            "inferway_gateway_silences", "How often a worker with requests gave no sign of life.", labels=["address"]
        )
        for worker in workers:
            silences.add_metric([worker.address], worker.silences)
        yield from (breaker, ejections, silences)
