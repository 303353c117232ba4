"""When a gateway stops a candidate by itself."""

from __future__ import annotations

import random

import pytest

from inferway_gateway.rollouts.brake import why_stop
from inferway_gateway.rollouts.tally import ArmTally, PhaseTally

ALPHA = 0.005


def arm(units: int, failing: int) -> ArmTally:
    """So many units, and how many of them had an error."""
    return ArmTally(units=units, newcomers=units, errors_of_units=failing, events={"MODEL_FAILED": failing})


def phase(share: float, candidate: ArmTally, stable: ArmTally, generation: int = 1) -> PhaseTally:
    """A setting of the weights."""
    return PhaseTally(generation, share, stable, candidate)


def test_a_candidate_that_always_fails_is_stopped_after_a_handful():
    """At 5 % of 200 requests a second this is half a second: nobody else could be so quick."""
    failing = next(n for n in range(1, 100) if why_stop([phase(0.05, arm(n, n), arm(19 * n, 0))], 5e-5))

    assert failing <= 5


def test_an_outage_of_both_arms_stops_nobody():
    """A database that all versions need is down: the candidate is not to blame, and stable would not help."""
    for seen in range(1, 200):
        assert why_stop([phase(0.05, arm(seen, seen), arm(19 * seen, 19 * seen))], ALPHA) == ""


def test_equal_arms_are_hardly_ever_stopped_however_often_one_looks():
    """The brake is asked at every error of the candidate, so it must hold at all of them together."""
    chance = random.Random(7)
    stopped = 0
    for _ in range(200):
        one, other = arm(1, 0), arm(1, 0)
        reasons = set()
        for _ in range(300):
            hit = one if chance.random() < 0.2 else other
            hit.units += 20
            hit.errors_of_units += 1
            reasons.add(why_stop([phase(0.2, one, other)], ALPHA))
        stopped += reasons != {""}

    assert stopped <= 5  # alpha allows for 1; more than 5 would have a chance of 1 in 1,000


def test_evidence_of_several_phases_adds_up():
    """The weights may change before there is enough of it under any of them."""
    one, other = phase(0.05, arm(2, 2), arm(38, 0), 1), phase(0.1, arm(3, 3), arm(27, 0), 2)

    assert why_stop([one], ALPHA) == why_stop([other], ALPHA) == ""
    assert why_stop([one, other], ALPHA)


def test_after_a_switch_the_candidate_is_compared_with_what_was_before():
    """With all traffic there is nothing beside it; but if half of all fail where nobody failed, one may go back."""
    before, after = phase(0.0, arm(0, 0), arm(1000, 1), 1), phase(1.0, arm(20, 10), arm(0, 0), 2)

    assert "10 of 20 units of the candidate failed" in why_stop([before, after], ALPHA)


@pytest.mark.parametrize(
    ("candidate", "stable"),
    [
        (arm(19, 19), arm(1000, 0)),  # too few to call it broken
        (arm(100, 49), arm(1000, 0)),  # less than half
        (arm(100, 90), arm(1000, 91)),  # stable fails, too
        (arm(100, 90), arm(19, 0)),  # nothing to compare with
    ],
)
def test_the_plain_rule_needs_a_broken_candidate_and_a_sound_stable_version(candidate: ArmTally, stable: ArmTally):
    """Else evidence decides; here there is none, as all traffic went to one arm at a time."""
    assert why_stop([phase(0.0, arm(0, 0), stable, 1), phase(1.0, candidate, arm(0, 0), 2)], ALPHA) == ""


def test_the_reason_is_said_in_plain_words():
    """Somebody reads it in the terminal and must understand why users were taken off the candidate."""
    reason = why_stop([phase(0.05, arm(10, 10), arm(190, 0))], ALPHA)

    assert reason.startswith("errors: the candidate had 10 of 10, its share would be 0.5; evidence of harm is ")
    assert reason.endswith("200 to 1 was enough")
