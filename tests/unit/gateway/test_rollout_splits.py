"""What is counted of traffic that somebody split by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, replace

from inferway.errors import InferwayError, ModelFailed
from inferway_gateway.envelope import Observer
from inferway_gateway.rollouts.messages import to_report
from inferway_gateway.rollouts.splits import MOST_BATCHES, MOST_SPLITS, Split, Splits
from inferway_gateway.routing import Arm, Decision, Endpoint, RoutingTable
from inferway_gateway.tensors import Answer
from inferway_registry import convert_splits
from tests.unit.gateway.builders import envelope, version
from tests.unit.gateway.rollout_bed import FINE, PLAN

ENVELOPE, FAILURE = envelope(version(1)), ModelFailed("broken")


def endpoint(name: str = "echo", weights: Iterable[int] = (2500, 7500, 0), generation: int = 3) -> Endpoint:
    """Arms `v1`, `v2` and so on with these weights."""
    arms = (Arm(f"v{number}", version(1).name, weight) for number, weight in enumerate(weights, 1))
    return Endpoint(name, tuple(arms), "salt", generation)


def table(*endpoints: Endpoint) -> RoutingTable:
    """A snapshot."""
    return RoutingTable("epoch", 1, {each.name: each for each in endpoints}, {version(1).name: version(1)}, {})


def decision(arm: str = "v1", unit: str = "", *, generation: int = 3, propensity: int = 0) -> Decision:
    """By chance, unless another propensity is given."""
    return Decision(version(1), arm, generation, propensity or {"v1": 2500, "v2": 7500}[arm], unit)


def meet(split: Split, *decisions: Decision) -> list[Observer]:
    """Requests are sent; those who want to know what becomes of them."""
    return [observer for observer in map(split.meet, decisions) if observer is not None]


def end(outcome: Answer | InferwayError, *observers: Observer) -> None:
    """What became of them."""
    for observer in observers:
        observer.ended(ENVELOPE, outcome, 0.0)


def test_a_unit_is_counted_once_and_a_request_alone_always():
    """A user who comes again was not assigned again; a split of requests would prove nothing about users."""
    split = Split(endpoint())
    observers = meet(split, decision(), decision(), *[decision("v2", "ann")] * 5, decision("v2", "ben"))
    end(FINE, *observers)
    split.look()

    assert {name: astuple(total) for name, total in split.arms.items()} == {"v1": (2, 2, 0, 0), "v2": (2, 2, 2, 2)}


def test_only_what_chance_has_sent_under_these_weights_counts():
    """A stream that stayed with what it was given before belongs to weights that are gone."""
    split = Split(endpoint())
    former, other = decision(generation=2), decision(propensity=5000)

    assert meet(split, former, other) == []
    assert [total.units for total in split.arms.values()] == [0, 0]


def test_answers_are_counted_when_everybody_who_came_before_has_ended():
    """On a slow arm all answers are late: counted at once, a healthy split would look as if that arm lost its users."""
    split = Split(endpoint())
    slow, quick = meet(split, decision("v2"), decision("v1"))
    end(FINE, quick)
    split.look()
    end(FINE, *meet(split, decision("v1")))
    split.look()
    before = [total.answered for total in split.arms.values()]
    end(FAILURE, slow)
    split.look()

    assert before == [0, 0]
    assert [(total.units, total.answered) for total in split.arms.values()] == [(2, 2), (1, 0)]


def test_who_never_ends_does_not_hold_the_others_up_for_ever():
    """Whatever it is that goes wrong: a split is counted for weeks, in bounded memory."""
    split = Split(endpoint())
    meet(split, decision("v2"))
    for _ in range(MOST_BATCHES + 2):
        split.look()
        end(FINE, *meet(split, decision("v1")))

    assert split.arms["v1"].answered > 0


def test_keys_beyond_what_is_remembered_are_not_counted_whichever_arm_they_get():
    """A million users cost memory for the first of them; who has no key costs none."""
    split = Split(endpoint(), most_units=2)
    meet(split, decision("v1", "a"), decision("v2", "b"), decision("v1", "c"), decision("v2", "d"), decision("v2"))

    assert [total.units for total in split.arms.values()] == [1, 2]


def test_a_split_is_told_when_it_has_grown():
    """A report costs the registry a write: a quiet split costs none, and one of millions few."""
    split = Split(endpoint())
    end(FINE, *meet(split, *[decision()] * 50))
    first = split.look()
    split.told(first)
    quiet = split.look()
    end(FINE, *meet(split, decision()))
    little = split.look()
    end(FINE, *meet(split, decision()))

    assert (first, quiet, little, split.look()) == (100, 0, 0, 104)


def test_splits_begin_and_end_with_their_weights_and_outlive_other_changes():
    """Counts of other weights would raise an alarm, and counts that are lost with each snapshot never any."""
    splits = Splits()
    driven = replace(endpoint("driven"), rollout=PLAN)
    assert splits.apply(table(endpoint(), endpoint("whole", [10_000]), driven))
    assert len(splits) == 1
    splits.observe(endpoint(), decision())

    assert not splits.apply(table(endpoint(), endpoint("whole", [0, 10_000], 4)))
    assert [split.arms["v1"].units for split in splits.grown()] == [1]
    assert splits.apply(table(endpoint(weights=[2500, 2500, 5000])))
    assert splits.apply(table(endpoint(generation=4)))
    assert splits.observe(endpoint(), decision()) is None
    assert not splits.apply(table(endpoint("whole", [10_000])))
    assert not splits


def test_so_many_splits_are_counted_and_the_others_served():
    """What gateways remember is bounded, whatever is set up."""
    splits, many = Splits(), [endpoint(f"e{number:02}") for number in range(MOST_SPLITS + 1)]
    splits.apply(table(*many))

    assert splits.observe(many[0], decision()) is not None
    assert splits.observe(many[-1], decision()) is None
    assert len(splits) == MOST_SPLITS


def test_the_registry_takes_what_is_told():
    """What one side writes and the other refuses is never tested at all."""
    split = Split(endpoint())
    end(FINE, *meet(split, decision("v2", "ann"), decision("v2")))
    split.look()
    report = to_report("gateway", (), [split])

    assert convert_splits.reports(report.splits).keys() == {"echo"}
    assert (report.splits[0].endpoint, report.splits[0].generation) == ("endpoints/echo", 3)
    arms = [(arm.arm, arm.units, arm.answered, arm.keyed_units, arm.keyed_answered) for arm in report.splits[0].arms]
    assert arms == [("v1", 0, 0, 0, 0), ("v2", 2, 2, 1, 1)]
