"""How gateways learn what a stable version answers."""

from __future__ import annotations

import random
from statistics import mean

from inferway_gateway.rollouts.profile import MOST_OUTPUTS, MOST_VALUES, Profile


def test_a_sample_is_of_all_answers_not_of_the_first():
    """Bins are made of it: the first seconds after a deployment are not what users usually get."""
    profile = Profile(random.Random(3).random)
    for number in range(20_000):
        profile.add(0.01, [("y", float(number))])

    sample = profile.outputs["y"]
    assert (len(sample.values), sample.seen) == (MOST_VALUES, 20_000)
    assert abs(mean(sample.values) - 10_000) < 5 * 20_000 / 12**0.5 / MOST_VALUES**0.5


def test_the_number_of_outputs_is_bounded():
    """The registry refuses reports that are too large, and then nothing is judged at all."""
    profile = Profile(random.random)
    profile.add(0.01, [(f"output {number}", 0.0) for number in range(1000)])
    profile.add(0.01, [("output 0", 1.0)])

    assert len(profile.outputs) == MOST_OUTPUTS
    assert profile.outputs["output 0"].seen == 2
