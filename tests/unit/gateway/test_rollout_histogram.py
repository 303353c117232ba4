"""Histograms of durations that gateways report."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_gateway.rollouts.histogram import FIRST_SECONDS, LAST_BUCKET, Histogram, bucket_of


@given(st.floats(1e-7, 2900.0))
def test_a_bucket_holds_what_the_contract_says(seconds: float):
    """The registry computes percentiles from the numbers of buckets alone."""
    bucket = bucket_of(seconds)

    assert seconds <= FIRST_SECONDS * 1.05**bucket * (1 + 1e-9)
    assert bucket == 0 or seconds > FIRST_SECONDS * 1.05 ** (bucket - 1) * (1 - 1e-9)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-5])
def test_what_took_no_time_is_in_the_first_bucket(seconds: float):
    """A clock may not have moved; a logarithm of zero must not end the gateway's counting."""
    assert bucket_of(seconds) == 0


def test_the_number_of_buckets_is_bounded():
    """Whatever is counted, a report stays small."""
    assert bucket_of(1e9) == bucket_of(1e12) == LAST_BUCKET


def test_equal_durations_are_counted_together():
    """Most requests of a model take about as long as one another."""
    histogram = Histogram()
    for seconds in (0.001, 0.001, 0.5):
        histogram.add(seconds)

    assert sorted(histogram.counts.values()) == [1, 2]
