"""What went wrong in other controllers of rollouts, one test each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferway_registry.judge import Counts
from inferway_registry.resources import FULL_WEIGHT
from inferway_registry.rollouts import commands, machine
from inferway_registry.rollouts.arms import arms, matches
from inferway_registry.rollouts.directive import directive
from inferway_registry.rollouts.facts import Facts, Pairs, Profile
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import HeaderMatch
from tests.unit.registry.rollout_facts import (
    BLUE_GREEN,
    CANDIDATE,
    STABLE,
    Controller,
    baking,
    fresh,
    met,
    running,
    spec,
)


def aborted(controller: Controller) -> None:
    """By somebody."""
    controller.store(commands.abort(controller.rollout, controller.facts.now, "ann"))


@pytest.mark.parametrize("looks", [0, 1])
def test_an_abort_after_a_full_promotion_is_heard(looks: int):
    """argoproj/argo-rollouts#4461: abort was ignored once the rollout was promoted fully."""
    controller = running()
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann", full=True))
    controller.confirm()
    for _ in range(looks):
        controller.look()
    assert controller.weight == FULL_WEIGHT
    aborted(controller)
    assert controller.rollout.state is State.ROLLING_BACK
    assert controller.weight == 0
    controller.confirm()
    assert controller.look() is State.ROLLED_BACK


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.ROLLED_BACK, State.FAILED])
def test_an_abort_with_nothing_under_way_leaves_the_endpoint_alone(state: State):
    """argoproj/argo-rollouts#1292: it scaled the stable version to nothing."""
    ended = fresh(spec()).to(state, fresh(spec()).create_time, "so")
    again = commands.abort(ended, ended.create_time, "ann")
    assert again is ended
    assert arms(again) == arms(ended)
    assert [arm.weight_basis_points for arm in arms(again)] == [FULL_WEIGHT]


def test_a_retry_after_an_abort_runs():
    """argoproj/argo-rollouts#841 and #3120: it stayed aborted, or hung. The counts of the first must not count."""
    controller = running()
    controller.count(met(5700), met(300, INTERNAL=150))
    assert controller.look() is State.ROLLING_BACK
    controller.confirm()
    controller.look()
    controller.store(fresh(controller.rollout.spec))
    assert controller.look() is State.PREPARING
    controller.rollout = controller.rollout.published(controller.generation)
    assert controller.look(1000.0) is State.RUNNING
    assert controller.weight == 500
    assert controller.look() is State.RUNNING


@pytest.mark.parametrize("events", [{"INTERNAL": 5700}, {}], ids=["it fails", "it is not there"])
def test_a_stable_version_that_is_broken_does_not_lock_its_successor_out(events: dict[str, int]):
    """argoproj/argo-rollouts#1774: the rollout was stuck. It pauses, and a person promotes."""
    controller = running()
    controller.count(Counts(5700 if events else 0, 5700 if events else 0, events), met(300))
    assert controller.look(240.0) is State.PAUSED
    assert controller.weight == 500
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann", full=True))
    controller.confirm()
    assert controller.look() is State.BAKING
    assert controller.look(300.0) is State.SUCCEEDED


def test_a_stable_version_that_never_answers_is_not_waited_for_against_ones_will():
    """The same before the first step: there is no baseline, and a person goes on without."""
    controller = Controller(fresh(spec()))
    controller.know(profile=Profile())
    controller.look()
    assert controller.look(600.0) is State.PAUSED
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann"))
    assert controller.look() is State.RUNNING


def test_traffic_does_not_flap_after_an_abort():
    """argoproj/argo-rollouts#3078 and #4973: the service's selector went back and forth."""
    controller = running()
    controller.count(met(5700), met(300))
    aborted(controller)
    generation = controller.generation
    for seconds in (1.0, 1.0, 30.0, 60.0, 1000.0):
        controller.look(seconds)
        assert (controller.weight, controller.generation) in {(0, generation), (0, generation + 1)}
    assert controller.generation == generation + 1  # the candidate's arm without weight goes, once
    assert controller.rollout.state is State.ROLLED_BACK


def test_a_controller_that_starts_while_a_rollout_goes_back_sends_nobody_to_the_candidate():
    """argoproj/argo-rollouts#1665: a restart in the middle of an abort gave the canary traffic again."""
    controller = running()
    aborted(controller)
    stored: Rollout = controller.rollout
    nothing_known = Facts(controller.facts.now)
    assert machine.step(stored, nothing_known) is stored
    restarted = Controller(stored, nothing_known, controller.generation, controller.published)
    for seconds in (1.0, 13.0, 1.0, 100.0):
        restarted.look(seconds)
        assert restarted.weight == 0
    assert restarted.rollout.state is State.ROLLED_BACK


def test_nothing_of_a_rollout_leaks_into_the_next():
    """kserve/kserve#2130: routes of one canary were still there in the next one."""
    controller = baking(BLUE_GREEN)
    first = commands.abort(controller.rollout, controller.facts.now, "ann")
    assert matches(first) == ()
    ended = commands.supersede(first, controller.facts.now, "ann")
    assert (directive(ended), matches(ended), len(arms(ended))) == (None, (), 1)
    second = Rollout("digits", 2, spec(), STABLE, "other", controller.facts.now)
    told = directive(second)
    assert told is not None
    assert (told.rollout, told.mirror, told.p95_us, second.phases) == ("endpoints/digits/rollouts/2", None, 0, ())


def test_callers_with_the_header_get_the_stable_version_when_it_goes_back():
    """The same leak while the arm is still there, at weight 0."""
    match = HeaderMatch("x-tester", "yes")
    controller = Controller(fresh(replace(spec(), match=(match,))))
    assert matches(controller.rollout) == ()
    controller.look()
    controller.look(30.0)
    assert matches(controller.rollout) == (match,)
    aborted(controller)
    assert matches(controller.rollout) == ()


def test_an_analysis_that_saw_nothing_is_no_success():
    """fluxcd/flagger#1011 advanced when its metric went silent; argoproj/argo-rollouts#1466 aborted."""
    controller = running()
    assert controller.look(240.0) is State.PAUSED
    assert controller.weight == 500
    assert controller.rollout.reason.startswith("no data: ")


def test_a_stable_version_without_errors_does_not_hide_those_of_the_candidate():
    """spinnaker/spinnaker#5622: with no errors before there was nothing to divide by, and the canary passed."""
    controller = running()
    controller.count(met(5700), met(300, INTERNAL=6))
    assert controller.look() is State.ROLLING_BACK


def test_pairs_are_not_lost_by_a_switch():
    """What the copies showed before the switch counts after it, too."""
    controller = running(BLUE_GREEN)
    controller.copied(CANDIDATE, Pairs(100, 96, mirrored_errors=4))
    assert controller.look() is State.PROMOTING
    controller.confirm()
    assert controller.look() is State.BAKING
    controller.copied(STABLE, Pairs(100, 96, primary_errors=4))
    assert controller.look() is State.ROLLING_BACK


def test_a_stable_version_that_no_worker_can_load_is_left_behind_by_hand():
    """argo-rollouts#1774: the fix for what is broken must not wait for what is broken."""
    controller = Controller(fresh(spec()))
    controller.know(needed_workers=0, ready_workers=0, holders=2)
    controller.look()
    assert controller.look(60.0) is State.PREPARING

    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann"))

    assert controller.look() is State.RUNNING
