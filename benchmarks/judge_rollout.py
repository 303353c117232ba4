"""One canary on a virtual clock: the registry's machine looks every second at what simulated gateways have counted.

The controller around it does what the registry's does: it stores what the machine returns, publishes weights under a
new generation, and has people who promote a step that pauses because too little was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from benchmarks.judge_traffic import BASELINE_SECONDS, Crowd, Effect, Series, Tape, Traffic, draw, profile, record
from inferway_registry.judge import Counts
from inferway_registry.resources import FULL_WEIGHT
from inferway_registry.rollouts import commands, machine
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import Canary, Judging, Spec, Step

MIN_UNITS = 10
"""Few, so that users who come again and again do not hold the ramp at its first step."""
_START = datetime(2026, 1, 1, tzinfo=UTC)
_LOADED = Facts(_START, needed_workers=2, ready_workers=2, holders=2, gateways=1)


@dataclass(frozen=True, slots=True)
class Driven:
    """What became of a rollout."""

    rolled_back: int | None
    """The second in which it went back, if it did."""
    mismatch: int | None
    """The second in which it paused for a wrong split."""
    tape: Tape
    """What was counted; from a rollback on, what would have been without it."""


def drive(traffic: Traffic, effect: Effect, weights: tuple[int, ...], seed: int, seconds: int) -> Driven:
    """One rollout with a canary of these weights, each for the same time."""
    crowd = draw(traffic, seconds, np.random.default_rng(seed))
    steps = tuple(Step(weight, seconds / len(weights)) for weight in weights)
    asked = Spec(("m", 2), Canary(steps), Judging(min_units=MIN_UNITS), baseline_seconds=BASELINE_SECONDS)
    return _Drive(crowd, effect, seconds, _begun(asked, crowd)).run()


def _begun(asked: Spec, crowd: Crowd) -> Rollout:
    """A rollout whose first step begins."""
    rollout = commands.begin(Rollout("m", 1, asked, ("m", 1), "salt", _START), "ann")
    rollout = machine.step(rollout, _LOADED)
    watched = replace(_LOADED, now=_START + timedelta(seconds=BASELINE_SECONDS), profile=profile(crowd))
    return machine.step(rollout, watched)


class _Drive:
    """One run. Second 0 is the first of the first step."""

    def __init__(self, crowd: Crowd, effect: Effect, seconds: int, rollout: Rollout) -> None:
        """Publishes the first weight."""
        assert rollout.thresholds is not None
        self._crowd, self._effect, self._thresholds = crowd, effect, rollout.thresholds
        self._rollout, self._generation = rollout, 0
        self._shares: Series = np.zeros(seconds)
        self._counts: dict[int, tuple[Counts, Counts]] = {}
        self._publish(0)

    def run(self) -> Driven:
        """Looks after each second, until it goes back or the time is over."""
        mismatch: int | None = None
        for second in range(len(self._shares)):
            state = self._look(second)
            if state is State.ROLLING_BACK:
                return Driven(second, mismatch, self._tape)
            if state is State.PAUSED and self._rollout.reason.startswith("srm:"):
                mismatch = second if mismatch is None else mismatch
            elif state is State.PAUSED:
                self._store(commands.promote(self._rollout, self._now(second), "ann"), second)
        return Driven(None, mismatch, self._tape)

    def _look(self, second: int) -> State:
        self._counts[self._generation] = self._phase[second - self._since]
        facts = replace(_LOADED, now=self._now(second), generation=self._generation, counts=self._counts)
        self._store(machine.step(self._rollout, facts), second)
        return self._rollout.state

    def _store(self, rollout: Rollout, second: int) -> None:
        moved = rollout.weight_basis_points != self._rollout.weight_basis_points
        self._rollout = rollout
        if moved and rollout.state is not State.ROLLING_BACK and second + 1 < len(self._shares):
            self._publish(second + 1)

    def _publish(self, second: int) -> None:
        """From that second on units are assigned, and counted, by the rollout's weight."""
        self._generation += 1
        self._rollout = self._rollout.published(self._generation)
        self._shares[second:] = self._rollout.weight_basis_points / FULL_WEIGHT
        self._tape = record(self._crowd, self._effect, self._shares, self._thresholds)
        self._since, self._phase = second, self._tape.between(second, len(self._shares))

    @staticmethod
    def _now(second: int) -> datetime:
        return _START + timedelta(seconds=BASELINE_SECONDS + second + 1)
