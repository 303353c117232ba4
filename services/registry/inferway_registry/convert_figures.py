"""What is shown of a rollout's figures: the sum over all gateways, and the judge's verdict, as messages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain

from inferway import names
from inferway.registry.v1 import outcome_service_pb2
from inferway.registry.v1 import rollouts_pb2 as pb
from inferway_registry.convert_outcomes import Histogram, histogram
from inferway_registry.convert_rollouts import rollout_message, timestamp
from inferway_registry.judge import Finding, Judgement, Verdict
from inferway_registry.lookout import Sight
from inferway_registry.rollouts import agreement
from inferway_registry.rollouts.judging import judgement
from inferway_registry.rollouts.outlook import next_words
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.rollouts.thresholds import percentile_us

MAX_EXAMPLES = 20


def full_message(rollout: Rollout, sight: Sight, samples: Iterable[bytes] = ()) -> pb.Rollout:
    """A rollout with its figures as of now, and how they went."""
    message = rollout_message(rollout, next_words(rollout, sight.facts))
    message.judgement.CopyFrom(judgement_message(judgement(rollout, sight.facts)))
    message.stable.CopyFrom(_stable(rollout, sight))
    message.candidate.CopyFrom(_candidate(rollout, sight))
    message.mirrors.extend(_mirrors(sight.outcomes))
    message.samples.extend(map(pb.RolloutSample.FromString, samples))
    return message


def sample_message(rollout: Rollout, sight: Sight, at: datetime) -> pb.RolloutSample:
    """The figures at one moment; findings are without words."""
    return pb.RolloutSample(
        sample_time=timestamp(at),
        candidate_weight_basis_points=rollout.weight_basis_points,
        stable=_stable(rollout, sight),
        candidate=_candidate(rollout, sight),
        findings=[_finding_message(found, "") for found in judgement(rollout, sight.facts).findings],
    )


def judgement_message(judged: Judgement) -> pb.RolloutJudgement:
    """A verdict."""
    findings = [_finding_message(found, found.sentence) for found in judged.findings]
    return pb.RolloutJudgement(verdict=_verdict(judged.verdict), reason=judged.sentence, findings=findings)


def _finding_message(found: Finding, reason: str) -> pb.RolloutFinding:
    return pb.RolloutFinding(
        metric=found.name,
        verdict=_verdict(found.verdict),
        log_evidence=found.log_e,
        log_threshold=found.threshold,
        reason=reason,
    )


def _verdict(verdict: Verdict) -> pb.RolloutJudgement.Verdict.ValueType:
    return pb.RolloutJudgement.Verdict.Value(f"VERDICT_{verdict.name}")


def _stable(rollout: Rollout, sight: Sight) -> pb.ArmFigures:
    arms = [phase.stable for report in sight.outcomes for phase in report.phases]
    # Before anything is counted, what was learned is all that is known.
    learned = () if arms else (report.profile.latency for report in sight.outcomes)
    return _arm(rollout.stable, arms, learned)


def _candidate(rollout: Rollout, sight: Sight) -> pb.ArmFigures:
    return _arm(rollout.spec.candidate, [phase.candidate for report in sight.outcomes for phase in report.phases])


def _arm(
    version: tuple[str, int],
    arms: Sequence[outcome_service_pb2.ArmOutcomes],
    learned: Iterable[outcome_service_pb2.LatencyHistogram] = (),
) -> pb.ArmFigures:
    errors: Counter[str] = Counter()
    for arm in arms:
        errors.update(arm.errors)
    return pb.ArmFigures(
        version=names.version_name(*version),
        units=sum(arm.units for arm in arms),
        requests=sum(arm.requests for arm in arms),
        errors=errors,
        latency=_latency(histogram(chain((arm.latency for arm in arms), learned))),
    )


def _latency(answers: Histogram) -> pb.LatencyFigures:
    return pb.LatencyFigures(
        p50_us=percentile_us(answers, 0.5), p95_us=percentile_us(answers, 0.95), p99_us=percentile_us(answers, 0.99)
    )


def _mirrors(reports: Iterable[outcome_service_pb2.RolloutOutcomes]) -> list[pb.MirrorFigures]:
    found: dict[tuple[str, str], list[outcome_service_pb2.MirrorOutcomes]] = defaultdict(list)
    for mirror in chain.from_iterable(report.mirrors for report in reports):
        found[mirror.figures.primary_version, mirror.figures.mirrored_version].append(mirror)
    return [_mirror(*versions, those) for versions, those in found.items()]


def _mirror(primary: str, mirrored: str, those: Sequence[outcome_service_pb2.MirrorOutcomes]) -> pb.MirrorFigures:
    figures = [mirror.figures for mirror in those]
    pairs, agreeing = sum(each.pairs for each in figures), sum(each.agreeing for each in figures)
    lower, upper = agreement.bounds(pairs, min(pairs, agreeing))
    examples = chain.from_iterable(each.examples for each in figures)
    return pb.MirrorFigures(
        primary_version=primary,
        mirrored_version=mirrored,
        pairs=pairs,
        agreeing=agreeing,
        agreement_lower_bound=lower,
        agreement_upper_bound=upper,
        primary_errors=sum(each.primary_errors for each in figures),
        mirrored_errors=sum(each.mirrored_errors for each in figures),
        dropped=sum(each.dropped for each in figures),
        primary_latency=_latency(histogram(mirror.primary_latency for mirror in those)),
        mirrored_latency=_latency(histogram(mirror.mirrored_latency for mirror in those)),
        outputs=_outputs(those),
        examples=sorted(examples, key=lambda example: -example.distance)[:MAX_EXAMPLES],
    )


def _outputs(those: Sequence[outcome_service_pb2.MirrorOutcomes]) -> list[pb.OutputFigures]:
    found: dict[str, list[tuple[pb.OutputFigures, int]]] = defaultdict(list)
    for mirror in those:
        elements = (*mirror.elements, *(0 for _ in mirror.figures.outputs))
        for output, count in zip(mirror.figures.outputs, elements, strict=False):
            found[output.output].append((output, count))
    return [_output(name, parts) for name, parts in sorted(found.items())]


def _output(name: str, parts: Sequence[tuple[pb.OutputFigures, int]]) -> pb.OutputFigures:
    """Means are weighted by what they are means of."""
    figures = [output for output, _ in parts]
    elements, rows = sum(count for _, count in parts), sum(output.rows for output in figures)
    return pb.OutputFigures(
        output=name,
        pairs=sum(output.pairs for output in figures),
        within_tolerance=sum(output.within_tolerance for output in figures),
        rows=rows,
        same_top_rows=sum(output.same_top_rows for output in figures),
        max_absolute=max(output.max_absolute for output in figures),
        max_relative=max(output.max_relative for output in figures),
        mean_absolute=sum(output.mean_absolute * count for output, count in parts) / max(1, elements),
        mean_divergence=sum(output.mean_divergence * output.rows for output in figures) / max(1, rows),
    )
