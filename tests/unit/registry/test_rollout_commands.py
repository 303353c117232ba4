"""What people may do to a rollout, in each of its states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from inferway.errors import RolloutState
from inferway_registry.rollouts import commands
from inferway_registry.rollouts.rollout import MAX_TRANSITIONS, Rollout, State, Thresholds
from tests.unit.registry.rollout_facts import BLUE_GREEN, CANARY, SHADOW, THEN, fresh, spec

Command = Callable[[Rollout], Rollout]
LATER = THEN + timedelta(minutes=5)


def pause(rollout: Rollout) -> Rollout:
    """By Ann."""
    return commands.pause(rollout, LATER, "ann")


def resume(rollout: Rollout) -> Rollout:
    """By Ann."""
    return commands.resume(rollout, LATER, "ann")


def step(rollout: Rollout) -> Rollout:
    """By Ann."""
    return commands.promote(rollout, LATER, "ann")


def full(rollout: Rollout) -> Rollout:
    """By Ann."""
    return commands.promote(rollout, LATER, "ann", full=True)


WEIGHTS = {State.RUNNING: 500, State.PROMOTING: 10_000, State.BAKING: 10_000, State.SUCCEEDED: 10_000}


def at(state: State, paused_from: State | None = None) -> Rollout:
    """A canary in that state."""
    weight = WEIGHTS.get(paused_from or state, 0)
    begun = replace(fresh(spec()), thresholds=None)
    if paused_from is not None:
        begun = begun.to(paused_from, THEN, "so", weight=weight)
    return begun.to(state, THEN, "so", weight=weight)


NOTHING, REFUSED = "nothing", "refused"
P, R, B, S = State.PREPARING, State.RUNNING, State.BAKING, State.SUCCEEDED
TABLE: list[tuple[State, State | None, dict[Command, State | str]]] = [
    (State.PENDING, None, {pause: REFUSED, resume: REFUSED, step: P, full: REFUSED}),
    (State.PREPARING, None, {pause: State.PAUSED, resume: REFUSED, step: P, full: REFUSED}),
    (State.RUNNING, None, {pause: State.PAUSED, resume: REFUSED, step: R, full: State.PROMOTING}),
    (State.PROMOTING, None, {pause: REFUSED, resume: REFUSED, step: NOTHING, full: NOTHING}),
    (State.BAKING, None, {pause: State.PAUSED, resume: REFUSED, step: S, full: S}),
    (State.PAUSED, P, {pause: NOTHING, resume: P, step: P, full: REFUSED}),
    (State.PAUSED, R, {pause: NOTHING, resume: R, step: R, full: State.PROMOTING}),
    (State.PAUSED, B, {pause: NOTHING, resume: B, step: S, full: S}),
    (State.ROLLING_BACK, None, dict.fromkeys((pause, resume, step, full), REFUSED)),
    (State.ROLLED_BACK, None, dict.fromkeys((pause, resume, step, full), REFUSED)),
    (State.SUCCEEDED, None, dict.fromkeys((pause, resume, step, full), REFUSED)),
    (State.FAILED, None, dict.fromkeys((pause, resume, step, full), REFUSED)),
]
ROWS = [(*row[:2], command, wanted) for row in TABLE for command, wanted in row[2].items()]


@pytest.mark.parametrize(
    ("state", "paused_from", "command", "wanted"),
    ROWS,
    ids=[f"{row[0].name}{'/' + row[1].name if row[1] else ''} {row[2].__name__}" for row in ROWS],
)
def test_a_command_does_what_the_state_permits(
    state: State, paused_from: State | None, command: Command, wanted: State | str
):
    """The table of all states and commands; who asks for what is there already changes nothing."""
    rollout = at(state, paused_from)
    if wanted == REFUSED:
        with pytest.raises(RolloutState) as refused:
            command(rollout)
        assert rollout.name in str(refused.value)
        assert refused.value.message.endswith(".")  # what to do instead is a sentence of its own
        return
    done = command(rollout)
    if wanted == NOTHING:
        assert done is rollout
        return
    assert done.state is wanted
    assert done.transitions[-1].principal == "ann"
    assert done.state_time == LATER
    assert done.paused_from == (state if wanted is State.PAUSED else None)


@pytest.mark.parametrize(("state", "paused_from"), [row[:2] for row in TABLE])
def test_an_abort_is_never_refused(state: State, paused_from: State | None):
    """It goes back from wherever it is; where it has ended, or goes back already, nothing changes."""
    rollout = at(state, paused_from)
    aborted = commands.abort(rollout, LATER, "ann", "too slow")
    if state is State.ROLLING_BACK or not rollout.active:
        assert aborted is rollout
        return
    assert (aborted.state, aborted.weight_basis_points, aborted.paused_from) == (State.ROLLING_BACK, 0, None)
    assert aborted.reason == "Aborted: too slow"


def test_a_promoted_step_has_the_weight_of_the_next_one():
    """And after the last step there is everything."""
    second = step(at(State.RUNNING))
    assert (second.step, second.weight_basis_points) == (1, 5000)
    last = step(second)
    assert (last.state, last.weight_basis_points) == (State.PROMOTING, 10_000)


def test_blue_green_is_promoted_at_once():
    """It has one step."""
    rollout = replace(at(State.RUNNING), spec=spec(BLUE_GREEN))
    assert step(rollout).weight_basis_points == 10_000


@pytest.mark.parametrize("command", [step, full])
def test_a_shadow_is_not_promoted(command: Command):
    """It moves no traffic; begin a canary instead."""
    rollout = replace(at(State.RUNNING), spec=spec(SHADOW), weight_basis_points=0)
    with pytest.raises(RolloutState):
        command(rollout)


@pytest.mark.parametrize(
    ("command", "rollout", "advice"),
    [
        (full, at(State.PREPARING), "promote it by one step to go on without a baseline"),
        (full, replace(at(State.PREPARING), spec=spec(SHADOW)), "begin a canary"),
        (step, at(State.ROLLING_BACK), "wait until it has ended"),
        (step, at(State.SUCCEEDED), "begin another one"),
        (pause, at(State.PROMOTING), "in some seconds"),
        (pause, at(State.FAILED), "retry it"),
        (resume, at(State.RUNNING), "goes on by itself"),
    ],
)
def test_who_is_refused_is_told_what_to_do_instead(command: Command, rollout: Rollout, advice: str):
    """Somebody is in a hurry, and knows the states less well than the one who wrote them."""
    with pytest.raises(RolloutState) as refused:
        command(rollout)
    assert advice in str(refused.value)


def test_who_promotes_what_prepares_does_without_a_baseline():
    """Thresholds are there, and empty: nothing will be slow."""
    assert step(at(State.PAUSED, State.PREPARING)).thresholds == Thresholds()


def test_another_rollout_ends_this_one_at_once():
    """Both are written in one transaction: an endpoint is driven by one of them only."""
    for state in (State.PREPARING, State.RUNNING, State.BAKING, State.ROLLING_BACK):
        ended = commands.supersede(at(state), LATER, "ann")
        assert (ended.state, ended.weight_basis_points, ended.end_time) == (State.ROLLED_BACK, 0, LATER)
    over = at(State.SUCCEEDED)
    assert commands.supersede(over, LATER, "ann") is over


def test_history_is_bounded():
    """Somebody may pause and resume from a loop."""
    rollout = at(State.RUNNING)
    for _ in range(MAX_TRANSITIONS):
        rollout = resume(pause(rollout))
    assert len(rollout.transitions) == MAX_TRANSITIONS


def test_the_weights_of_a_canary_are_its_steps():
    """The rows above begin at the first of them."""
    assert CANARY.steps[0].weight_basis_points == WEIGHTS[State.RUNNING]
