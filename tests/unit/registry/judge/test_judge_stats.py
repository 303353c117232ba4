"""Rollouts on simulated traffic, the quick form of `make stats`: seeded, with bounds that a worse judge breaks."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from benchmarks.judge_rollout import drive
from benchmarks.judge_stats import (
    BY_REQUEST,
    CONSTANT,
    EFFECTS,
    HALF,
    LOSSES,
    TRAFFIC,
    Alarms,
    gate,
    run,
    upper_bound,
    z_test,
)
from benchmarks.judge_traffic import FIRST_BIN, NO_EFFECT, Effect, Tape, Traffic, draw, profile, record
from inferway_registry.rollouts.thresholds import thresholds

RUNS = 6
SECONDS = 300
SHORT_RAMP = (500, 2500, 5000)


def runs(traffic: Traffic, effect: Effect, weights: tuple[int, ...], count: int = RUNS) -> list[Alarms]:
    """With seeds of their own."""
    return [run(traffic, effect, weights, seed, SECONDS) for seed in range(count)]


def taped(traffic: Traffic, effect: Effect, shares: list[float], seed: int) -> Tape:
    """Traffic with these shares of the canary, second by second, without anybody who acts on it."""
    crowd = draw(traffic, len(shares), np.random.default_rng(seed))
    return record(crowd, effect, np.array(shares), thresholds(profile(crowd)))


def test_no_traffic_rolls_back_what_does_no_harm():
    """Of 30 rollouts at alpha .05 more than 4 alarms would come by chance once in 100 times; z-tests make more."""
    got = [each for traffic in TRAFFIC for each in runs(traffic, NO_EFFECT, SHORT_RAMP)]
    assert sum(each.rolled_back is not None for each in got) <= 4
    assert sum(each.mismatch is not None for each in got) == 0
    assert sum(each.z_test is not None for each in got) >= 10


def test_a_canary_that_does_no_harm_comes_to_the_end_of_its_ramp():
    """The machine's weights reach the traffic: with the last of them half of the requests are the canary's."""
    tape = drive(TRAFFIC[0], NO_EFFECT, SHORT_RAMP, 1, SECONDS).tape
    last = tape.requests[-1, :, 0] - tape.requests[-90, :, 0]
    assert last[1] / last.sum() == pytest.approx(0.5, abs=0.02)


def test_counting_requests_of_sticky_users_would_be_wrong():
    """Why `Counts` has units: the same traffic by request raises alarm after alarm."""
    got = runs(BY_REQUEST, NO_EFFECT, SHORT_RAMP)
    assert sum(each.rolled_back is not None for each in got) >= RUNS // 2


@pytest.mark.parametrize(("effect", "seconds"), [*zip(EFFECTS, (80, 60, 250), strict=True)])
def test_harm_is_rolled_back_soon(effect: Effect, seconds: int):
    """Twice what `make stats` measures as the median; the gate needs five minutes or does not see it."""
    got = runs(TRAFFIC[0], effect, CONSTANT)
    assert median(SECONDS if each.rolled_back is None else each.rolled_back for each in got) <= seconds


def test_lost_units_are_a_wrong_split_and_no_harm():
    """A canary that loses a tenth of its units is paused."""
    got = runs(TRAFFIC[0], LOSSES[1], HALF, 3)
    assert all(each.mismatch is not None and each.mismatch <= 90 for each in got)
    assert all(each.rolled_back is None for each in got)


def test_what_was_counted_does_not_depend_on_weights_to_come():
    """The machine decides on them while it goes; the past must stay as it saw it."""
    crowd = draw(replace(TRAFFIC[4], users=50), 120, np.random.default_rng(3))
    known = thresholds(profile(crowd))
    one, other = (record(crowd, NO_EFFECT, np.repeat([0.1, later], 60), known) for later in (0.1, 0.5))
    assert (one.counts[:61] == other.counts[:61]).all()
    assert (one.requests[:61] == other.requests[:61]).all()


def test_a_unit_counts_once():
    """The tape keeps the rules of `Counts`: as many newcomers as users, and no unit's event or output twice."""
    users = 50
    tape = taped(Traffic("sticky", users=users), NO_EFFECT, [0.1] * 60 + [0.5] * 60, 3)
    both = tape.counts[-1].sum(axis=0)
    assert both[1] == users
    assert (both[2:FIRST_BIN] <= users).all()
    assert both[FIRST_BIN:].sum() == users
    assert both[0] <= 2 * users
    assert tape.requests[-1, :, 0].sum() > 100 * users


def test_the_others_find_what_is_plain():
    """The baselines work: what they are compared by is not a broken gate or test."""
    awful = taped(TRAFFIC[0], Effect("awful", error_share=0.2), [0.1] * 600, 1)
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
