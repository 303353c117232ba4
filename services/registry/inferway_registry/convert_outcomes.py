"""What gateways report of a rollout: its form when it comes in, and the sum over all gateways as values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from inferway import names
from inferway.errors import InvalidField
from inferway.registry.v1 import outcome_service_pb2 as pb
from inferway_registry.judge import Counts
from inferway_registry.rollouts.facts import Pairs, Profile

MAX_OUTCOMES = 1_000
MAX_REPORT_BYTES = 1 << 20
"""Of one rollout: a hundred steps, with forty outputs of twenty classes each."""
MAX_REASON_CHARACTERS = 1_024
MAX_BUCKET = 800
"""Its microseconds are a number that messages can hold."""
MAX_COUNT = 10**12
"""Of anything; the sum over all gateways and phases still fits the messages that show it."""
MAX_SAMPLE = 256
"""Values of an output that are kept, of all gateways together."""

Histogram = Counter[int]
"""Answers by the number of their bucket."""


def check(request: pb.ReportOutcomesRequest) -> None:
    """Raises InvalidField or InvalidName unless a report can be kept, and added to others."""
    if not 0 < len(request.gateway) <= names.MAX_SEGMENT_CHARACTERS or not request.gateway.isprintable():
        raise InvalidField.at("gateway", f"expected 1 to {names.MAX_SEGMENT_CHARACTERS} printable characters")
    if len(request.outcomes) > MAX_OUTCOMES:
        raise InvalidField.at("outcomes", f"of {len(request.outcomes)} rollouts; at most {MAX_OUTCOMES}")
    for index, outcomes in enumerate(request.outcomes):
        _check_outcomes(outcomes, f"outcomes[{index}]")


def counts(reports: Iterable[pb.RolloutOutcomes], bins: Mapping[str, int]) -> dict[int, tuple[Counts, Counts]]:
    """By generation, of the stable version and of the candidate.

    `bins` is how many each output has; others are not of this rollout.
    """
    found: dict[int, tuple[Counts, Counts]] = defaultdict(lambda: (Counts(), Counts()))
    for phase in chain.from_iterable(report.phases for report in reports):
        stable, candidate = found[phase.generation]
        found[phase.generation] = stable + _counts(phase.stable, bins), candidate + _counts(phase.candidate, bins)
    return dict(found)


def profile(reports: Sequence[pb.RolloutOutcomes]) -> Profile:
    """How the stable version answers."""
    seen: Counter[str] = Counter()
    for sample in _samples(reports):
        seen[sample.output] += sample.seen
    values: dict[str, list[float]] = defaultdict(list)
    for sample in _samples(reports):
        # Each gateway has a part by what it saw, so that all together are a sample of all answers.
        part = -(-MAX_SAMPLE * sample.seen // max(1, seen[sample.output]))
        values[sample.output] += sample.values[:part]
    return Profile(
        histogram(report.profile.latency for report in reports),
        {output: tuple(those) for output, those in values.items()},
        seen,
    )


def mirrors(reports: Iterable[pb.RolloutOutcomes]) -> dict[tuple[str, int], Pairs]:
    """By the version that got the copies."""
    found: dict[tuple[str, int], list[pb.MirrorOutcomes]] = defaultdict(list)
    for mirror in chain.from_iterable(report.mirrors for report in reports):
        found[names.parse_version(mirror.figures.mirrored_version)].append(mirror)
    return {version: _pairs(those) for version, those in found.items()}


def histogram(parts: Iterable[pb.LatencyHistogram]) -> Histogram:
    """All of them together."""
    total: Histogram = Counter()
    for part in parts:
        total.update(dict(zip(part.buckets, part.counts, strict=True)))
    return total


def _counts(arm: pb.ArmOutcomes, bins: Mapping[str, int]) -> Counts:
    own = {output.output: tuple(output.counts) for output in arm.bins if bins.get(output.output) == len(output.counts)}
    return Counts(arm.units, arm.newcomers, dict(arm.events), own)


def _samples(reports: Iterable[pb.RolloutOutcomes]) -> Iterator[pb.OutputSample]:
    return chain.from_iterable(report.profile.outputs for report in reports)


def _pairs(those: Sequence[pb.MirrorOutcomes]) -> Pairs:
    return Pairs(
        sum(mirror.figures.pairs for mirror in those),
        sum(mirror.figures.agreeing for mirror in those),
        sum(mirror.figures.primary_errors for mirror in those),
        sum(mirror.figures.mirrored_errors for mirror in those),
        histogram(mirror.primary_latency for mirror in those),
        histogram(mirror.mirrored_latency for mirror in those),
    )


def _check_outcomes(outcomes: pb.RolloutOutcomes, field: str) -> None:
    names.parse_rollout(outcomes.rollout, f"{field}.rollout")
    if outcomes.ByteSize() > MAX_REPORT_BYTES:
        raise InvalidField.at(field, f"{outcomes.ByteSize()} bytes; at most {MAX_REPORT_BYTES}")
    if len(outcomes.brake_reason) > MAX_REASON_CHARACTERS or not outcomes.brake_reason.isprintable():
        raise InvalidField.at(f"{field}.brake_reason", f"expected at most {MAX_REASON_CHARACTERS} printable characters")
    for mirror in outcomes.mirrors:
        names.parse_version(mirror.figures.mirrored_version, f"{field}.mirrors.figures.mirrored_version")
        names.parse_version(mirror.figures.primary_version, f"{field}.mirrors.figures.primary_version")
    if any(not _is_histogram(each) for each in _histograms(outcomes)):
        raise InvalidField.at(field, f"a histogram needs a count for each bucket, with buckets of 0 to {MAX_BUCKET}")
    if any(len(sample.values) > MAX_SAMPLE for sample in outcomes.profile.outputs):
        raise InvalidField.at(f"{field}.profile.outputs", f"a sample has at most {MAX_SAMPLE} values")
    if not all(0 <= number <= MAX_COUNT for number in _numbers(outcomes)):
        raise InvalidField.at(field, f"a count is negative, or more than {MAX_COUNT:,}")
    if any(mirror.figures.agreeing > mirror.figures.pairs for mirror in outcomes.mirrors):
        raise InvalidField.at(f"{field}.mirrors.figures.agreeing", "more pairs agree than there are")


def _is_histogram(message: pb.LatencyHistogram) -> bool:
    in_range = all(0 <= bucket <= MAX_BUCKET for bucket in message.buckets)
    return in_range and len(message.buckets) == len(message.counts)


def _histograms(outcomes: pb.RolloutOutcomes) -> Iterator[pb.LatencyHistogram]:
    yield outcomes.profile.latency
    for phase in outcomes.phases:
        yield from (phase.stable.latency, phase.candidate.latency)
    for mirror in outcomes.mirrors:
        yield from (mirror.primary_latency, mirror.mirrored_latency)


def _numbers(outcomes: pb.RolloutOutcomes) -> Iterator[int]:
    """Everything that is counted."""
    for message in _histograms(outcomes):
        yield from message.counts
    for arm in chain.from_iterable((phase.stable, phase.candidate) for phase in outcomes.phases):
        yield from (arm.units, arm.newcomers, arm.requests, *arm.events.values(), *arm.errors.values())
        yield from chain.from_iterable(output.counts for output in arm.bins)
    for sample in outcomes.profile.outputs:
        yield sample.seen
    for mirror in outcomes.mirrors:
        figures = mirror.figures
        yield from (figures.pairs, figures.agreeing, figures.primary_errors, figures.mirrored_errors, figures.dropped)
        yield from mirror.elements
        for output in figures.outputs:
            yield from (output.pairs, output.within_tolerance, output.rows, output.same_top_rows)
