"""A gateway's rollouts without a gateway."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, NamedTuple

from inferway.datatypes import Datatype
from inferway.errors import InferwayError
from inferway_gateway.envelope import Envelope
from inferway_gateway.lane import Flight
from inferway_gateway.rollouts.copier import Copier
from inferway_gateway.rollouts.mirror import Mirrors
from inferway_gateway.rollouts.plan import RolloutPlan
from inferway_gateway.rollouts.rollouts import Rollouts
from inferway_gateway.rollouts.tally import ArmTally, PhaseTally
from inferway_gateway.rollouts.trial import Trial
from inferway_gateway.routing import Arm, Decision, Endpoint, RoutingTable
from inferway_gateway.tensors import Answer, Tensor
from tests.unit.gateway.builders import FakeLoop, envelope, version

ROLLOUT = "endpoints/echo/rollouts/1"
PLAN = RolloutPlan(
    ROLLOUT, "v1", "v2", counts=True, p95_seconds=0.1, p99_seconds=0.2, edges={"y": (1.0, 2.0)}, brake_alpha=5e-5
)
WARM = 10.0
"""Seconds after the candidate's first request, from which on latency and outputs count."""


class Outputs(NamedTuple):
    """An answer of which nobody reads the timing."""

    outputs: list[Tensor]
    timing: Any = None


def answer(*scores: float) -> Answer:
    """Four scores of one row."""
    return Outputs([Tensor("y", Datatype.FP32, (1, 4), struct.pack("<4f", *scores))])


FINE = answer(0.0, 0.0, 1.0, 0.0)
"""Class 2 is on top: the last bin."""
BROKEN = answer(0.0, 0.0, float("nan"), 0.0)


def _nowhere(envelope: Envelope) -> Flight:
    raise AssertionError(envelope)  # the loop has no turns, so no copy is ever sent


class Bed:
    """Time, snapshots and answers come from the test."""

    def __init__(self, plan: RolloutPlan = PLAN, weight: int = 500) -> None:
        self.now = 1000.0
        self.braked: list[str] = []
        self.news = 0
        self.copier = Copier(FakeLoop(), lambda: self.now, _nowhere, lambda criticality: None)  # type: ignore[arg-type]
        versions = {each.name: each for each in (version(1), version(2))}
        self.away = set[str]()
        """Versions that are missing because their workers went away."""
        self.rollouts = Rollouts(
            self.braked.append,
            lambda salt: Mirrors(salt, versions.get, self.copier, self.away.__contains__),
            self.away.__contains__,
            random=lambda: 0.0,
        )
        self.rollouts.on_news = self._hear
        self.endpoint = self.apply(plan, weight, generation=1)

    def _hear(self) -> None:
        self.news += 1

    def apply(self, plan: RolloutPlan | None, weight: int, generation: int) -> Endpoint:
        """A snapshot comes."""
        arms = (Arm("v2", version(2).name, weight), Arm("v1", version(1).name, 10_000 - weight))
        self.endpoint = Endpoint("echo", arms, "salt", generation, rollout=plan)
        versions = {each.name: each for each in (version(1), version(2))}
        self.rollouts.apply(RoutingTable("epoch", generation, {"echo": self.endpoint}, versions, {}))
        return self.endpoint

    def ask(
        self,
        arm: str,
        outcome: Answer | InferwayError = FINE,
        *,
        unit: str = "",
        seconds: float = 0.01,
        decided_at: Endpoint | None = None,
    ) -> bool:
        """One request from beginning to end; returns whether anybody wanted to know."""
        observed = self.send(arm, unit, decided_at)
        if observed is None:
            return False
        request, observer = observed
        self.now += seconds
        observer.ended(request, outcome, self.now)
        return True

    def send(self, arm: str, unit: str = "", decided_at: Endpoint | None = None) -> tuple[Envelope, Any] | None:
        """Its beginning alone."""
        endpoint = decided_at or self.endpoint
        chosen = version(int(arm[1:])) if arm else version(1)
        request = replace(envelope(chosen), arm=arm, received_at=self.now)
        decision = Decision(chosen, arm, endpoint.generation, 500, unit, endpoint)
        observer = self.rollouts.observe(endpoint, decision, request)
        return None if observer is None else (request, observer)

    def warm_up(self) -> None:
        """The candidate gets its first request, and slow start passes."""
        self.ask("v2", unit="first")
        self.now += WARM

    @property
    def trial(self) -> Trial:
        """The only one."""
        (trial,) = self.rollouts.trials
        return trial

    @property
    def phase(self) -> PhaseTally:
        """The weights of now."""
        return self.trial.tally.phases[-1]

    @property
    def candidate(self) -> ArmTally:
        """What it met under them."""
        return self.phase.candidate

    @property
    def stable(self) -> ArmTally:
        """What it met under them."""
        return self.phase.stable
