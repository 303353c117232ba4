"""A gateway that answers nobody: counts what it would have met, exactly by the weights, and reports it."""

from __future__ import annotations

from collections.abc import Iterator

from inferway.registry.v1 import outcome_service_pb2 as pb
from inferway.registry.v1 import resources_pb2

FAST, SLOW = 100, 110
"""Buckets of latency, 1.3 ms and 2.1 ms."""
SAMPLE = tuple(number / 256 for number in range(256))


class StubGateway:
    """One process of a gateway. The shares of units that fail, and of pairs that agree, may be set at any time."""

    def __init__(self, name: str = "g1") -> None:
        """Everybody is well in the beginning."""
        self.name = name
        self.candidate_errors = 0.0
        self.stable_errors = 0.0
        self.agreement = 1.0
        self.brake = ""
        self._outcomes = pb.RolloutOutcomes()

    def meet(self, endpoint: resources_pb2.Endpoint, units: int) -> None:
        """So many units came while this was the endpoint's routing."""
        directive = endpoint.rollout
        if directive.rollout != self._outcomes.rollout:
            self._outcomes = pb.RolloutOutcomes(rollout=directive.rollout)
        self._outcomes.generation = endpoint.generation
        self._outcomes.brake_reason = self.brake
        if directive.profiles:
            _add_answers(self._outcomes.profile.latency, units)
            self._sample(units)
        if directive.counts:
            self._count(endpoint, units)
        if directive.HasField("mirror"):
            self._compare(endpoint, units)

    def request(self) -> pb.ReportOutcomesRequest:
        """What it reports now."""
        outcomes = [self._outcomes] if self._outcomes.rollout else []
        return pb.ReportOutcomesRequest(gateway=self.name, outcomes=outcomes)

    def _sample(self, units: int) -> None:
        if not self._outcomes.profile.outputs:
            self._outcomes.profile.outputs.add(output="y", values=SAMPLE)
        self._outcomes.profile.outputs[0].seen += units

    def _count(self, endpoint: resources_pb2.Endpoint, units: int) -> None:
        weights = {arm.arm: arm.weight_basis_points for arm in endpoint.arms}
        canary = units * weights[endpoint.rollout.candidate_arm] // 10_000
        bins = {edges.output: len(edges.edges) + 1 for edges in endpoint.rollout.output_edges}
        phase = self._phase(endpoint.generation)
        _add_units(phase.candidate, canary, self.candidate_errors, bins)
        _add_units(phase.stable, units - canary, self.stable_errors, bins)

    def _phase(self, generation: int) -> pb.PhaseOutcomes:
        for phase in self._outcomes.phases:
            if phase.generation == generation:
                return phase
        return self._outcomes.phases.add(generation=generation)

    def _compare(self, endpoint: resources_pb2.Endpoint, units: int) -> None:
        directive = endpoint.rollout.mirror
        primary = next(arm.version for arm in endpoint.arms if arm.version != directive.version)
        for known in self._outcomes.mirrors:
            if known.figures.mirrored_version == directive.version:
                mirror = known
                break
        else:
            mirror = self._outcomes.mirrors.add()
            mirror.figures.primary_version, mirror.figures.mirrored_version = primary, directive.version
        pairs = units * directive.mirror.sample_basis_points // 10_000
        mirror.figures.pairs += pairs
        mirror.figures.agreeing += round(pairs * self.agreement)
        _add_answers(mirror.primary_latency, pairs)
        _add_answers(mirror.mirrored_latency, pairs)


def _add_units(arm: pb.ArmOutcomes, units: int, errors: float, bins: dict[str, int]) -> None:
    failed = round(units * errors)
    arm.units += units
    arm.newcomers += units
    arm.requests += units
    if failed:
        arm.events["MODEL_FAILED"] += failed
        arm.errors["MODEL_FAILED"] += failed
    _add_answers(arm.latency, units - failed)
    for output, count in bins.items():
        histogram = _bins(arm, output, count)
        for number, part in enumerate(_evenly(units - failed, count)):
            histogram.counts[number] += part


def _bins(arm: pb.ArmOutcomes, output: str, count: int) -> pb.OutputBins:
    for histogram in arm.bins:
        if histogram.output == output:
            return histogram
    return arm.bins.add(output=output, counts=[0] * count)


def _add_answers(histogram: pb.LatencyHistogram, answers: int) -> None:
    """A hundredth of them slow."""
    if not histogram.buckets:
        histogram.buckets.extend((FAST, SLOW))
        histogram.counts.extend((0, 0))
    histogram.counts[0] += answers - answers // 100
    histogram.counts[1] += answers // 100


def _evenly(total: int, parts: int) -> Iterator[int]:
    for number in range(parts):
        yield total * (number + 1) // parts - total * number // parts
