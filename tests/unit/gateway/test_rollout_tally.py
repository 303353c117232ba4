"""What is counted of units: the words of the registry's `judge.counts`, tried against a model that follows them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_gateway.rollouts.tally import ArmTally, PhaseTally, Tally

KINDS = ("MODEL_FAILED", "above_p95", "schema")


@dataclass(frozen=True)
class Sent:
    """One request, and the events that came of it."""

    generation: int
    unit: str
    to_candidate: bool
    kinds: tuple[str, ...]


def arm_of(phase: PhaseTally | None, sent: Sent) -> ArmTally:
    """Where it is counted."""
    assert phase is not None
    return phase.candidate if sent.to_candidate else phase.stable


def counted(log: list[Sent], most_units: int = 1000) -> Tally:
    """What the code under test makes of it."""
    tally = Tally(most_units)
    for sent in log:
        tally.begin(sent.generation, 0.5)
        arm = arm_of(tally.phase(sent.generation), sent)
        tally.meet(arm, sent.generation, sent.unit)
        for kind in sent.kinds:
            if tally.is_first(sent.unit, kind):
                arm.count_event(kind)
    return tally


def is_new(log: list[Sent], at: int, *, under_these_weights: bool) -> bool:
    """Whether no entry before that one has its unit."""
    sent = log[at]
    before = [each for each in log[:at] if each.generation == sent.generation or not under_these_weights]
    return not sent.unit or all(each.unit != sent.unit for each in before)


def is_first_event(log: list[Sent], at: int, kind: str) -> bool:
    """Whether no entry before that one has this event of its unit."""
    sent = log[at]
    return kind in sent.kinds and (
        not sent.unit or all(each.unit != sent.unit or kind not in each.kinds for each in log[:at])
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Sent]:
    """Weights change now and then; a unit keeps its arm while they do not."""
    steps = draw(
        st.lists(st.tuples(st.booleans(), st.sampled_from(["", "a", "b", "c"]), st.sets(st.sampled_from(KINDS))))
    )
    generation, log = 1, []
    for is_changed, unit, kinds in steps:
        generation += is_changed
        to_candidate = draw(st.booleans()) if not unit else (ord(unit) + generation) % 2 == 0
        log.append(Sent(generation, unit, to_candidate, tuple(sorted(kinds))))
    return log


@given(logs())
def test_units_and_events_count_once_as_the_judge_asks(log: list[Sent]):
    """The judge's tests are exact only then: counted by request, a few heavy users would roll good versions back."""
    tally = counted(log)

    for generation in {sent.generation for sent in log}:
        for to_candidate in (False, True):
            ours = [
                at for at, sent in enumerate(log) if (sent.generation, sent.to_candidate) == (generation, to_candidate)
            ]
            arm = arm_of(tally.phase(generation), Sent(generation, "", to_candidate, ()))
            assert arm.units == sum(is_new(log, at, under_these_weights=True) for at in ours)
            assert arm.newcomers == sum(is_new(log, at, under_these_weights=False) for at in ours)
            for kind in KINDS:
                assert arm.events.get(kind, 0) == sum(is_first_event(log, at, kind) for at in ours)


def test_units_beyond_the_limit_are_not_counted_on_either_arm():
    """Memory is bounded; and what is not counted must be missing from units and events alike."""
    log = [Sent(1, unit, True, ("schema",)) for unit in ("a", "b", "c", "d")]
    log += [Sent(2, "a", False, ("above_p95",)), Sent(2, "d", False, ("above_p95",)), Sent(2, "", False, ())]

    tally = counted(log, most_units=2)
    first, second = tally.phases

    assert (first.candidate.units, first.candidate.newcomers, first.candidate.events) == (2, 2, {"schema": 2})
    assert (second.stable.units, second.stable.newcomers, second.stable.events) == (2, 1, {"above_p95": 1})
    assert tally.uncounted == 3


def test_the_number_of_phases_is_bounded():
    """A report stays small whatever becomes of an endpoint; what came first stays as it was told."""
    tally = Tally()
    for generation in range(1000):
        tally.begin(generation, 0.1)

    assert [phase.generation for phase in tally.phases] == list(range(128))
    assert tally.phase(999) is None


def test_a_bin_holds_what_fell_into_it():
    """All bins are there from the first output on: the judge refuses arms with different numbers of them."""
    arm = ArmTally()
    arm.count_bin("scores", 2, 4)
    arm.count_bin("scores", 2, 4)

    assert arm.bins == {"scores": [0, 0, 2, 0]}


@pytest.mark.parametrize("count", [1, 3])
def test_errors_of_units_are_the_sum_of_their_reasons(count: int):
    """The brake reads the one, the registry the others."""
    arm = ArmTally()
    for _ in range(count):
        arm.count_error_of_unit("MODEL_FAILED")
    arm.count_error_of_unit("WORKER_LOST")

    assert (arm.errors_of_units, arm.events) == (count + 1, {"MODEL_FAILED": count, "WORKER_LOST": 1})
