"""A shadow while copies of requests go to the candidate: whether the comparison is complete. Pure."""

from __future__ import annotations

from inferway_registry.judge import Judgement
from inferway_registry.rollouts import judging, moves, words
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import Shadow


def step(rollout: Rollout, shadow: Shadow, facts: Facts, judgement: Judgement) -> Rollout:
    """The rollout as it goes on. It succeeds with the comparison, whatever that says: no traffic is ever moved."""
    seconds = rollout.seconds_in_state(facts.now)
    pairs, _ = judging.pairs_of(rollout, facts)
    if seconds >= shadow.hold_seconds and facts.gateways and pairs.pairs >= shadow.min_pairs:
        return rollout.to(State.SUCCEEDED, facts.now, words.compared(pairs, shadow.mirror, judgement))
    if seconds >= moves.patience(shadow.hold_seconds):
        return moves.give_up(rollout, facts, words.inconclusive(facts, judgement, seconds))
    return rollout
