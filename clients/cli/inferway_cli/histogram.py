"""Latencies of any number of requests in constant memory: counts in buckets that grow by two per cent."""

from __future__ import annotations

import math

import numpy as np

SMALLEST_SECONDS = 1e-6
GROWTH = 1.02
BUCKETS = 1_100
"""Reaches beyond 2,000 s."""


class LatencyHistogram:
    """Percentiles with a relative error of at most two per cent."""

    def __init__(self) -> None:
        """Empty."""
        self._counts = np.zeros(BUCKETS, np.int64)
        self.count = 0
        self.sum_seconds = 0.0
        self.max_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Counts one latency."""
        index = int(math.log(max(seconds, SMALLEST_SECONDS) / SMALLEST_SECONDS, GROWTH))
        self._counts[min(index, BUCKETS - 1)] += 1
        self.count += 1
        self.sum_seconds += seconds
        self.max_seconds = max(self.max_seconds, seconds)

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of the latencies do not exceed; NaN if there are none."""
        if not self.count:
            return math.nan
        rank = math.ceil(self.count * percent / 100)
        index = int(np.searchsorted(np.cumsum(self._counts), max(rank, 1)))
        return min(SMALLEST_SECONDS * GROWTH ** (index + 1), self.max_seconds)

    def mean(self) -> float:
        """Average in seconds; NaN if there are none."""
        return self.sum_seconds / self.count if self.count else math.nan
