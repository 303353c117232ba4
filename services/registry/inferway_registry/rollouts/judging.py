"""How a rollout is judged: what was counted, as the judge wants it, and by which plan. Pure."""

from __future__ import annotations

from math import log

from inferway_registry.judge import Counts, Drift, Finding, Judgement, Phase, Plan, Rate, Verdict, judge
from inferway_registry.resources import FULL_WEIGHT
from inferway_registry.rollouts import agreement, words
from inferway_registry.rollouts.facts import Facts, Pairs
from inferway_registry.rollouts.rollout import Rollout, Thresholds
from inferway_registry.rollouts.spec import Canary, Mirror

ABOVE_P95, ABOVE_P99, SCHEMA = "above_p95", "above_p99", "schema"
_NO_ERRORS = frozenset({ABOVE_P95, ABOVE_P99, SCHEMA})
"""Kinds of events that are not the reason of an error; all others are."""
_NO_OUTPUTS = frozenset({"split", "units"})
"""Findings of the judge beside those on metrics; an output may have the name of any of them."""
_ERRORS, _P95, _P99, _SCHEMA, _OUTPUTS = 0.4, 0.2, 0.2, 0.1, 0.1
"""How the metrics share alpha."""
_PAIR_ERRORS = "errors"


def judgement(rollout: Rollout, facts: Facts) -> Judgement:
    """What may be said of the candidate by now: a canary by both arms' counts, the others by pairs of answers."""
    if isinstance(rollout.spec.strategy, Canary):
        return judge(plan_of(rollout, facts), phases_of(rollout, facts))
    return _of_pairs(rollout, facts, rollout.spec.strategy.mirror, rollout.spec.strategy.min_pairs)


def plan_of(rollout: Rollout, facts: Facts) -> Plan:
    """The metrics that can be judged, each with its part of alpha; one that nothing is known of leaves its part unused.

    `facts` say which reasons of errors there are.
    """
    judging, thresholds = rollout.spec.judging, rollout.thresholds or Thresholds()
    alpha = judging.alpha
    proof, errors = judging.errors_not_inferior, _error_kinds(facts)
    metrics: list[Rate | Drift] = [
        Rate("errors", errors, alpha * _ERRORS, judging.error_margin, proof, most_stable_share=0.5)
    ]
    if thresholds.p95_us:
        name, part = "answers slower than the p95 before", alpha * _P95
        metrics.append(Rate(name, (ABOVE_P95,), part, judging.p95_margin, without=errors))
    if thresholds.p99_us:
        name, part = "answers slower than the p99 before", alpha * _P99
        metrics.append(Rate(name, (ABOVE_P99,), part, judging.p99_margin, without=errors))
    metrics.append(Rate("answers that break the schema", (SCHEMA,), alpha * _SCHEMA, without=errors))
    if judging.output_margin:
        share, taken = alpha * _OUTPUTS / max(1, len(thresholds.edges)), _NO_OUTPUTS | {each.name for each in metrics}
        for output in sorted(thresholds.edges):
            name = f"output {output}" if output in taken else output
            metrics.append(Drift(name, share, judging.output_margin, output))
    return Plan(tuple(metrics), alpha, min_units=judging.min_units)


def phases_of(rollout: Rollout, facts: Facts) -> list[Phase]:
    """What both arms met under each setting of the weights; the last is in force."""
    nothing = (Counts(), Counts())
    return [
        Phase(weight / FULL_WEIGHT, *facts.counts.get(generation, nothing)) for generation, weight in rollout.phases
    ]


def fewest_outputs(rollout: Rollout, facts: Facts) -> int | None:
    """How often that output of the candidate was seen which was seen least; None if outputs are not compared."""
    compared = [metric.output for metric in plan_of(rollout, facts).metrics if isinstance(metric, Drift)]
    canaries = [phase.canary.bins for phase in phases_of(rollout, facts)]
    return min((sum(sum(bins.get(output, ())) for bins in canaries) for output in compared), default=None)


def pairs_of(rollout: Rollout, facts: Facts) -> tuple[Pairs, Pairs]:
    """Copies that the candidate got, of what users asked the stable version; and the other way round."""
    none = Pairs()
    return facts.mirrors.get(rollout.spec.candidate, none), facts.mirrors.get(rollout.stable, none)


def agreement_verdict(pairs: Pairs, mirror: Mirror) -> Verdict:
    """SAFE if enough pairs are proven to agree, HARM if it is proven that not enough do, else CONTINUE."""
    lower, upper = agreement.bounds(pairs.pairs, pairs.agreeing)
    if upper < mirror.min_agreement:
        return Verdict.HARM
    return Verdict.SAFE if lower >= mirror.min_agreement else Verdict.CONTINUE


def _error_kinds(facts: Facts) -> tuple[str, ...]:
    kinds: set[str] = set()
    for arms in facts.counts.values():
        for counts in arms:
            kinds |= counts.events.keys()
    return tuple(sorted(kinds - _NO_ERRORS))


def _of_pairs(rollout: Rollout, facts: Facts, mirror: Mirror, min_pairs: int) -> Judgement:
    """By pairs that one side alone failed: if the candidate does no harm they are as often the other's.

    So they are events at equal shares. Agreement is a finding, no verdict: a version may answer otherwise on purpose.
    """
    before, after = pairs_of(rollout, facts)
    margin, alpha = rollout.spec.judging.error_margin, rollout.spec.judging.alpha
    plan = Plan((Rate("errors", (_PAIR_ERRORS,), alpha, margin),), alpha, min_units=min_pairs)
    phases = (
        _as_phase(before.pairs, before.primary_errors, before.mirrored_errors),
        _as_phase(after.pairs, after.mirrored_errors, after.primary_errors),
    )
    errors = judge(plan, phases).findings[0]
    enough = _enough(before.pairs + after.pairs, min_pairs)
    agreed = _agreement(before, mirror)
    findings = (errors, agreed, enough)
    if errors.verdict is Verdict.HARM:
        return Judgement(Verdict.HARM, f"The candidate does harm. {errors.sentence}", findings)
    if enough.verdict is Verdict.NO_DATA:
        return Judgement(Verdict.NO_DATA, f"Too little was seen. {enough.sentence}", findings)
    so_far = f"But too few answers agree. {agreed.sentence}" if agreed.verdict is Verdict.HARM else errors.sentence
    return Judgement(Verdict.CONTINUE, f"No harm so far. {so_far}", findings)


def _as_phase(pairs: int, stable_only: int, candidate_only: int) -> Phase:
    stable = Counts(pairs, events={_PAIR_ERRORS: stable_only})
    return Phase(0.5, stable, Counts(pairs, events={_PAIR_ERRORS: candidate_only}))


def _agreement(pairs: Pairs, mirror: Mirror) -> Finding:
    evidence = agreement.log_e(pairs.pairs, pairs.agreeing, mirror.min_agreement)
    verdict = agreement_verdict(pairs, mirror)
    return Finding("agreement", verdict, evidence, -log(agreement.ALPHA), words.agreement(pairs, mirror))


def _enough(pairs: int, needed: int) -> Finding:
    verdict = Verdict.CONTINUE if pairs >= needed else Verdict.NO_DATA
    return Finding("pairs", verdict, 0.0, 0.0, words.pairs(pairs, needed))
