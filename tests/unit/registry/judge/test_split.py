"""Evidence about the split of units."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_registry.judge.split import Arrivals, log_e, log_mean, measured

TENTH, HALVES = Fraction(1, 10), (Fraction(1, 2), Fraction(1, 2))


def of_two(share: float, canary: int, stable: int) -> Arrivals:
    """A rollout's."""
    return (share, canary), (1 - share, stable)


def one_by_one(shares: tuple[Fraction, ...], arms: list[int]) -> Fraction:
    """The evidence as a bettor makes it: each unit's chance by what was seen so far, over the assigned one."""
    evidence, seen = Fraction(1), [0] * len(shares)
    for arm in arms:
        evidence *= (50 * shares[arm] + seen[arm]) / (50 + sum(seen)) / shares[arm]
        seen[arm] += 1
    return evidence


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.sampled_from([(TENTH / 10, 1 - TENTH / 10), HALVES, (TENTH, 2 * TENTH, 7 * TENTH), (Fraction(1, 4),) * 4]),
)
def test_evidence_is_what_a_bettor_would_have(arms: list[int], shares: tuple[Fraction, ...]):
    """The closed form is exact for any number of arms, and the order of arrivals does not matter."""
    arms = [arm % len(shares) for arm in arms]
    got = log_e([[(float(share), arms.count(arm)) for arm, share in enumerate(shares)]])
    assert got == pytest.approx(log(one_by_one(shares, arms)), rel=1e-6, abs=1e-9)
    assert got == pytest.approx(log(one_by_one(shares, sorted(arms))), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_right_split_expects_evidence_of_one(share: float):
    """By enumeration; this is what makes looking at any time harmless."""
    n = 200
    logs = [log(comb(n, c)) + c * log(share) + (n - c) * log(1 - share) for c in range(n + 1)]
    assert sum(exp(chance + log_e([of_two(share, c, n - c)])) for c, chance in enumerate(logs)) == pytest.approx(1)


@given(st.floats(0.001, 0.999), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_arms_are_treated_alike(share: float, canary: int, stable: int):
    """A canary with too few units is as wrong as one with too many."""
    one, other = log_e([of_two(share, canary, stable)]), log_e([of_two(1 - share, stable, canary)])
    assert one == pytest.approx(other, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("share", [1e-4, 0.05, 0.5])
def test_a_billion_units_are_no_trouble(share: float):
    """The right split is quiet, and one that is off by a thousandth of the units is found."""
    total = 10**9
    right, wrong = round(total * share), round(total * (share + 0.001))
    assert log_e([of_two(share, right, total - right)]) < 0
    assert log_e([of_two(share, wrong, total - wrong)]) > 1000


def test_settings_of_the_weights_multiply_and_lonely_arms_say_nothing():
    """Each setting has its own share; at full weight nothing was split."""
    one, other = of_two(0.1, 130, 870), of_two(0.5, 480, 520)
    both = log_e([one, other, of_two(1.0, 900, 0), of_two(0.0, 0, 900)])
    assert both == pytest.approx(log_e([one]) + log_e([other]))


def test_the_measured_share_is_the_assigned_one_until_units_say_otherwise():
    """A few newcomers of a late step do not decide what share its errors are judged by."""
    assert measured(of_two(0.1, 0, 0)) == pytest.approx([0.1, 0.9])
    assert measured(of_two(0.1, 3, 0))[0] == pytest.approx(8 / 53)
    assert measured(of_two(0.1, 20_000, 80_000))[0] == pytest.approx(0.2, abs=1e-4)
    assert measured([(0.5, 0), (0.3, 0), (0.2, 50)]) == pytest.approx([0.25, 0.15, 0.6])


def test_the_mean_of_evidence_is_that_of_the_numbers_and_not_of_their_logarithms():
    """One of several gateways that is sure counts; and numbers that no computer holds are no trouble."""
    assert log_mean([log(1.0), log(5.0)]) == pytest.approx(log(3.0))
    assert log_mean([5000.0, -5000.0]) == pytest.approx(5000.0 - log(2))


def test_splits_of_several_arms_that_are_right_are_left_alone_however_often_one_looks():
    """At an alpha of .001 two of 1,000 would be no surprise, and eight come by chance once in a million times."""
    shares, random = (0.5, 0.3, 0.2), np.random.default_rng(7)
    arrivals = random.multinomial(50, shares, size=(1_000, 40)).cumsum(axis=1)
    looks = ([(share, int(n)) for share, n in zip(shares, seen, strict=True)] for split in arrivals for seen in split)
    evidence = np.array([log_e([look]) for look in looks]).reshape(1_000, 40)

    assert (evidence.max(axis=1) >= log(1000)).sum() <= 7
