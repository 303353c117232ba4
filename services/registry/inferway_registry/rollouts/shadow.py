"""A shadow while copies of requests go to the candidate: whether the comparison is complete. Pure."""

from __future__ import annotations

from inferway_registry.judge import Judgement, Verdict
from inferway_registry.rollouts import judging, moves, words
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import Shadow


def step(rollout: Rollout, shadow: Shadow, facts: Facts, judgement: Judgement) -> Rollout:
    """The rollout as it goes on. The comparison ends it: it fails with proof of harm or of too little agreement.

    No traffic is ever moved, so there is nothing to roll back.
    """
    seconds = rollout.seconds_in_state(facts.now)
    pairs, _ = judging.pairs_of(rollout, facts)
    if seconds >= shadow.hold_seconds and facts.gateways and pairs.pairs >= shadow.min_pairs:
        state, verdict = _verdict(judgement, judging.agreement_verdict(pairs, shadow.mirror))
        return rollout.to(state, facts.now, words.compared(verdict, pairs, shadow.mirror, judgement))
    if seconds >= moves.patience(shadow.hold_seconds):
        return moves.give_up(rollout, facts, words.inconclusive(facts, judgement, seconds))
    return rollout


def _verdict(judgement: Judgement, agreement: Verdict) -> tuple[State, str]:
    """How it ends, and why in a word: other programs look for what stands before the first full stop."""
    if judgement.verdict is Verdict.HARM:
        return State.FAILED, words.FAILS
    if agreement is Verdict.HARM:
        return State.FAILED, words.DIFFERS
    return State.SUCCEEDED, words.AGREES if agreement is Verdict.SAFE else words.UNDECIDED
