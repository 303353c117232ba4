"""The judge on simulated traffic, the quick form of `make stats`: seeded, with bounds that a worse judge breaks."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest

from benchmarks.judge_stats import BY_REQUEST, EFFECTS, LOSSES, TRAFFIC, Alarms, gate, run, upper_bound, z_test
from benchmarks.judge_traffic import BINS, NO_EFFECT, Effect, Traffic, record

RUNS = 6
SECONDS = 300
SHORT_RAMP = (0.05, 0.25, 0.50)


def runs(traffic: Traffic, effect: Effect, share: float, count: int = RUNS) -> list[Alarms]:
    """With seeds of their own."""
    return [run(traffic, effect, (share,), seed, SECONDS) for seed in range(count)]


def test_no_traffic_makes_the_judge_find_harm_where_none_is():
    """Of 30 rollouts at alpha .05 more than 4 alarms would come by chance once in 100 times; z-tests make more."""
    got = [run(traffic, NO_EFFECT, SHORT_RAMP, seed, SECONDS) for traffic in TRAFFIC for seed in range(RUNS)]
    assert sum(each.judge is not None for each in got) <= 4
    assert sum(each.mismatch is not None for each in got) == 0
    assert sum(each.z_test is not None for each in got) >= 10


def test_counting_requests_of_sticky_users_would_be_wrong():
    """Why `Counts` has units: the same traffic by request raises alarm after alarm."""
    got = [run(BY_REQUEST, NO_EFFECT, SHORT_RAMP, seed, SECONDS) for seed in range(RUNS)]
    assert sum(each.judge is not None for each in got) >= RUNS // 2


@pytest.mark.parametrize(("effect", "seconds"), [*zip(EFFECTS, (80, 40, 250), strict=True)])
def test_harm_is_found_soon(effect: Effect, seconds: int):
    """Twice what `make stats` measures as the median; the gate needs five minutes or does not see it."""
    got = runs(TRAFFIC[0], effect, 0.05)
    assert median(SECONDS if each.judge is None else each.judge for each in got) <= seconds


def test_lost_units_are_a_wrong_split_and_no_harm():
    """A canary that loses a tenth of its units is paused."""
    got = runs(TRAFFIC[0], LOSSES[1], 0.5, 3)
    assert all(each.mismatch is not None and each.mismatch <= 90 for each in got)
    assert all(each.judge is None for each in got)


def test_a_unit_counts_once():
    """The tape keeps the rules of `Counts`: as many newcomers as users, and no unit's event or output twice."""
    users = 50
    tape = record(Traffic("sticky", users=users), NO_EFFECT, np.repeat([0.1, 0.5], 60), np.random.default_rng(3))
    both = tape.counts[-1].sum(axis=0)
    assert both[1] == users
    assert (both[2:5] <= users).all()
    assert both[5 : 5 + BINS].sum() == users
    assert both[0] <= 2 * users
    assert tape.requests[-1, :, 0].sum() > 100 * users


def test_the_others_find_what_is_plain():
    """The baselines work: what they are compared by is not a broken gate or test."""
    awful = record(TRAFFIC[0], Effect("awful", error_share=0.2), np.full(600, 0.1), np.random.default_rng(1))
    assert gate(awful) == 299
    found = z_test(awful)
    assert found is not None
    assert found <= 20


@pytest.mark.parametrize(
    ("hits", "runs", "bound"), [(0, 100, 0.029513), (5, 100, 0.102253), (23, 1000, 0.032428), (3, 3, 1.0)]
)
def test_the_bound_is_that_of_clopper_and_pearson(hits: int, runs: int, bound: float):
    """Against the quantiles of the beta distribution."""
    assert upper_bound(hits, runs) == pytest.approx(bound, abs=1e-5)
