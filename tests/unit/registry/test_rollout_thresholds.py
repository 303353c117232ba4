"""What is learned of the stable version before anything moves."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import inf, isfinite, nan
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_registry.rollouts.facts import Profile
from inferway_registry.rollouts.thresholds import MIN_ANSWERS, output_edges, percentile_us, thresholds


def test_percentiles_are_the_upper_edges_of_their_buckets():
    """So at most five in a hundred of the stable version's own answers are above its p95."""
    latency = {0: 50, 10: 45, 100: 4, 200: 1}
    assert percentile_us(latency, 0.50) == 10
    assert percentile_us(latency, 0.95) == round(10 * 1.05**10)
    assert percentile_us(latency, 0.99) == round(10 * 1.05**100)
    assert percentile_us(latency, 1.0) == round(10 * 1.05**200)
    assert percentile_us({}, 0.95) == 0


@given(st.dictionaries(st.integers(0, 400), st.integers(1, 1000), min_size=1), st.floats(0.01, 0.999))
def test_a_percentile_has_as_many_below_it_as_it_says(latency: dict[int, int], share: float):
    """And fewer in the buckets before its own."""
    edge = percentile_us(latency, share)
    below = sum(count for bucket, count in latency.items() if round(10 * 1.05**bucket) <= edge)
    assert below >= share * sum(latency.values())


def test_too_few_answers_have_no_percentiles():
    """0 stands for "not known": nothing is too slow."""
    few = thresholds(Profile({100: MIN_ANSWERS - 1}))
    assert (few.p95_us, few.p99_us) == (0, 0)
    enough = thresholds(Profile({100: MIN_ANSWERS}))
    assert enough.p95_us == enough.p99_us == 1315


def shares(values: list[float], edges: tuple[float, ...]) -> list[float]:
    """Of the values, in each bin, as gateways count them."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_right(edges, value)] += 1
    return [count / len(values) for count in counts]


def test_values_are_cut_at_their_deciles():
    """Each bin is as full as the others, so that a shift anywhere is seen."""
    chance = Random(1)
    values = [chance.gauss(0.0, 1.0) for _ in range(1000)]
    assert all(0.09 <= share <= 0.11 for share in shares(values, output_edges(values)))


def test_each_class_has_a_bin_and_classes_that_were_never_seen_have_others():
    """A model that suddenly answers class 5 or -1 is not like one that answers 3 and 7."""
    edges = output_edges([3.0] * 50 + [7.0] * 50)
    assert edges == (2.5, 3.5, 6.5, 7.5)
    assert len({bisect_right(edges, value) for value in (-1.0, 3.0, 5.0, 7.0, 9.0)}) == 5


@pytest.mark.parametrize("constant", [0.0, 1.0 / 3.0, 12345.678])
def test_a_value_that_is_nearly_always_the_same_has_a_bin_of_its_own(constant: float):
    """Saturated probabilities: another build of the model answers 0.9999999 in place of 1, and that is no drift."""
    values = [constant] * 90 + [constant + 0.5 + number for number in range(10)]
    edges = output_edges(values)
    own = bisect_right(edges, constant)
    assert bisect_right(edges, constant * (1 + 1e-6)) == own
    assert bisect_right(edges, constant * (1 - 1e-6)) == own
    assert bisect_right(edges, constant + 0.4 + constant * 0.1) != own
    assert bisect_right(edges, constant - 1 - constant * 0.1) != own


@pytest.mark.parametrize("values", [[], [0.5] * 19, [nan] * 100, [inf] * 50 + [-inf] * 50])
def test_outputs_that_say_nothing_are_not_judged(values: list[float]):
    """Too few, or no numbers: those break the schema, which is judged by itself."""
    assert output_edges(values) == ()
    assert thresholds(Profile({100: 1000}, {"scores": tuple(values)})).edges == {}


@given(st.lists(st.floats(-1e30, 1e30) | st.floats(), max_size=300))
def test_edges_ascend(values: list[float]):
    """Gateways search them by halving; two that are equal would make a bin that is always empty."""
    edges = output_edges(values)
    assert all(map(isfinite, edges))
    assert all(one < other for one, other in pairwise(edges))
    assert len(edges) <= 42


def test_outputs_of_rare_signatures_are_not_judged():
    """They would hold every step until enough of them were seen."""
    values = tuple(number / 100 for number in range(100))
    profile = Profile({100: 1000}, {"scores": values, "explain/why": values}, {"scores": 1000, "explain/why": 400})
    assert set(thresholds(profile).edges) == {"scores"}
    known = Profile({100: 1000}, {"scores": values, "explain/why": values}, {"scores": 1000, "explain/why": 600})
    assert set(thresholds(known).edges) == {"scores", "explain/why"}


def test_the_edges_of_values_that_cannot_be_added_are_numbers():
    """A database that takes only JSON's numbers would never store another rollout."""
    assert output_edges([1.7e308] * 30) == ()
    assert all(map(isfinite, output_edges([1.7e308] * 30 + [number / 7 for number in range(30)])))
