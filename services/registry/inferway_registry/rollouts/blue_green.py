"""Blue/green while copies of requests go to the candidate: whether to switch. Pure."""

from __future__ import annotations

from inferway_registry.judge import Judgement, Verdict
from inferway_registry.rollouts import judging, moves, words
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import BlueGreen


def step(rollout: Rollout, blue_green: BlueGreen, facts: Facts, judgement: Judgement) -> Rollout:
    """The rollout as it goes on while the candidate's copies do no harm.

    All users are switched at once when enough pairs were compared and it is not refuted that enough of them agree. If
    it is refuted, a person decides: the candidate may answer otherwise on purpose.
    """
    if judgement.verdict is Verdict.CONTINUE and facts.served:
        pairs, _ = judging.pairs_of(rollout, facts)
        if judging.agreement_verdict(pairs, blue_green.mirror) is Verdict.HARM:
            return rollout.to(State.PAUSED, facts.now, words.disagreement(rollout, pairs, blue_green.mirror))
        return moves.promote(rollout, facts.now, judgement.sentence)
    seconds = rollout.seconds_in_state(facts.now)
    if seconds >= rollout.spec.prepare_seconds:
        return moves.give_up(rollout, facts, words.inconclusive(facts, judgement, seconds))
    return rollout
