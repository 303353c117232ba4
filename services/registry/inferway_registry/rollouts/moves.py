"""The moves from one state to another that several states, strategies and commands share. Pure."""

from __future__ import annotations

from datetime import datetime

from inferway_registry.resources import FULL_WEIGHT
from inferway_registry.rollouts import words
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import OF_CONTROLLER, Rollout, State
from inferway_registry.rollouts.spec import Canary, OnInconclusive

CONFIRM_SECONDS = 15.0
"""So long a change of weights waits for gateways that do not say that they route by it."""
STRETCH, LEAST_PATIENCE_SECONDS = 4, 60.0
"""So many times its own time a step may take if too little is seen, and so long in any case: users need time, too."""


def patience(seconds: float) -> float:
    """How long a step of so many seconds may take until nothing can be said of it."""
    return max(STRETCH * seconds, LEAST_PATIENCE_SECONDS)


def roll_back(rollout: Rollout, now: datetime, reason: str, principal: str = OF_CONTROLLER) -> Rollout:
    """The stable version gets everything again."""
    return rollout.to(State.ROLLING_BACK, now, reason, principal, weight=0)


def promote(rollout: Rollout, now: datetime, why: str, principal: str = OF_CONTROLLER) -> Rollout:
    """The candidate gets everything."""
    return rollout.to(State.PROMOTING, now, words.promoting(rollout, why), principal, weight=FULL_WEIGHT)


def advance(rollout: Rollout, canary: Canary, now: datetime, why: str, principal: str = OF_CONTROLLER) -> Rollout:
    """The step after this one; everything after the last one."""
    step = rollout.step + 1
    if step >= len(canary.steps):
        return promote(rollout, now, why, principal)
    reason = f"{words.running(rollout, step)} {why}"
    return rollout.to(State.RUNNING, now, reason, principal, step=step, weight=canary.steps[step].weight_basis_points)


def give_up(rollout: Rollout, facts: Facts, why: str) -> Rollout:
    """What was asked for if nothing can be said; not yet, if the registry itself was away."""
    if not facts.everybody_had_time:
        return rollout
    if rollout.spec.on_inconclusive is OnInconclusive.ROLL_BACK:
        return roll_back(rollout, facts.now, why)
    return rollout.to(State.PAUSED, facts.now, why)


def confirmed(rollout: Rollout, facts: Facts) -> bool:
    """Every gateway that reports routes by the weights in force."""
    if not rollout.phases or rollout.phases[-1][1] != rollout.weight_basis_points:
        return False
    return facts.gateways > 0 and facts.generation >= rollout.phases[-1][0]


def settled(rollout: Rollout, facts: Facts) -> bool:
    """No gateway is waited for any more: all have confirmed, or had time enough to."""
    return confirmed(rollout, facts) or rollout.seconds_in_state(facts.now) >= CONFIRM_SECONDS
