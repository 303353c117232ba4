"""What rollouts and splits have counted here, in the protocol's words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from inferway.names import endpoint_name
from inferway.registry.v1 import outcome_service_pb2 as wire
from inferway.registry.v1.resources_pb2 import SplitArm
from inferway_gateway.rollouts.mirror_messages import to_histogram, to_mirror_outcomes
from inferway_gateway.rollouts.profile import Profile
from inferway_gateway.rollouts.splits import Split
from inferway_gateway.rollouts.tally import ArmTally, PhaseTally
from inferway_gateway.rollouts.trial import Trial


def to_report(gateway: str, trials: Iterable[Trial], splits: Iterable[Split] = ()) -> wire.ReportOutcomesRequest:
    """Everything that the process named `gateway` has counted so far."""
    return wire.ReportOutcomesRequest(gateway=gateway, outcomes=map(_outcomes, trials), splits=map(_split, splits))


def _outcomes(trial: Trial) -> wire.RolloutOutcomes:
    return wire.RolloutOutcomes(
        rollout=trial.plan.rollout,
        generation=trial.generation,
        phases=map(_phase, trial.tally.phases),
        profile=_profile(trial.profile) if trial.plan.profiles else None,
        brake_reason=trial.brake_reason,
        mirrors=map(to_mirror_outcomes, trial.mirrors.figures),
    )


def _split(source: Split) -> wire.SplitOutcomes:
    arms = [SplitArm(arm=name, **asdict(total)) for name, total in source.arms.items()]
    return wire.SplitOutcomes(endpoint=endpoint_name(source.endpoint), generation=source.generation, arms=arms)


def _phase(source: PhaseTally) -> wire.PhaseOutcomes:
    return wire.PhaseOutcomes(
        generation=source.generation, stable=_arm(source.stable), candidate=_arm(source.candidate)
    )


def _arm(source: ArmTally) -> wire.ArmOutcomes:
    return wire.ArmOutcomes(
        units=source.units,
        newcomers=source.newcomers,
        events=source.events,
        bins=[wire.OutputBins(output=output, counts=counts) for output, counts in source.bins.items()],
        requests=source.requests,
        errors=source.errors,
        latency=to_histogram(source.latency),
    )


def _profile(source: Profile) -> wire.StableProfile:
    samples = source.outputs.items()
    return wire.StableProfile(
        latency=to_histogram(source.latency),
        outputs=[wire.OutputSample(output=name, values=each.values, seen=each.seen) for name, each in samples],
    )
