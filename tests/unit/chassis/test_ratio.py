"""Evidence about ratios: what it must be worth, by enumeration and as laws."""

from __future__ import annotations

from itertools import pairwise, product
from math import exp, inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_chassis.ratio import ABOVE, BELOW, NEAR_BELOW, Tally, log_any, log_e, log_either, log_mean

SHARES = st.floats(0.001, 0.999)
COUNTS = st.integers(0, 10_000)
TALLIES = st.lists(st.tuples(SHARES, COUNTS, COUNTS), min_size=1, max_size=4)
REL, ABS = 1e-9, 1e-6


def chance(share: float, ratio: float) -> float:
    """That an event is the canary's."""
    return share * ratio / (share * ratio + 1 - share)


def written_out(tallies: list[Tally], ratio: float, factors: tuple[float, ...]) -> float:
    """The evidence as its docstring defines it, without logarithms."""
    mean = 0.0
    for factor in factors:
        likelihood = 1.0
        for share, canary, stable in tallies:
            one, other = chance(share, ratio * factor), chance(share, ratio)
            likelihood *= (one / other) ** canary * ((1 - one) / (1 - other)) ** stable
        mean += likelihood / len(factors)
    return mean


@pytest.mark.parametrize("factors", [ABOVE, BELOW, NEAR_BELOW])
@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25, 2.0])
def test_evidence_is_the_mean_likelihood_ratio(ratio: float, factors: tuple[float, ...]):
    """The short form in logarithms is what the formula says."""
    for canary, stable in product(range(6), range(12)):
        tallies = [(0.05, canary, stable), (0.25, stable, canary)]
        assert log_e(tallies, ratio, factors) == pytest.approx(
            log(written_out(tallies, ratio, factors)), rel=REL, abs=ABS
        )


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize(("ratio", "factors"), [(1.0, ABOVE), (1.5, ABOVE), (2.0, NEAR_BELOW)])
def test_looking_after_every_event_keeps_the_rate_of_false_alarms(
    ratio: float, share: float, factors: tuple[float, ...]
):
    """The promise of the judge, computed exactly: all paths of 150 events at the edge of what is no harm."""
    alpha, truth = 0.05, chance(share, ratio)
    alive, alarmed = {0: 1.0}, 0.0
    for events in range(1, 151):
        following: dict[int, float] = {}
        for canary, weight in alive.items():
            for step, probability in ((1, truth), (0, 1 - truth)):
                following[canary + step] = following.get(canary + step, 0.0) + weight * probability
        over = {c for c in following if log_e([(share, c, events - c)], ratio, factors) >= -log(alpha)}
        alarmed += sum(following.pop(canary) for canary in over)
        alive = following
    assert 0 < alarmed <= alpha
    assert alarmed + sum(alive.values()) == pytest.approx(1)


@pytest.mark.parametrize("truth", [0.3, 0.7, 1.0])
def test_what_the_margin_allows_is_no_evidence(truth: float):
    """A canary that is as good as the stable arm, or better, has less evidence against it than one at the margin."""
    events, share = 60, 0.2
    expected = []
    for ratio in (truth, 1.0):
        p = chance(share, ratio)
        paths = [1.0]
        for _ in range(events):
            paths = [a * (1 - p) + b * p for a, b in zip([*paths, 0.0], [0.0, *paths], strict=True)]
        values = [exp(log_e([(share, c, events - c)], 1.0, ABOVE)) for c in range(events + 1)]
        expected.append(sum(weight * value for weight, value in zip(paths, values, strict=True)))
    assert expected[0] <= expected[1] + 1e-9
    assert expected[1] == pytest.approx(1)


@given(TALLIES, st.integers(1, 1000))
def test_more_events_of_the_canary_are_more_evidence_of_harm(tallies: list[Tally], more: int):
    """Otherwise a worse canary could pass where a better one fails."""
    share, canary, stable = tallies[0]
    worse = [(share, canary + more, stable), *tallies[1:]]
    better = [(share, canary, stable + more), *tallies[1:]]
    assert log_e(worse, 1.0, ABOVE) >= log_e(tallies, 1.0, ABOVE) - 1e-6 >= log_e(better, 1.0, ABOVE) - 2e-6


@given(TALLIES, st.floats(1.0, 3.0))
def test_evidence_of_a_shift_does_not_depend_on_which_arm_is_the_canary(tallies: list[Tally], margin: float):
    """Outputs that differ are as much a finding if the stable arm is the one with more."""
    swapped = [(1 - share, stable, canary) for share, canary, stable in tallies]
    assert log_either(tallies, margin) == pytest.approx(log_either(swapped, margin), rel=1e-6, abs=1e-5)


@given(TALLIES, SHARES, COUNTS, COUNTS)
def test_counts_of_the_same_share_add_up(tallies: list[Tally], share: float, canary: int, stable: int):
    """So two gateways are as one, and the order of events within a second does not matter."""
    apart = log_e([*tallies, (share, canary, 0), (share, 0, stable)], 1.25, ABOVE)
    assert apart == pytest.approx(log_e([(share, canary, stable), *tallies], 1.25, ABOVE), rel=REL, abs=ABS)


@given(COUNTS, COUNTS, st.sampled_from([0.0, 1.0]))
def test_an_arm_without_traffic_says_nothing(canary: int, stable: int, share: float):
    """At weight zero, and at full weight, there is nothing to compare."""
    assert log_e([(share, canary, stable)], 1.0, ABOVE) == pytest.approx(0)


@pytest.mark.parametrize("share", [1e-4, 0.05, 0.5])
def test_a_billion_events_are_no_trouble(share: float):
    """Long rollouts neither overflow nor drown in rounding: a ratio of one refutes harm, one of two proves it."""
    total = 10**9
    same, double = round(total * share), round(total * chance(share, 2.0))
    refuted = log_e([(share, same, total - same)], 1.0, ABOVE)
    proven = log_e([(share, double, total - double)], 1.0, ABOVE)
    assert -inf < refuted < -1000 < 1000 < proven < inf
    assert log_e([(share, same, total - same)], 1.5, NEAR_BELOW) > 1000


def test_three_errors_of_a_small_canary_beside_none_are_enough():
    """A metric that the stable arm never has needs no special case, and no division by zero."""
    threshold = -log(0.02)
    assert log_e([(0.05, 2, 0)], 1.0, ABOVE) < threshold <= log_e([(0.05, 3, 0)], 1.0, ABOVE)


def test_one_bin_that_shifts_is_found_among_many():
    """It is not drowned by the others, and all bins alike are no evidence."""
    alike: list[list[Tally]] = [[(0.1, 100, 900)]] * 40
    assert log_any(alike, 1.25) <= 0
    assert log_any([*alike, [(0.1, 300, 900)]], 1.25) > 20


def test_many_bins_at_the_margin_have_no_evidence_on_average():
    """What bins say together is worth one at most in expectation: by enumeration of three bins of four events."""
    share, margin = 0.3, 1.25
    truths = [chance(share, margin), chance(share, 1 / margin), chance(share, 1.0)]
    mean = 0.0
    for path in product(*(product((0, 1), repeat=4) for _ in truths)):
        weight = 1.0
        for truth, arms in zip(truths, path, strict=True):
            weight *= truth ** sum(arms) * (1 - truth) ** (4 - sum(arms))
        mean += weight * exp(log_any([[(share, sum(arms), 4 - sum(arms))] for arms in path], margin))
    assert mean <= 1 + 1e-9


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=8))
def test_the_mean_of_logarithms_is_that_of_what_they_stand_for(logs: list[float]):
    """And it lies between the smallest and the largest, however far those are apart."""
    mean = log_mean(logs)
    assert min(logs) - 1e-9 <= mean <= max(logs) + 1e-9
    if max(logs) < 300:
        assert mean == pytest.approx(log(sum(map(exp, logs)) / len(logs)), rel=1e-9, abs=1e-9)


def test_the_closer_margin_is_harder_to_prove():
    """Safe at 1.5 is safe at 2."""
    proofs = [log_e([(0.5, 500, 500)], margin, NEAR_BELOW) for margin in (1.25, 1.5, 2.0)]
    assert all(one < other for one, other in pairwise(proofs))
