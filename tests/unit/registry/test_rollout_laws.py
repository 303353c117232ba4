"""What holds for every rollout, whatever people, gateways, workers and clocks do; `make rollout-laws` is the long form.

The machine runs inside a controller that stores and publishes as the registry's does. Between any two steps the
controller may die and come back knowing nothing but what it stored, its clock may jump, and another one may have taken
the same step already.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferway.errors import RolloutState
from inferway_registry.judge import Counts
from inferway_registry.resources import FULL_WEIGHT
from inferway_registry.rollouts import commands, machine
from inferway_registry.rollouts.arms import arms, matches
from inferway_registry.rollouts.directive import directive
from inferway_registry.rollouts.facts import Facts, Pairs, Profile
from inferway_registry.rollouts.outlook import next_words
from inferway_registry.rollouts.rollout import ENDS, OF_CONTROLLER, Rollout, State
from inferway_registry.rollouts.spec import (
    BlueGreen,
    Canary,
    HeaderMatch,
    Judging,
    Mirror,
    OnInconclusive,
    Shadow,
    Spec,
    Step,
)
from tests.unit.registry.rollout_facts import CANDIDATE, STABLE, WATCHED, Controller, fresh

LONG_STEPS = int(os.environ.get("INFERWAY_ROLLOUT_STEPS", "0"))
STEPS_EACH = 60
STRATEGIES = st.sampled_from(
    (
        Canary((Step(100, 20.0), Step(2500, 40.0), Step(5000, 20.0))),
        Canary((Step(9999, 30.0),)),
        BlueGreen(Mirror(1000), min_pairs=50),
        Shadow(Mirror(10_000), min_pairs=50, hold_seconds=20.0),
    )
)
SPECS = st.builds(
    Spec,
    st.just(CANDIDATE),
    STRATEGIES,
    st.builds(Judging, min_units=st.just(50), errors_not_inferior=st.sampled_from((None, 3.0))),
    st.just(10.0),
    st.just(60.0),
    st.just(120.0),
    st.just((HeaderMatch("x-tester", "yes"),)),
    st.sampled_from(OnInconclusive),
)
NUMBERS = st.integers(0, 500)
FAILING = st.sampled_from((0.0, 0.0, 0.0, 0.01, 0.5, 1.0))
SECONDS = st.sampled_from((0.0, 1.0, 1.0, 5.0, 20.0, 60.0))
TRANSITIONS = {
    State.PENDING: {State.PREPARING, State.ROLLING_BACK},
    State.PREPARING: {State.PREPARING, State.RUNNING, State.PAUSED, State.FAILED, State.ROLLING_BACK},
    State.RUNNING: {
        State.RUNNING,
        State.PROMOTING,
        State.PAUSED,
        State.SUCCEEDED,
        State.FAILED,
        State.ROLLING_BACK,
    },
    State.PROMOTING: {State.BAKING, State.ROLLING_BACK},
    State.BAKING: {State.SUCCEEDED, State.PAUSED, State.ROLLING_BACK},
    State.PAUSED: {
        State.PREPARING,
        State.RUNNING,
        State.PROMOTING,
        State.BAKING,
        State.SUCCEEDED,
        State.ROLLING_BACK,
    },
    State.ROLLING_BACK: {State.ROLLED_BACK},
}
"""A shadow succeeds or fails from RUNNING; somebody who promotes one that is paused takes it on or ends its bake."""


class AnyRollout(RuleBasedStateMachine):
    """One endpoint, one rollout after the other."""

    @initialize(spec=SPECS)
    def begins(self, spec: Spec) -> None:
        """With an endpoint all of whose traffic goes to the stable version."""
        self.controller = Controller(fresh(spec))

    @property
    def rollout(self) -> Rollout:
        """As it is stored."""
        return self.controller.rollout

    def store(self, rollout: Rollout) -> None:
        """Stores what a command or a look has made of it; checks the table of transitions."""
        before = self.rollout
        if rollout.state is not before.state:
            assert rollout.state in TRANSITIONS[before.state]
        assert rollout.transitions[: len(before.transitions)] == before.transitions
        self.controller.store(rollout)

    @rule(seconds=SECONDS)
    def looks(self, seconds: float) -> None:
        """The controller's second."""
        self.controller.know(now=self.controller.facts.now + timedelta(seconds=seconds))
        before, facts = self.rollout, self.controller.facts
        after = machine.step(before, facts)
        assert machine.step(before, facts) == after
        self.silence_moves_nothing(before, after, facts)
        self.store(after)

    def silence_moves_nothing(self, before: Rollout, after: Rollout, facts: Facts) -> None:
        """More traffic only by fresh counts; less only by evidence, or as the spec has asked for."""
        silent = not facts.gateways or not self.was_counted(before, facts)
        if after.weight_basis_points > before.weight_basis_points and before.state is State.RUNNING:
            assert not silent
        asked_for = before.spec.on_inconclusive is OnInconclusive.ROLL_BACK
        gone = facts.brake or not facts.published or facts.load_failure
        nothing = not any(any(arm.events.values()) for both in facts.counts.values() for arm in both)
        if after.state is State.ROLLING_BACK and nothing and not facts.mirrors and not gone:
            assert before.state is State.ROLLING_BACK or asked_for

    @staticmethod
    def was_counted(rollout: Rollout, facts: Facts) -> bool:
        """The candidate has met enough under the weights in force, or enough copies were compared."""
        strategy = rollout.spec.strategy
        if isinstance(strategy, Canary):
            _, candidate = facts.counts.get(rollout.phases[-1][0], (Counts(), Counts()))
            return candidate.units >= rollout.spec.judging.min_units
        return sum(pairs.pairs for pairs in facts.mirrors.values()) >= strategy.min_pairs

    @rule(back=st.integers(1, 10_000))
    def clock_is_set_back(self, back: int) -> None:
        """Of a machine that a controller starts on."""
        self.controller.know(now=self.controller.facts.now - timedelta(seconds=back))

    @rule(ahead=st.integers(1, 100_000))
    def clock_jumps_ahead(self, ahead: int) -> None:
        """Or nobody has looked for a day."""
        self.controller.know(now=self.controller.facts.now + timedelta(seconds=ahead))

    @rule()
    def crashes(self) -> None:
        """What is stored comes back; what was known of workers and gateways is gone until they report."""
        self.controller.rollout = pickle.loads(pickle.dumps(self.rollout))
        self.controller.know(
            needed_workers=0,
            ready_workers=0,
            holders=0,
            gateways=0,
            generation=0,
            load_failure="",
            brake="",
            profile=Profile(),
        )

    @rule(needed=st.integers(0, 3), ready=st.integers(0, 3))
    def workers_report(self, needed: int, ready: int) -> None:
        """So many of them."""
        self.controller.know(needed_workers=needed, ready_workers=min(ready, needed), holders=ready, load_failure="")

    @rule()
    def workers_are_ready(self) -> None:
        """And gateways are there, all of them up to date; what it mostly is like."""
        self.controller.know(needed_workers=2, ready_workers=2, holders=2, load_failure="", gateways=2, profile=WATCHED)
        self.controller.confirm()

    @rule(failing=FAILING, looks=st.integers(1, 3))
    def a_minute_with_users(self, failing: float, looks: int) -> None:
        """What rollouts mostly see: everybody reports, users come, copies are compared."""
        for _ in range(looks):
            self.workers_are_ready()
            self.users_come(20_000, 500, 0.0, failing)
            self.copies_are_compared(500, 0.0, failing)
            self.looks(60.0)

    @rule(share=FAILING)
    def workers_cannot_load(self, share: float) -> None:
        """Seldom."""
        if share == 1.0:
            self.controller.know(ready_workers=0, holders=0, load_failure="out of memory")

    @rule(count=st.integers(0, 2), behind=st.integers(0, 2))
    def gateways_report(self, count: int, behind: int) -> None:
        """Some, some of them with old weights."""
        self.controller.know(gateways=count, generation=max(0, self.controller.generation - behind) if count else 0)

    @rule(stable=NUMBERS, candidate=NUMBERS, stable_fails=FAILING, candidate_fails=FAILING)
    def users_come(self, stable: int, candidate: int, stable_fails: float, candidate_fails: float) -> None:
        """And are counted under the weights in force."""
        weight = self.rollout.weight_basis_points / FULL_WEIGHT
        ones, twos = round(stable * (1 - weight)), round(stable * weight) if weight < 1 else candidate
        phase = self.controller.facts.counts.get(self.controller.generation, (Counts(), Counts()))
        self.controller.count(phase[0] + seen(ones, stable_fails), phase[1] + seen(twos, candidate_fails))

    @rule(pairs=NUMBERS, differing=FAILING, failing=FAILING)
    def copies_are_compared(self, pairs: int, differing: float, failing: float) -> None:
        """With whichever version gets them now."""
        told = directive(self.rollout)
        if told is None or told.mirror is None:
            return
        of = CANDIDATE if told.mirror.version.endswith("/2") else STABLE
        broken = round(pairs * failing)
        agreeing = max(0, pairs - round(pairs * differing) - broken)
        self.controller.copied(of, Pairs(pairs, agreeing, 0, broken))

    @rule(share=FAILING)
    def gateway_brakes(self, share: float) -> None:
        """Seldom."""
        if share == 1.0 and self.rollout.weight_basis_points:
            self.controller.know(brake="half of its units fail")

    @rule(share=FAILING)
    def candidate_is_unloaded(self, share: float) -> None:
        """Seldom, by somebody who gets around the guard."""
        if share == 1.0:
            self.controller.know(published=False)

    @rule(command=st.sampled_from(("pause", "resume", "step", "full")))
    def somebody_commands(self, command: str) -> None:
        """Whatever is refused changes nothing."""
        now = self.controller.facts.now
        acts = {
            "pause": lambda: commands.pause(self.rollout, now, "ann"),
            "resume": lambda: commands.resume(self.rollout, now, "ann"),
            "step": lambda: commands.promote(self.rollout, now, "ann"),
            "full": lambda: commands.promote(self.rollout, now, "ann", full=True),
        }
        try:
            self.store(acts[command]())
        except RolloutState:
            return
        assert self.rollout.active or self.rollout.state is State.SUCCEEDED

    @rule(really=st.sampled_from((False, False, True)))
    def somebody_aborts(self, really: bool) -> None:
        """Accepted in every state, and wins: whoever steps with what was known before steps in vain."""
        aborted = commands.abort(self.rollout, self.controller.facts.now, "ann", "no")
        if not self.rollout.active:
            assert aborted is self.rollout
            return
        assert aborted.state is State.ROLLING_BACK
        assert aborted.weight_basis_points == 0
        assert machine.step(aborted, self.controller.facts).state in {State.ROLLING_BACK, State.ROLLED_BACK}
        if really:
            self.store(aborted)

    @precondition(lambda self: not self.rollout.active)
    @rule(spec=SPECS)
    def another_begins(self, spec: Spec) -> None:
        """Only when the one before has ended; the endpoint's counts go on."""
        won = self.controller.published[0]
        fits = replace(spec, candidate=CANDIDATE if (won.model, won.number) != CANDIDATE else ("digits", 3))
        begun = fresh(fits)
        stable = (won.model, won.number)
        self.controller.know(counts={}, mirrors={}, brake="", published=True)
        self.controller.store(replace(begun, stable=stable, number=self.rollout.number + 1))

    @invariant()
    def weights_add_up(self) -> None:
        """Of what is published, whole numbers, always."""
        weights = [arm.weight_basis_points for arm in self.controller.published]
        assert sum(weights) == FULL_WEIGHT
        assert all(weight == int(weight) and 0 <= weight <= FULL_WEIGHT for weight in weights)
        assert self.controller.published == arms(self.rollout)

    @invariant()
    def the_candidate_comes_first(self) -> None:
        """So that its range begins at 0 and nobody moves twice."""
        if self.rollout.active:
            assert [(arm.model, arm.number) for arm in self.controller.published] == [
                self.rollout.spec.candidate,
                self.rollout.stable,
            ]

    @invariant()
    def the_stable_version_is_kept(self) -> None:
        """Until the bake is over: nobody could switch back to what workers have let go."""
        stays = any((arm.model, arm.number) == self.rollout.stable for arm in self.controller.published)
        assert stays or (self.rollout.state is State.SUCCEEDED and not isinstance(self.rollout.spec.strategy, Shadow))

    @invariant()
    def traffic_is_where_the_state_says(self) -> None:
        """All of it on one version at an end; none on a candidate that goes back, prepares, or is only compared."""
        rollout, weight = self.rollout, self.rollout.weight_basis_points
        if rollout.acts_as in {State.PENDING, State.PREPARING, State.ROLLING_BACK, State.ROLLED_BACK, State.FAILED}:
            assert weight == 0
        if isinstance(rollout.spec.strategy, Shadow):
            assert weight == 0
        if rollout.state in ENDS:
            assert len(self.controller.published) == 1
            won = rollout.state is State.SUCCEEDED and not isinstance(rollout.spec.strategy, Shadow)
            wanted = rollout.spec.candidate if won else rollout.stable
            assert (self.controller.published[0].model, self.controller.published[0].number) == wanted

    @invariant()
    def nothing_is_left_behind(self) -> None:
        """Match rules, mirror, counting and brake go with the rollout."""
        if not self.rollout.active:
            assert directive(self.rollout) is None
            assert matches(self.rollout) == ()
        if self.rollout.state in {State.PENDING, State.PREPARING, State.ROLLING_BACK}:
            assert matches(self.rollout) == ()

    @invariant()
    def people_are_told(self) -> None:
        """Why, and what comes next; and each transition says who made it."""
        assert self.rollout.reason
        assert bool(next_words(self.rollout, self.controller.facts)) == self.rollout.active
        assert self.rollout.transitions[-1].state is self.rollout.state
        assert (self.rollout.end_time is not None) == (not self.rollout.active)
        assert all(each.principal in {OF_CONTROLLER, "gateway", "ann"} for each in self.rollout.transitions)


def seen(units: int, failing: float) -> Counts:
    """An arm that met so many newcomers, of whom so many failed."""
    events = {"INTERNAL": round(units * failing)} if failing else {}
    return Counts(units, units, events, {"scores": (units // 10,) * 10})


TestAnyRollout = AnyRollout.TestCase
TestAnyRollout.settings = settings(
    max_examples=LONG_STEPS // 50 or 300,
    stateful_step_count=STEPS_EACH,
    deadline=None,
    derandomize=not LONG_STEPS,
)
