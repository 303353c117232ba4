"""What is said of a split that somebody set by hand, from what gateways counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from inferway.errors import InvalidField, InvalidName
from inferway.registry.v1 import resources_pb2 as pb
from inferway.registry.v1.outcome_service_pb2 import SplitOutcomes
from inferway_registry import convert_splits
from inferway_registry.resources import Arm, Endpoint
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.rollouts.spec import Spec
from inferway_registry.split_check import ArmCount, Counts, Mismatch, SplitCheck, check, is_split

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HALVES, THREE = {"a": 5000, "b": 5000}, {"a": 5000, "b": 3000, "c": 2000}


def endpoint(weights: dict[str, int]) -> Endpoint:
    """One with these arms."""
    arms = tuple(Arm(name, "m", number, weight) for number, (name, weight) in enumerate(weights.items(), 1))
    return Endpoint("e", arms, "salt", 1, automatic=False, next_number=0, create_time=NOW, revision=1)


def alone(units: list[int], answered: list[int] | None = None) -> Counts:
    """Requests alone, which all were answered unless it is said how many."""
    pairs = zip("abc", units, answered or units, strict=False)
    return {arm: ArmCount(units, answered) for arm, units, answered in pairs}


def keyed(units: list[int]) -> Counts:
    """Keys."""
    return {arm: ArmCount(count, count, count, count) for arm, count in zip("abc", units, strict=False)}


def test_a_split_is_what_chance_decides_and_no_rollout_tests():
    """A rollout judges its own, with everything else that it counts."""
    rollout = Rollout("e", 1, Spec(("m", 2)), ("m", 1), "s", NOW)

    assert is_split(endpoint(HALVES))
    assert not is_split(endpoint({"a": 10_000, "b": 0}))
    assert not is_split(replace(endpoint(HALVES), rollout=rollout))


def test_units_as_assigned_are_said_to_be():
    """By the gateways together, and with nothing seen at all."""
    found = check(endpoint(THREE), [alone([2500, 1500, 1000]), alone([2480, 1510, 1010])])
    nothing = check(endpoint(THREE), [])

    assert (found.mismatch, nothing.mismatch) == (Mismatch.NONE, Mismatch.NONE)
    assert list(found.arms) == ["a", "b", "c"]
    assert found.arms["a"] == ArmCount(4980, 4980)
    assert found.explanation.startswith("As assigned: a had 4,980 of 10,000 units, its share would be 5,000.0; ")
    assert nothing.explanation == "As assigned: nobody came by chance yet."


def test_a_tenth_that_does_not_arrive_is_found():
    """And said of the arm that misses it."""
    found = check(endpoint(THREE), [alone([10_000, 6000, 3600])])

    assert found.mismatch is Mismatch.ASSIGNED
    assert found.log_e >= np.log(1000)
    assert found.explanation.startswith(
        "srm: units do not reach the arms as assigned. c had 3,600 of 19,600 units, its share would be 3,920.0; "
    )


def test_units_that_arrive_and_are_not_answered_are_survivorship():
    """The split is right, and what the others met is still no fair sample: whoever compares must know."""
    found = check(endpoint(HALVES), [alone([5000, 5000], [4990, 4100])])

    assert found.mismatch is Mismatch.ANSWERED
    assert found.explanation.startswith(
        "srm: units reach the arms as assigned, but b leaves more of them without an answer than others. "
        "b had 4,100 of 9,090 answered units, its share would be 4,545.0; "
    )


def test_an_outage_of_all_arms_is_nobodys_survivorship():
    """Half of all calls fail, on both arms alike."""
    assert check(endpoint(HALVES), [alone([5000, 5000], [2510, 2490])]).mismatch is Mismatch.NONE


def drawn(random: np.random.Generator, gateways: int, users: int, shares: tuple[float, ...]) -> SplitCheck:
    """So many users, each of whom comes to every gateway."""
    counts = keyed([int(n) for n in random.multinomial(users, shares)])
    return check(endpoint(HALVES), [counts] * gateways)


def test_users_who_come_to_many_gateways_are_no_proof():
    """The same 500 of them behind twenty gateways, or one that was restarted as often, are not 10,000."""
    random = np.random.default_rng(3)
    found = [drawn(random, 20, 500, (0.5, 0.5)) for _ in range(200)]
    added_up = [check(endpoint(HALVES), [alone([each.arms[arm].units for arm in "ab"])]) for each in found]

    assert sum(each.mismatch is not Mismatch.NONE for each in found) == 0
    assert sum(each.mismatch is not Mismatch.NONE for each in added_up) > 20
    assert drawn(random, 20, 20_000, (0.55, 0.45)).mismatch is Mismatch.ASSIGNED


def test_what_was_found_is_told_in_full():
    """The command shows it, and programs may act on it."""
    message = convert_splits.split_message(check(endpoint(HALVES), [alone([60, 40]), keyed([6000, 4000])]))

    assert list(message.arms) == [
        pb.SplitArm(arm="a", units=6060, answered=6060, keyed_units=6000, keyed_answered=6000),
        pb.SplitArm(arm="b", units=4040, answered=4040, keyed_units=4000, keyed_answered=4000),
    ]
    assert message.mismatch == pb.SplitCheck.MISMATCH_ASSIGNED
    assert message.log_evidence > message.log_threshold == pytest.approx(np.log(1000))


def wrong(**counts: int) -> SplitOutcomes:
    """A report with an arm that has these."""
    return SplitOutcomes(endpoint="endpoints/e", arms=[pb.SplitArm(arm="a", **counts)])


@pytest.mark.parametrize(
    "report",
    [
        SplitOutcomes(endpoint="e"),
        SplitOutcomes(endpoint="endpoints/e", arms=[pb.SplitArm(arm="a"), pb.SplitArm(arm="a")]),
        SplitOutcomes(endpoint="endpoints/e", arms=[pb.SplitArm(arm=f"a{number}") for number in range(33)]),
        wrong(units=-1),
        wrong(units=1, answered=2),
        wrong(units=2, keyed_units=3),
        wrong(units=4, keyed_units=2, answered=3, keyed_answered=0),
        wrong(units=4, keyed_units=2, answered=3, keyed_answered=3),
        wrong(units=2**62),
    ],
)
def test_a_report_that_would_spoil_the_sums_is_refused(report: SplitOutcomes):
    """What is stored is added up by every registry, at every look."""
    with pytest.raises((InvalidField, InvalidName)):
        convert_splits.reports([report])
