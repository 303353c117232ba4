"""What gateways tell of rollouts, and whether the registry takes it."""

from __future__ import annotations

from dataclasses import replace

from inferway_gateway.rollouts.messages import to_report
from inferway_gateway.rollouts.tally import ArmTally
from inferway_registry import convert_outcomes
from tests.unit.gateway.rollout_bed import PLAN, Bed

STEPS, OUTPUTS, CLASSES, BUCKETS, MANY = 100, 40, 20, 100, 10_000_000


def fill(arm: ArmTally) -> None:
    """What months of traffic leave."""
    arm.units = arm.newcomers = arm.requests = MANY
    arm.latency.counts = dict.fromkeys(range(BUCKETS, 2 * BUCKETS), MANY)
    arm.bins = {f"probabilities_{number}": [MANY] * (CLASSES + 1) for number in range(OUTPUTS)}


def test_the_registry_takes_the_report_of_a_long_rollout_of_a_large_model():
    """It refuses what is too large, all of it: then nothing is judged any more, of any rollout."""
    edges = {f"probabilities_{number}": tuple(map(float, range(CLASSES))) for number in range(OUTPUTS)}
    bed = Bed(replace(PLAN, edges=edges))
    for step in range(2, STEPS + 1):
        bed.trial.tally.begin(step, step / STEPS)
    for phase in bed.trial.tally.phases:
        fill(phase.stable)
        fill(phase.candidate)

    convert_outcomes.check(to_report("gateway", bed.rollouts.trials))
