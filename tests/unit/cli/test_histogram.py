"""Percentiles from buckets stay within two per cent of the exact ones."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferway_cli.histogram import LatencyHistogram


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200), st.sampled_from([1.0, 50.0, 95.0, 99.0, 100.0]))
def test_percentiles_are_right_within_two_per_cent(latencies: list[float], percent: float):
    """What a user compares between two versions of a model."""
    histogram = LatencyHistogram()
    for latency in latencies:
        histogram.add(latency)
    exact = float(np.percentile(latencies, percent, method="inverted_cdf"))
    assert math.isclose(histogram.percentile(percent), exact, rel_tol=0.021)


def test_an_empty_one_has_no_percentile():
    """Rather than a latency of zero."""
    assert math.isnan(LatencyHistogram().percentile(50))


def test_times_beyond_the_last_bucket_are_counted():
    """A request that hung for an hour is the slowest, not an IndexError."""
    histogram = LatencyHistogram()
    histogram.add(4_000_000.0)
    histogram.add(0.0)
    assert histogram.count == 2
    assert histogram.percentile(100) > 2_000
