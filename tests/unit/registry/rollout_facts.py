"""Rollouts and facts for tests, and a controller that keeps both as the registry does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from inferway_registry.judge import Counts
from inferway_registry.resources import Arm
from inferway_registry.rollouts import commands, machine
from inferway_registry.rollouts.arms import arms
from inferway_registry.rollouts.facts import Facts, Pairs, Profile
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import BlueGreen, Canary, Mirror, Shadow, Spec, Step, Strategy

THEN = datetime(2026, 1, 1, tzinfo=UTC)
STABLE, CANDIDATE = ("digits", 1), ("digits", 2)
CANARY = Canary((Step(500, 60.0), Step(5000, 60.0)))
BLUE_GREEN = BlueGreen(Mirror(1000), min_pairs=100)
SHADOW = Shadow(Mirror(10_000), min_pairs=100, hold_seconds=60.0)
WATCHED = Profile({100: 900, 130: 80, 150: 20}, {"scores": tuple(number / 200 for number in range(200))})
"""Answers with a p95 of 5.7 ms, and outputs that are spread evenly."""
AT_FIRST = Facts(THEN, needed_workers=2, ready_workers=2, holders=2, gateways=1, profile=WATCHED)


def spec(strategy: Strategy = CANARY) -> Spec:
    """A short rollout."""
    return Spec(CANDIDATE, strategy, baseline_seconds=30.0, bake_seconds=300.0, prepare_seconds=600.0)


def fresh(asked: Spec) -> Rollout:
    """A rollout that was just begun."""
    return commands.begin(Rollout("digits", 1, asked, STABLE, "salt", THEN), "ann")


def met(units: int, **events: int) -> Counts:
    """An arm that met so many units, whose outputs are spread evenly over ten bins."""
    return Counts(units, units, events, {"scores": (units // 10,) * 10})


@dataclass
class Controller:
    """Does what the registry's controller does: looks, stores, publishes. The facts are the test's to set."""

    rollout: Rollout
    facts: Facts = AT_FIRST
    generation: int = 1
    published: tuple[Arm, ...] = ()

    def __post_init__(self) -> None:
        """Publishes the first arms."""
        self.store(self.rollout)

    def look(self, seconds: float = 1.0) -> State:
        """Steps once, so many seconds later."""
        self.facts = replace(self.facts, now=self.facts.now + timedelta(seconds=seconds))
        self.store(machine.step(self.rollout, self.facts))
        return self.rollout.state

    def store(self, rollout: Rollout) -> None:
        """Endpoint and rollout in one transaction."""
        wanted = arms(rollout)
        if wanted != self.published:
            self.generation += 1
            self.published = wanted
        self.rollout = rollout.published(self.generation) if rollout.active else rollout

    def know(self, **changes: Any) -> None:
        """Other facts."""
        self.facts = replace(self.facts, **changes)

    def confirm(self) -> None:
        """Every gateway routes by what was published."""
        self.know(generation=self.generation)

    def count(self, stable: Counts, candidate: Counts) -> None:
        """What both arms have met under the present weights."""
        self.know(counts={**self.facts.counts, self.generation: (stable, candidate)})

    def copied(self, of: tuple[str, int], pairs: Pairs) -> None:
        """Comparisons of copies that a version got."""
        self.know(mirrors={**self.facts.mirrors, of: pairs})

    @property
    def weight(self) -> int:
        """The candidate's, as published."""
        return sum(arm.weight_basis_points for arm in self.published if (arm.model, arm.number) == CANDIDATE)


def running(strategy: Strategy = CANARY) -> Controller:
    """A rollout that has just begun to run."""
    controller = Controller(fresh(spec(strategy)))
    controller.look()
    controller.look(30.0)
    controller.confirm()
    return controller


def baking(strategy: Strategy = BLUE_GREEN) -> Controller:
    """A rollout whose candidate has everything."""
    controller = running(strategy)
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann", full=True))
    controller.confirm()
    controller.look()
    return controller
