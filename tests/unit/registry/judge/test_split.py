"""Evidence about the split of units."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_registry.judge.split import log_e, measured


def one_by_one(share: Fraction, arms: list[int]) -> Fraction:
    """The evidence as a bettor makes it: each unit's chance by what was seen so far, over the assigned one."""
    evidence, seen = Fraction(1), [0, 0]
    for arm in arms:
        chances = [1 - share, share]
        evidence *= (50 * chances[arm] + seen[arm]) / (50 + sum(seen)) / chances[arm]
        seen[arm] += 1
    return evidence


@given(st.lists(st.integers(0, 1), max_size=60), st.sampled_from([Fraction(1, 100), Fraction(1, 4), Fraction(1, 2)]))
def test_evidence_is_what_a_bettor_would_have(arms: list[int], share: Fraction):
    """The closed form is exact, and the order of arrivals does not matter."""
    got = log_e([(float(share), sum(arms), len(arms) - sum(arms))])
    assert got == pytest.approx(log(one_by_one(share, arms)), rel=1e-6, abs=1e-9)
    assert got == pytest.approx(log(one_by_one(share, sorted(arms))), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_right_split_expects_evidence_of_one(share: float):
    """By enumeration; this is what makes looking at any time harmless."""
    n = 200
    logs = [log(comb(n, c)) + c * log(share) + (n - c) * log(1 - share) for c in range(n + 1)]
    assert sum(exp(chance + log_e([(share, c, n - c)])) for c, chance in enumerate(logs)) == pytest.approx(1)


@given(st.floats(0.001, 0.999), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_arms_are_treated_alike(share: float, canary: int, stable: int):
    """A canary with too few units is as wrong as one with too many."""
    one, other = log_e([(share, canary, stable)]), log_e([(1 - share, stable, canary)])
    assert one == pytest.approx(other, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("share", [1e-4, 0.05, 0.5])
def test_a_billion_units_are_no_trouble(share: float):
    """The right split is quiet, and one that is off by a thousandth of the units is found."""
    total = 10**9
    right, wrong = round(total * share), round(total * (share + 0.001))
    assert log_e([(share, right, total - right)]) < 0
    assert log_e([(share, wrong, total - wrong)]) > 1000


def test_settings_of_the_weights_multiply_and_lonely_arms_say_nothing():
    """Each setting has its own share; at full weight nothing was split."""
    one, other = (0.1, 130, 870), (0.5, 480, 520)
    assert log_e([one, other, (1.0, 900, 0), (0.0, 0, 900)]) == pytest.approx(log_e([one]) + log_e([other]))


def test_the_measured_share_is_the_assigned_one_until_units_say_otherwise():
    """A few newcomers of a late step do not decide what share its errors are judged by."""
    assert measured((0.1, 0, 0)) == pytest.approx(0.1)
    assert measured((0.1, 3, 0)) == pytest.approx(8 / 53)
    assert measured((0.1, 20_000, 80_000)) == pytest.approx(0.2, abs=1e-4)
