"""A canary while it runs: whether its step is over, and what comes after. Pure."""

from __future__ import annotations

from inferway_registry.judge import Judgement, Verdict
from inferway_registry.rollouts import moves, words
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import Canary

_FINE, _PROVEN = (Verdict.CONTINUE, Verdict.SAFE), (Verdict.SAFE,)


def step(rollout: Rollout, canary: Canary, facts: Facts, judgement: Judgement) -> Rollout:
    """The rollout as it goes on from a step that does no harm.

    A step is over when it was held, the candidate is served, and the judge has seen enough and found nothing. If that
    does not come in four times its time, or a minute if that is longer, nothing can be said.
    """
    if judgement.verdict is Verdict.MISMATCH:
        return rollout.to(State.PAUSED, facts.now, words.mismatch(judgement))
    seconds, hold = rollout.seconds_in_state(facts.now), canary.steps[rollout.step].hold_seconds
    if seconds >= hold and facts.served and judgement.verdict in (_PROVEN if asks_proof(rollout, canary) else _FINE):
        return moves.advance(rollout, canary, facts.now, words.step_before(judgement))
    if seconds >= moves.patience(hold):
        return moves.give_up(rollout, facts, words.inconclusive(facts, judgement, seconds))
    return rollout


def asks_proof(rollout: Rollout, canary: Canary) -> bool:
    """The last step ends only when errors are proven not to be more frequent than was asked for."""
    return rollout.spec.judging.errors_not_inferior is not None and rollout.step + 1 == len(canary.steps)
