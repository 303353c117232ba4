"""By what a rollout is judged, and from which counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferway_registry.judge import Counts, Drift, Rate, Verdict
from inferway_registry.rollouts.facts import Facts, Pairs
from inferway_registry.rollouts.judging import judgement, phases_of, plan_of
from inferway_registry.rollouts.rollout import Thresholds
from inferway_registry.rollouts.spec import Judging
from tests.unit.registry.rollout_facts import BLUE_GREEN, CANDIDATE, STABLE, THEN, fresh, met, running, spec

EDGES = {f"output{number}": (0.5,) for number in range(7)}
KNOWN = Thresholds(5000, 9000, EDGES)


def test_the_metrics_share_alpha_and_give_away_no_more():
    """All of them together raise a false alarm in at most that share of rollouts."""
    rollout = replace(fresh(replace(spec(), judging=Judging(alpha=0.1))), thresholds=KNOWN)
    plan = plan_of(rollout, Facts(THEN))
    assert sum(metric.alpha for metric in plan.metrics) == pytest.approx(0.1)
    assert [metric.alpha for metric in plan.metrics[:4]] == pytest.approx([0.04, 0.02, 0.02, 0.01])
    assert all(metric.alpha == pytest.approx(0.01 / 7) for metric in plan.metrics[4:])


def test_what_is_asked_for_is_what_is_judged_by():
    """Margins, units and proof come from the spec, each to its own metric."""
    asked = Judging(0.05, 42, 1.1, 1.2, 1.3, 1.4, 1.5)
    plan = plan_of(replace(fresh(replace(spec(), judging=asked)), thresholds=KNOWN), Facts(THEN))
    assert plan.min_units == 42
    assert [metric.margin for metric in plan.metrics] == [1.1, 1.2, 1.3, 1.0, *[1.4] * 7]
    assert isinstance(plan.metrics[0], Rate)
    assert plan.metrics[0].not_inferior == 1.5


def test_what_nothing_is_known_of_is_not_judged():
    """Without answers before there is nothing to be slower than; outputs that are meant to differ may."""
    plain = plan_of(fresh(spec()), Facts(THEN))
    assert [metric.name for metric in plain.metrics] == ["errors", "answers that break the schema"]
    asked = replace(spec(), judging=Judging(output_margin=0.0))
    plan = plan_of(replace(fresh(asked), thresholds=KNOWN), Facts(THEN))
    assert not any(isinstance(metric, Drift) for metric in plan.metrics)


def test_every_reason_of_an_error_is_an_error():
    """Reasons are the gateways' to choose: a new one is judged without anybody here knowing it."""
    counts = {1: (Counts(events={"NEW": 1, "above_p95": 2}), Counts(events={"MODEL_FAILED": 1, "schema": 3}))}
    plan = plan_of(replace(fresh(spec()), thresholds=KNOWN), Facts(THEN, counts=counts))
    errors, p95, p99, schema = plan.metrics[:4]
    assert isinstance(errors, Rate)
    assert errors.kinds == ("MODEL_FAILED", "NEW")
    assert [metric.kinds for metric in (p95, p99, schema) if isinstance(metric, Rate)] == [
        ("above_p95",),
        ("above_p99",),
        ("schema",),
    ]
    assert all(metric.without == errors.kinds for metric in (p95, p99, schema) if isinstance(metric, Rate))


def test_counts_belong_to_the_weights_under_which_they_were_made():
    """A generation that nobody has counted under is there, and empty; those of others are not this rollout's."""
    rollout = replace(fresh(spec()), phases=((4, 0), (5, 500), (6, 5000)))
    facts = Facts(THEN, counts={3: (met(10), met(10)), 5: (met(950), met(50))})
    assert [(phase.share, phase.stable.units, phase.canary.units) for phase in phases_of(rollout, facts)] == [
        (0.0, 0, 0),
        (0.05, 950, 50),
        (0.5, 0, 0),
    ]


def test_pairs_are_judged_by_what_only_one_of_them_failed():
    """A request that both fail is the caller's fault; as many on either side are chance."""
    controller = running(BLUE_GREEN)
    controller.copied(CANDIDATE, Pairs(200, 180, 10, 10))
    found = judgement(controller.rollout, controller.facts)
    assert found.verdict is Verdict.CONTINUE
    assert [each.name for each in found.findings] == ["errors", "agreement", "pairs"]
    controller.copied(CANDIDATE, Pairs(200, 180, 0, 20))
    assert judgement(controller.rollout, controller.facts).verdict is Verdict.HARM


def test_few_pairs_are_no_verdict_and_agreement_is_none_either():
    """A person decides on versions that answer otherwise; the finding says so all the same."""
    controller = running(BLUE_GREEN)
    controller.copied(CANDIDATE, Pairs(99, 99))
    assert judgement(controller.rollout, controller.facts).verdict is Verdict.NO_DATA
    controller.copied(STABLE, Pairs(1, 1))
    assert judgement(controller.rollout, controller.facts).verdict is Verdict.CONTINUE
    controller.copied(CANDIDATE, Pairs(300, 100))
    found = judgement(controller.rollout, controller.facts)
    assert found.verdict is Verdict.CONTINUE
    assert found.sentence.startswith("No harm so far. But too few answers agree. 100 of 300 pairs agree")
    agreement = found.findings[1]
    assert agreement.verdict is Verdict.HARM
    assert agreement.log_e > agreement.threshold


def test_outputs_may_be_called_like_what_the_judge_itself_finds():
    """A model that answers with `errors` is judged by them, and nobody mistakes them for those of its users."""
    controller = running()
    known = Thresholds(5000, 9000, {"errors": (0.5,), "units": (0.5,), "scores": (0.5,)})
    rollout = replace(controller.rollout, thresholds=known)
    other = Counts(1000, 1000, bins={"errors": (0, 1000)})
    controller.count(Counts(1000, 1000, bins={"errors": (1000, 0)}), other)

    found = judgement(rollout, controller.facts)

    names = [finding.name for finding in found.findings]
    assert len(set(names)) == len(names)
    assert names[4:7] == ["output errors", "scores", "output units"]
    assert (found.findings[0].verdict, found.findings[4].verdict) == (Verdict.CONTINUE, Verdict.HARM)
