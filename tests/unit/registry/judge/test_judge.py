"""Verdicts: what is harm, what is silence, what is trusted, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferway.errors import InvalidField
from inferway_registry.judge import Counts, Drift, Finding, Judgement, Phase, Plan, Rate, Verdict, judge

KINDS = ("INTERNAL", "UNAVAILABLE")
PLAN = Plan(
    (
        Rate("errors", KINDS, 0.02, most_stable_share=0.5),
        Rate("answers slower than the p95 before", ("above_p95",), 0.01, 1.25, without=KINDS),
        Rate("answers slower than the p99 before", ("above_p99",), 0.01, 1.5, without=KINDS),
        Rate("answers that break the schema", ("schema",), 0.005, without=KINDS),
        Drift("scores", 0.005),
    )
)
ERRORS = Plan((Rate("errors", ("INTERNAL", "UNAVAILABLE"), 0.02, most_stable_share=0.5),))
SURE = Plan((Rate("errors", ("INTERNAL",), 0.02, not_inferior=2.0), Rate("slow", ("slow",), 0.02, not_inferior=1.5)))


def met(units: int, bins: tuple[int, ...] | None = None, /, **events: int) -> Counts:
    """An arm that met so many units, whose outputs are spread evenly."""
    return Counts(units, units, events, {"scores": bins or (units // 4,) * 4})


def named(judgement: Judgement, name: str) -> Finding:
    """The finding on one metric."""
    return next(found for found in judgement.findings if found.name == name)


QUIET = Phase(0.1, met(9000, INTERNAL=45), met(1000, INTERNAL=5))


def test_a_canary_like_the_stable_arm_goes_on():
    """And is not called safe where nobody asked for proof."""
    judgement = judge(PLAN, [QUIET])
    assert judgement.verdict is Verdict.CONTINUE
    assert judgement.sentence.startswith("No harm so far. ")
    assert [found.name for found in judgement.findings][-2:] == ["split", "units"]


@pytest.mark.parametrize("kinds", [{"INTERNAL": 30}, {"INTERNAL": 15, "UNAVAILABLE": 15}])
def test_errors_of_all_kinds_add_up_to_harm(kinds: dict[str, int]):
    """The sentence has the numbers that it rests on."""
    judgement = judge(PLAN, [replace(QUIET, canary=met(1000, **kinds))])
    assert judgement.verdict is Verdict.HARM
    assert judgement.sentence == (
        "The candidate does harm. errors: the candidate had 30 of 75, its share would be 7.5; "
        "evidence of harm is 10^9 to 1, 50 to 1 would be enough."
    )
    found = named(judgement, "errors")
    assert found.log_e >= found.threshold == pytest.approx(log(50))


def test_harm_is_found_before_there_are_enough_units():
    """A canary that always fails is not kept until its step is full; slow start does not hide errors either."""
    judgement = judge(PLAN, [Phase(0.05, met(190), met(10, INTERNAL=10))])
    assert judgement.verdict is Verdict.HARM


@pytest.mark.parametrize(
    ("plan", "phases"),
    [
        (ERRORS, []),
        (ERRORS, [Phase(0.05)]),
        (ERRORS, [Phase(0.05, met(5000), met(299))]),
        (ERRORS, [Phase(0.5, Counts(), Counts(units=1000))]),
        (ERRORS, [Phase(0.05, met(9500), met(500)), Phase(0.25)]),
        (ERRORS, [Phase(0.05, met(9500, INTERNAL=9500), met(500, INTERNAL=500))]),
        (PLAN, [Phase(0.05, Counts(9500, 9500), Counts(500, 500))]),
    ],
    ids=["nothing", "silence", "few", "stable is silent", "silence after a step", "all fail", "no outputs"],
)
def test_silence_neither_promotes_nor_aborts(plan: Plan, phases: list[Phase]):
    """No traffic, a metric that is not counted and a stable arm that fails altogether all mean: we do not know."""
    assert judge(plan, phases).verdict is Verdict.NO_DATA


def test_the_canary_alone_needs_nobody_to_compare_with():
    """At full weight the stable arm is silent by design."""
    assert judge(ERRORS, [QUIET, Phase(1.0, Counts(), met(1000))]).verdict is Verdict.CONTINUE


def test_an_outage_that_is_over_leaves_the_judge_able_to_see():
    """Only the weights in force say whether the stable arm can be compared with."""
    outage = Phase(0.05, met(950, INTERNAL=900), met(50, INTERNAL=47))
    assert judge(ERRORS, [QUIET, outage]).verdict is Verdict.NO_DATA
    assert judge(ERRORS, [outage, QUIET]).verdict is Verdict.CONTINUE


@pytest.mark.parametrize(("canary", "verdict"), [(125, Verdict.CONTINUE), (250, Verdict.HARM)])
def test_slow_answers_have_a_margin(canary: int, verdict: Verdict):
    """A canary that is slower by no more than it may be is not rolled back."""
    phase = Phase(0.1, met(18000, above_p95=900), met(2000, above_p95=canary))
    assert judge(PLAN, [phase]).verdict is verdict


@pytest.mark.parametrize("failing", [9000, 4500, 2700], ids=["all fail", "half", "a third"])
def test_a_stable_arm_that_fails_does_not_make_a_sound_canary_slow_or_strange(failing: int):
    """Units that got an error got no answer: fewer slow ones, fewer of every output. That is no credit to them."""
    answered = 9000 - failing
    bins = (answered // 4,) * 4
    events = {"INTERNAL": failing, "above_p95": answered // 20, "above_p99": answered // 100, "schema": answered // 100}
    stable = Counts(9000, 9000, events, {"scores": bins})
    canary = met(1000, above_p95=50, above_p99=10, schema=10)
    assert judge(PLAN, [Phase(0.1, stable, canary)]).verdict in {Verdict.NO_DATA, Verdict.CONTINUE}


def test_a_metric_without_events_says_so():
    """Odds of nothing mean nothing to people."""
    judgement = judge(ERRORS, [Phase(0.1, met(9000), met(1000))])
    assert judgement.sentence == "No harm so far. errors: none so far."


def test_shifted_outputs_are_harm_and_the_bin_is_named():
    """A pipeline that feeds the model wrong fails no request."""
    phase = Phase(0.1, met(9000), met(1000, (250, 60, 440, 250)))
    judgement = judge(PLAN, [phase])
    assert judgement.verdict is Verdict.HARM
    words = "scores: outputs differ between the arms, most in bin 1, where the candidate had 60 of 2,310"
    assert words in judgement.sentence


def test_a_wrong_split_pauses_and_does_not_roll_back():
    """If twice as many units reach the canary, so do twice as many errors: that is not its fault."""
    judgement = judge(PLAN, [Phase(0.1, met(8000, INTERNAL=800), met(2000, INTERNAL=200))])
    assert judgement.verdict is Verdict.MISMATCH
    assert judgement.sentence.startswith(
        "Units do not reach the arms as assigned. split: the candidate had 2,000 of 10,000"
    )


def test_harm_that_a_wrong_split_does_not_explain_is_harm():
    """A broken canary cannot hide behind the broken split that it may have caused."""
    judgement = judge(PLAN, [Phase(0.1, met(8000, INTERNAL=40), met(2000, INTERNAL=200))])
    assert judgement.verdict is Verdict.HARM
    assert named(judgement, "split").verdict is Verdict.MISMATCH


@pytest.mark.parametrize(
    ("internal", "slow", "verdict"),
    [(100, 400, Verdict.SAFE), (100, 600, Verdict.CONTINUE), (140, 400, Verdict.CONTINUE)],
)
def test_safe_is_said_when_everything_asked_for_is_proven(internal: int, slow: int, verdict: Verdict):
    """One metric that is not proven withholds it."""
    stable, canary = met(20000, INTERNAL=100, slow=400), met(20000, INTERNAL=internal, slow=slow)
    plan = Plan(tuple(replace(metric, alpha=0.02, margin=1.45) for metric in SURE.metrics if isinstance(metric, Rate)))
    assert judge(plan, [Phase(0.5, stable, canary)]).verdict is verdict


def test_counts_add_up_field_by_field():
    """What one gateway alone has met is kept, and nothing is counted twice."""
    one = Counts(5, 3, {"INTERNAL": 1, "schema": 2}, {"scores": (1, 2)})
    other = Counts(7, 4, {"INTERNAL": 10}, {"scores": (10, 20), "embedding": (4, 4)})
    events, bins = {"INTERNAL": 11, "schema": 2}, {"scores": (11, 22), "embedding": (4, 4)}
    assert one + other == other + one == Counts(12, 7, events, bins)
    assert Phase(0.5, one, other).plus(other, one) == Phase(0.5, one + other, one + other)


EVENTS = st.dictionaries(st.sampled_from(["INTERNAL", "UNAVAILABLE", "above_p95", "schema"]), st.integers(0, 50))
COUNTS = st.builds(
    lambda units, events, bins: Counts(units, units, events, {"scores": bins}),
    st.integers(0, 400),
    EVENTS,
    st.tuples(*[st.integers(0, 100)] * 4),
)


@settings(deadline=None)
@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_and_gateways_do_not_matter(increments: list[tuple[Counts, Counts]], chance: Random):
    """Sums decide: counts of two gateways, or of one second in another order, come to the same judgement."""
    shuffled = increments[:]
    chance.shuffle(shuffled)
    one, other, gateways = Phase(0.2), Phase(0.2), [Phase(0.2), Phase(0.2)]
    for number, (mine, yours) in enumerate(zip(increments, shuffled, strict=True)):
        one, other = one.plus(*mine), other.plus(*yours)
        gateways[number % 2] = gateways[number % 2].plus(*mine)
    merged = gateways[0].plus(gateways[1].stable, gateways[1].canary)
    assert judge(PLAN, [one]) == judge(PLAN, [other]) == judge(PLAN, [merged])


@given(COUNTS, COUNTS, st.integers(1, 300))
def test_a_worse_canary_is_never_judged_better(stable: Counts, canary: Counts, more: int):
    """What is harm stays harm with more errors of the canary."""
    worse = canary + Counts(events={"INTERNAL": more})
    before, after = (judge(ERRORS, [Phase(0.2, stable, arm)]) for arm in (canary, worse))
    assert named(after, "errors").log_e >= named(before, "errors").log_e - 1e-9
    assert after.verdict is Verdict.HARM or before.verdict is not Verdict.HARM


@pytest.mark.parametrize(
    "make",
    [
        lambda: Counts(units=-1),
        lambda: Counts(events={"INTERNAL": -1}),
        lambda: Counts(bins={"scores": (1, -1)}),
        lambda: Counts(bins={"scores": (1, 2)}) + Counts(bins={"scores": (1, 2, 3)}),
        lambda: Phase(1.1),
        lambda: Rate("errors", ("INTERNAL",), 0.0),
        lambda: Rate("errors", ("INTERNAL",), 0.01, margin=0.9),
        lambda: Rate("errors", ("INTERNAL",), 0.01, margin=1.5, not_inferior=1.5),
        lambda: Drift("scores", 1.0),
        lambda: Plan((Rate("errors", ("INTERNAL",), 0.03), Drift("scores", 0.03))),
        lambda: Plan((Drift("scores", 0.01), Drift("scores", 0.01))),
        lambda: judge(PLAN, [Phase(0.5, Counts(bins={"scores": (1, 2)}), Counts(bins={"scores": (1, 2, 3)}))]),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make: Callable[[], object]):
    """A counter that went back, or a plan that gives away more than it has, must not be judged by."""
    with pytest.raises(InvalidField):
        make()
