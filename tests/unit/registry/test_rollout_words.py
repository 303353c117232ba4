"""What gateways are told of a rollout, and what people are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferway_registry.resources import Arm
from inferway_registry.rollouts import commands, words
from inferway_registry.rollouts.arms import arms, candidate_arm, stable_arm
from inferway_registry.rollouts.directive import MirrorDirective, directive
from inferway_registry.rollouts.facts import Pairs, Profile
from inferway_registry.rollouts.outlook import next_words
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import Judging, OnInconclusive, Strategy
from tests.unit.registry.rollout_facts import (
    BLUE_GREEN,
    CANARY,
    CANDIDATE,
    SHADOW,
    Controller,
    baking,
    fresh,
    met,
    running,
    spec,
)


def test_arms_are_named_after_their_versions():
    """With the model where it is not the endpoint's own, so that no two have the same name."""
    own = fresh(spec())
    assert arms(own) == (Arm("v2", "digits", 2, 0), Arm("v1", "digits", 1, 10_000))
    other = replace(own, endpoint="app", stable=("digits", 1), spec=replace(own.spec, candidate=("letters", 1)))
    assert (candidate_arm(other), stable_arm(other)) == ("letters-v1", "digits-v1")


@pytest.mark.parametrize("strategy", [CANARY, BLUE_GREEN, SHADOW])
def test_gateways_learn_before_they_count(strategy: Strategy):
    """Whoever was counted before the candidate had traffic would be no newcomer after."""
    told = directive(fresh(spec(strategy)))
    assert told is not None
    assert (told.profiles, told.counts, told.brake_alpha, told.mirror) == (True, False, 0.0, None)
    told = directive(running(strategy).rollout)
    assert told is not None
    assert (told.profiles, told.counts) == (False, True)
    assert (told.p95_us, told.p99_us, list(told.edges)) == (5683, 15080, ["scores"])


def test_a_hundred_gateways_brake_with_a_tenth_of_alpha_where_users_are_at_stake():
    """Each of them may be wrong, and one is enough. A shadow harms nobody."""
    brakes = {}
    for strategy in (CANARY, BLUE_GREEN, SHADOW):
        told = directive(running(strategy).rollout)
        assert told is not None
        brakes[type(strategy).__name__] = told.brake_alpha
    assert brakes == {"Canary": pytest.approx(5e-5), "BlueGreen": pytest.approx(5e-5), "Shadow": 0.0}


def mirrored(rollout: Rollout) -> MirrorDirective | None:
    """What is copied."""
    told = directive(rollout)
    assert told is not None
    return told.mirror


def test_copies_go_to_the_version_that_users_do_not_get():
    """Before the switch to the new one, after it to the old one, paused or not; a canary has none."""
    assert mirrored(running(CANARY).rollout) is None
    before, after = running(BLUE_GREEN), baking(BLUE_GREEN)
    switched = commands.promote(before.rollout, before.facts.now, "ann")
    assert mirrored(switched) == MirrorDirective("models/digits/versions/1", BLUE_GREEN.mirror)
    for controller, name in ((before, "models/digits/versions/2"), (after, "models/digits/versions/1")):
        assert mirrored(controller.rollout) == MirrorDirective(name, BLUE_GREEN.mirror)
        paused = commands.pause(controller.rollout, controller.facts.now, "ann")
        assert mirrored(paused) == MirrorDirective(name, BLUE_GREEN.mirror)
        assert mirrored(commands.abort(paused, controller.facts.now, "ann")) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.2, "1 s"),
        (59.5, "1 min"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7441, "2 h 5 min"),
    ],
)
def test_times_are_said_in_words_and_never_too_short(seconds: float, text: str):
    """Somebody watches the clock."""
    assert words.span(seconds) == text


def outlook(controller: Controller) -> str:
    """What is said to people."""
    return next_words(controller.rollout, controller.facts)


def test_people_are_told_what_a_canary_waits_for():
    """From its beginning to its end, with the numbers that it waits for."""
    controller = Controller(fresh(spec()))
    assert outlook(controller) == "Begins within a second."
    controller.look()
    controller.know(ready_workers=1, profile=Profile({100: 57}))
    assert outlook(controller) == (
        "Waits for workers to load digits/2 (1 of 2 workers have) and for digits/1 to be watched "
        "(57 of at least 100 answers seen, 30 s to go), 10 min at most."
    )
    controller = running()
    controller.count(met(2280), met(120))
    controller.look(10.0)
    assert outlook(controller) == (
        "Goes on to 50 % after 1 min (50 s to go), when digits/2 has met 300 units (120 so far) and no harm is found; "
        "harm rolls back at once. If too little is seen it pauses in 3 min 50 s."
    )
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann"))
    assert outlook(controller).startswith("Goes on to all users after 1 min (")
    controller.store(commands.pause(controller.rollout, controller.facts.now, "ann"))
    assert outlook(controller).startswith("Waits for somebody to resume, promote or abort it.")
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann", full=True))
    assert outlook(controller) == (
        "Waits until every gateway routes by the new weights, 15 s at most, then watches for 5 min."
    )
    controller.look(15.0)
    assert outlook(controller).startswith("Succeeds in 5 min if no harm is found.")
    controller.store(commands.abort(controller.rollout, controller.facts.now, "ann"))
    assert outlook(controller).endswith("15 s at most, then it has ended.")
    controller.confirm()
    controller.look()
    assert outlook(controller) == ""


def test_people_are_told_that_outputs_are_waited_for_too():
    """They count from a later moment than units, so units alone may be there and nothing goes on."""
    controller = running()
    controller.count(met(6600), replace(met(290), units=349, newcomers=349))
    controller.look(10.0)
    assert "has met 300 units (349 so far), as many of its outputs could be compared (290 so far) and no harm" in (
        outlook(controller)
    )


def test_people_are_told_what_proof_and_what_silence_lead_to():
    """Where the spec asks for something else than the default."""
    asked = replace(spec(), judging=Judging(errors_not_inferior=2.0), on_inconclusive=OnInconclusive.ROLL_BACK)
    controller = running()
    controller.rollout = replace(controller.rollout, spec=asked, step=1)
    assert "errors are proven to be less than 2 times as frequent" in outlook(controller)
    assert outlook(controller).endswith("If too little is seen it rolls back in 4 min.")


def test_people_are_told_how_many_pairs_agree():
    """While they wait for more of them."""
    controller = running(BLUE_GREEN)
    assert outlook(controller).startswith(
        "All users are switched when 100 pairs of answers are compared (0 so far). If too little"
    )
    controller.copied(CANDIDATE, Pairs(50, 49))
    assert "(50 so far; between 84.5 % and 100.0 % agree, 98 % are asked for)" in outlook(controller)
    controller = running(SHADOW)
    assert outlook(controller).startswith("Ends after 1 min (1 min to go), when 100 pairs")


def test_a_wrong_split_is_not_to_be_resumed():
    """It would pause again at the next look."""
    controller = running()
    controller.count(met(3000), met(1000))
    assert controller.look() is State.PAUSED
    assert outlook(controller).startswith("Waits for somebody to promote or abort it: ")


def test_arms_of_models_with_long_names_are_names_too():
    """What the database and callers take as an arm's name has 63 characters at most."""
    long = replace(fresh(replace(spec(), candidate=("m" * 63, 12))), endpoint="e")
    assert arms(long)[0].arm == "m" * 59 + "-v12"


def test_nobody_is_told_to_promote_a_shadow():
    """A command that will be refused is no advice."""
    controller = running(SHADOW)
    paused = commands.pause(controller.rollout, controller.facts.now, "ann")
    assert "promote" not in next_words(paused, controller.facts)
