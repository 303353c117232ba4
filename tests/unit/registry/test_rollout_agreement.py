"""How sure one is that answers agree."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from inferway_registry.rollouts.agreement import bounds, log_e


def test_nothing_seen_is_nothing_known():
    """Not even that anything agrees."""
    assert bounds(0, 0) == (0.0, 1.0)


def test_bounds_are_what_is_just_not_refuted():
    """On both sides of the share that was seen."""
    lower, upper = bounds(300, 290)
    assert lower < 290 / 300 < upper
    for inside, outside in ((lower + 1e-6, lower - 1e-6), (upper - 1e-6, upper + 1e-6)):
        assert log_e(300, 290, inside) < -np.log(0.05) <= log_e(300, 290, outside) + 1e-9


@pytest.mark.parametrize(("agreeing", "bound"), [(300, 1), (0, 0)])
def test_a_share_of_all_or_none_has_its_natural_end(agreeing: int, bound: int):
    """A bound of 99.99 % for what never differed would be wrong."""
    assert bounds(300, agreeing)[bound] == float(bound)


def test_three_hundred_pairs_that_agree_prove_almost_98_percent():
    """The default number of pairs of blue/green against the default agreement."""
    assert bounds(300, 300)[0] == pytest.approx(0.9789, abs=1e-4)
    assert bounds(1000, 1000)[0] > 0.99


def test_evidence_is_fair_if_the_share_is_true():
    """Its mean over all that may happen is 1: nobody gets rich by betting against the truth."""
    pairs, share = 40, 0.9
    chances = [1.0]
    for _ in range(pairs):
        chances = [
            (chances[k] if k < len(chances) else 0.0) * (1 - share) + (chances[k - 1] * share if k else 0.0)
            for k in range(len(chances) + 1)
        ]
    assert sum(chance * exp(log_e(pairs, k, share)) for k, chance in enumerate(chances)) == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.9, 0.98, 0.999])
def test_bounds_hold_at_all_times_together(share: float):
    """Looked at after every pair, which 5 % of an ordinary interval's runs would not survive for long."""
    runs, pairs = 400, 500
    agreeing = np.cumsum(np.random.default_rng(7).random((runs, pairs)) < share, axis=1)
    looks = range(0, pairs, 5)
    missed = sum(any(log_e(n + 1, int(run[n]), share) >= -np.log(0.05) for n in looks) for run in agreeing)
    assert missed <= 0.05 * runs
