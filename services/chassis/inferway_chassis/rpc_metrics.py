"""Counts rpcs: plain numbers that cost an addition each, and become metrics when somebody reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_LABELS = ("service", "method")


class RpcCounts:
    """Of one method, since the start of the process."""

    __slots__ = ("_bounds", "active", "by_bucket", "by_code", "seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper edges of the latency buckets in seconds, ascending."""
        self._bounds = bounds
        self.active = 0
        self.seconds = 0.0
        self.by_code = Counter[str]()
        self.by_bucket = [0] * (len(bounds) + 1)

    def ended(self, code: str, seconds: float) -> None:
        """One rpc ended with the gRPC code of that name."""
        self.active -= 1
        self.by_code[code] += 1
        self.by_bucket[bisect_left(self._bounds, seconds)] += 1
        self.seconds += seconds


class RpcMetrics(Collector):
    """The counts of all methods of a server."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` as in RpcCounts."""
        self._bounds = bounds
        self._methods: dict[tuple[str, str], RpcCounts] = {}

    def of(self, service: str, method: str) -> RpcCounts:
        """The counts of one method."""
        return self._methods.setdefault((service, method), RpcCounts(self._bounds))

    def collect(self) -> Iterator[Metric]:
        """All families."""
        requests = CounterMetricFamily("inferway_rpc_requests", "Rpcs ended, by code.", labels=[*_LABELS, "code"])
        active = GaugeMetricFamily("inferway_rpc_active", "Rpcs in progress.", labels=_LABELS)
        seconds = HistogramMetricFamily(
            "inferway_rpc_duration_seconds", "From receipt of an rpc to its end.", labels=_LABELS
        )
        for key, counts in self._methods.items():
            for code, count in list(counts.by_code.items()):
                requests.add_metric([*key, code], count)
            active.add_metric(key, counts.active)
            seconds.add_metric(key, buckets(self._bounds, counts.by_bucket), counts.seconds)
        yield from (requests, active, seconds)


def buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative Prometheus buckets of plain ones; `counts` has one more, for all above the highest bound."""
    total, cumulative = 0, []
    for edge, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        total += count
        cumulative.append((edge, float(total)))
    return cumulative
