"""One rollout in one gateway: whom it counts, for what, and when it stops the candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferway.datatypes import Datatype
from inferway.errors import Cancelled, InvalidField, ModelFailed, WorkerLost
from inferway_gateway.rollouts.plan import MirrorPlan, RolloutPlan
from inferway_gateway.signature import TensorSpec
from inferway_gateway.state import StatePlan, StateSpec
from tests.unit.gateway.builders import ECHO, version
from tests.unit.gateway.rollout_bed import BROKEN, FINE, PLAN, ROLLOUT, Bed, answer

WITH_STATE = replace(
    ECHO,
    inputs=(TensorSpec("state", Datatype.FP32, (-1, 1)), *ECHO.inputs),
    outputs=(TensorSpec("next", Datatype.FP32, (-1, 1)), *ECHO.outputs),
)


def test_both_arms_are_counted_under_the_weights_by_which_units_were_sent():
    """The judge needs the share that was in force; an answer may come long after it has changed."""
    bed = Bed()
    sent = bed.send("v2")
    assert sent is not None
    bed.apply(PLAN, 1000, generation=2)
    bed.ask("v1")
    request, observer = sent
    observer.ended(request, ModelFailed("broken"), bed.now)

    first, second = bed.trial.tally.phases
    assert (first.generation, first.share, first.candidate.units) == (1, 0.05, 1)
    assert first.candidate.events == {"MODEL_FAILED": 1}
    assert (second.generation, second.share, second.stable.units, second.candidate.units) == (2, 0.1, 1, 0)


def test_a_callers_fault_is_a_request_and_a_unit_but_no_event():
    """Else one client that sends rubbish would roll a good version back."""
    bed = Bed()
    bed.ask("v2", InvalidField("rubbish"))

    assert (bed.candidate.units, bed.candidate.requests, bed.candidate.events) == (1, 1, {})
    assert bed.candidate.errors == {"INVALID_FIELD": 1}


def test_the_first_error_of_a_unit_counts_whatever_its_reason():
    """Errors of all reasons together are one metric, of which a unit has one."""
    bed = Bed()
    for error in (WorkerLost("gone"), ModelFailed("broken")):
        bed.ask("v2", error, unit="somebody")

    assert bed.candidate.events == {"WORKER_LOST": 1}
    assert bed.candidate.errors == {"WORKER_LOST": 1, "MODEL_FAILED": 1}


def test_while_the_candidate_warms_up_only_errors_and_schemas_count():
    """A cold version is slow at first, which says nothing; one that answers NaN is broken from the first request on."""
    bed = Bed()
    bed.ask("v2", FINE, seconds=5.0)
    bed.ask("v1", FINE, seconds=4.0)
    bed.ask("v2", BROKEN)
    bed.ask("v2", WorkerLost("gone"))

    assert bed.candidate.events == {"schema": 1, "WORKER_LOST": 1}
    assert (bed.stable.events, bed.candidate.bins, bed.stable.bins) == ({}, {}, {})


def test_after_slow_start_latency_and_outputs_of_both_arms_count():
    """From the same moment on, or the arms would not be comparable."""
    bed = Bed()
    bed.warm_up()
    bed.ask("v1", answer(1.0, 0.0, 0.0, 0.0), seconds=0.15)
    bed.ask("v2", FINE, seconds=0.25)

    assert (bed.stable.events, bed.stable.bins) == ({"above_p95": 1}, {"y": [1, 0, 0]})
    assert (bed.candidate.events, bed.candidate.bins) == ({"above_p95": 1, "above_p99": 1}, {"y": [0, 0, 1]})


def test_who_hangs_up_late_has_met_a_slow_version():
    """Callers of a version that hangs may never meet an error: without them it would look better than any other."""
    bed = Bed()
    bed.ask("v2", Cancelled("too slow for me"), seconds=5.0)
    cold = dict(bed.candidate.events)
    bed.warm_up()
    bed.ask("v2", Cancelled("too slow for me"), seconds=0.15)
    bed.ask("v1", Cancelled("not needed any more"), seconds=0.05)

    assert (cold, bed.candidate.events, bed.stable.events) == ({}, {"above_p95": 1}, {})
    assert bed.braked == []


def test_an_answer_that_leaves_a_session_without_its_state_is_an_error():
    """So it is to the user, though the worker was content: the session cannot go on."""
    bed = Bed()
    sent = bed.send("v2")
    assert sent is not None
    request, observer = sent
    plan = StatePlan(WITH_STATE, (StateSpec("state", "next", Datatype.FP32, (1,), bytes(4)),))
    request.version = replace(version(2), stateful={"serving_default": plan})
    observer.ended(request, FINE, bed.now)

    assert bed.candidate.events == {"MODEL_FAILED": 1}


def test_without_thresholds_no_answer_is_slow():
    """Too little was seen of the stable version to know what slow is; the registry judges the rest."""
    bed = Bed(replace(PLAN, p95_seconds=0.0, p99_seconds=0.0))
    bed.warm_up()
    bed.ask("v2", FINE, seconds=5.0)

    assert bed.candidate.events == {}


def test_each_unit_has_one_output_in_the_bins():
    """A heavy user's outputs are alike, and would look like a shift."""
    bed = Bed()
    bed.warm_up()
    for _ in range(3):
        bed.ask("v1", FINE, unit="heavy")

    assert bed.stable.bins == {"y": [0, 0, 1]}


def test_an_edge_belongs_to_the_bin_above_it():
    """As the registry says of classes 1 and 2, whose edges they are here."""
    bed = Bed()
    bed.warm_up()
    bed.ask("v1", answer(0.0, 1.0, 0.0, 0.0))

    assert bed.stable.bins == {"y": [0, 1, 0]}


def test_bins_keep_the_edges_that_were_known_first():
    """Counts of bins with other edges cannot be added."""
    bed = Bed()
    bed.warm_up()
    bed.apply(replace(PLAN, edges={"y": (0.5,)}), 1000, generation=2)
    bed.ask("v1", FINE)

    assert bed.stable.bins == {"y": [0, 0, 1]}


def test_before_the_rollout_counts_people_see_requests_and_the_judge_nothing():
    """While workers load the candidate nobody is exposed to anything."""
    bed = Bed(replace(PLAN, counts=False), weight=0)
    bed.ask("v1", ModelFailed("broken"), unit="somebody")

    assert (bed.stable.requests, bed.stable.units, bed.stable.events) == (1, 0, {})


def test_the_stable_version_is_profiled_while_the_plan_says_so():
    """Thresholds and bins are made of that; of the candidate nothing may enter them."""
    bed = Bed(replace(PLAN, counts=False, profiles=True), weight=0)
    bed.ask("v1", FINE)
    bed.ask("v2", FINE)
    bed.apply(PLAN, 500, generation=2)
    bed.ask("v1", FINE)

    assert sum(bed.trial.profile.latency.counts.values()) == 1
    assert (bed.trial.profile.outputs["y"].values, bed.trial.profile.outputs["y"].seen) == ([2.0], 1)


def test_a_decision_from_before_the_rollout_is_not_counted():
    """A stream may keep it for long; by which weights it was made nobody knows any more."""
    bed = Bed()
    older = replace(bed.endpoint, generation=0)

    assert not bed.ask("v1", decided_at=older)


def test_a_candidate_that_fails_is_stopped_once_and_the_registry_hears_at_once():
    """Half a minute of a broken version is too much, and the registry may be away."""
    bed = Bed()
    before = bed.news
    for _ in range(20):
        bed.ask("v1")
        bed.ask("v2", ModelFailed("broken"))

    assert bed.braked == [ROLLOUT]
    assert bed.rollouts.brakes == bed.news - before == 1
    assert bed.trial.brake_reason.startswith("errors: the candidate had ")


def test_failures_that_were_under_way_do_not_stop_it_again():
    """A hundred may be out when it is stopped; each would be told to the registry and written to the log."""
    bed = Bed()
    for request, observer in filter(None, [bed.send("v2") for _ in range(100)]):
        observer.ended(request, ModelFailed("broken"), bed.now)

    assert bed.braked == [ROLLOUT]
    assert bed.candidate.events == {"MODEL_FAILED": 100}


def test_after_the_brake_nothing_counts_for_the_judge():
    """Units that the candidate should have had go to the stable version: the weights hold no longer."""
    bed = Bed()
    while not bed.braked:
        bed.ask("v2", ModelFailed("broken"))
    bed.ask("v1", ModelFailed("broken"))

    assert (bed.stable.units, bed.stable.events, bed.stable.requests) == (0, {}, 1)


@pytest.mark.parametrize("plan", [replace(PLAN, brake_alpha=0.0), replace(PLAN, counts=False)])
def test_a_rollout_without_brake_or_counts_is_not_stopped_here(plan: RolloutPlan):
    """The registry says whether a gateway may decide."""
    bed = Bed(plan)
    for _ in range(50):
        bed.ask("v2", ModelFailed("broken"))

    assert bed.braked == []


def test_counts_are_kept_while_weights_change_and_go_with_the_rollout():
    """They are cumulative; the next rollout of the endpoint is another one."""
    bed = Bed()
    bed.ask("v1")
    bed.apply(PLAN, 1000, generation=2)
    assert [phase.stable.units for phase in bed.trial.tally.phases] == [1, 0]

    bed.apply(None, 0, generation=3)
    assert not bed.rollouts.trials
    assert not bed.ask("v1")

    bed.apply(replace(PLAN, rollout="endpoints/echo/rollouts/2"), 500, generation=4)
    assert [phase.stable.units for phase in bed.trial.tally.phases] == [0]


def test_the_registry_hears_at_once_of_other_weights_and_of_nothing_else():
    """A switch waits until every gateway has told that it routes by it; other snapshots come all the time."""
    bed = Bed()
    assert bed.news == 1
    bed.apply(PLAN, 500, generation=1)
    assert bed.news == 1
    bed.apply(PLAN, 1000, generation=2)
    assert (bed.news, bed.trial.generation) == (2, 2)


def test_what_the_stable_version_answered_is_copied_to_the_candidate_if_the_plan_says_so():
    """A shadow compares; and for callers whose version is chosen by weights there is nobody else to make copies."""
    bed = Bed(replace(PLAN, mirror=MirrorPlan(version(2).name, 10_000, 1e-5, 1e-3)), weight=0)
    bed.ask("v1")
    assert bed.copier.copies == 1

    bed.apply(PLAN, 0, generation=2)
    bed.ask("v1")
    assert bed.copier.copies == 1
    assert [figures.mirrored_version for figures in bed.trial.mirrors.figures] == [version(2).name]


def test_a_fault_in_counting_costs_nobody_an_answer():
    """It is called where answers are handed out: what is raised there would be the caller's error."""
    bed = Bed()
    sent = bed.send("v1")
    assert sent is not None
    request, observer = sent
    observer.ended(replace(request, signature="no such signature"), FINE, bed.now)

    assert bed.trial.failures == 1
