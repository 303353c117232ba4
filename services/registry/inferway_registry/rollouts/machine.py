"""What a rollout does next, from what is known: values in, values out, no clock and no IO.

    PENDING → PREPARING → RUNNING → PROMOTING → BAKING → SUCCEEDED
                  ↓           every state that is no end → ROLLING_BACK → ROLLED_BACK
               FAILED         PREPARING, RUNNING, BAKING ⇄ PAUSED

The controller asks as often as it likes, and repeats the question in the transaction that stores the answer. So it may
be stopped anywhere, and two of them do no harm: the same rollout and facts have the same answer. People's commands are
in `commands`; each strategy says in a module of its own how it goes on from RUNNING.
"""

from __future__ import annotations

from inferway_registry.judge import Judgement, Verdict
from inferway_registry.rollouts import blue_green, canary, judging, moves, preparing, shadow, words
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import OF_CONTROLLER, OF_GATEWAY, Rollout, State
from inferway_registry.rollouts.spec import BlueGreen, Canary, Shadow


def step(rollout: Rollout, facts: Facts) -> Rollout:
    """The rollout as it shall be; `rollout` itself if there is nothing to do. One transition at a time.

    Silence never gives the candidate more traffic and never takes it away, unless the spec says that nothing to say is
    a reason to roll back. A clock that jumps ends waiting early or late, but no step without its counts.
    """
    match rollout.acts_as:
        case State.PENDING:
            return rollout.to(State.PREPARING, facts.now, words.preparing(rollout))
        case State.PREPARING:
            return rollout if rollout.state is State.PAUSED else preparing.step(rollout, facts)
        case State.RUNNING | State.PROMOTING | State.BAKING:
            return _serving(rollout, facts)
        case State.ROLLING_BACK if moves.settled(rollout, facts):
            return rollout.to(State.ROLLED_BACK, facts.now, rollout.reason)
    return rollout


def _serving(rollout: Rollout, facts: Facts) -> Rollout:
    """From a state in which the candidate answers users or copies."""
    judgement = judging.judgement(rollout, facts)
    danger = _danger(rollout, facts, judgement)
    if danger:
        return moves.roll_back(rollout, facts.now, danger, OF_GATEWAY if facts.brake else OF_CONTROLLER)
    match rollout.state:
        case State.RUNNING:
            return _running(rollout, facts, judgement)
        case State.PROMOTING if moves.settled(rollout, facts):
            reason = words.baking(rollout, confirmed=moves.confirmed(rollout, facts))
            return rollout.to(State.BAKING, facts.now, reason)
        case State.BAKING:
            return _baking(rollout, facts, judgement)
    return rollout


def _danger(rollout: Rollout, facts: Facts, judgement: Judgement) -> str:
    """Why the candidate must go at once; empty if it need not. Nobody is harmed by what a shadow answers to copies."""
    if facts.brake:
        return words.brake(facts.brake)
    if not facts.published:
        return words.unloaded(rollout)
    if facts.load_failure and facts.everybody_had_time:
        return words.not_loaded(rollout, facts.load_failure)
    harmed = judgement.verdict is Verdict.HARM and not isinstance(rollout.spec.strategy, Shadow)
    return judgement.sentence if harmed else ""


def _running(rollout: Rollout, facts: Facts, judgement: Judgement) -> Rollout:
    match rollout.spec.strategy:
        case Canary() as strategy:
            return canary.step(rollout, strategy, facts, judgement)
        case BlueGreen() as strategy:
            return blue_green.step(rollout, strategy, facts, judgement)
        case Shadow() as strategy:
            return shadow.step(rollout, strategy, facts, judgement)


def _baking(rollout: Rollout, facts: Facts, judgement: Judgement) -> Rollout:
    """A bake ends by its time, if the candidate is served and somebody tells how: the stable version is let go then."""
    seconds, bake = rollout.seconds_in_state(facts.now), rollout.spec.bake_seconds
    if seconds >= bake and facts.served:
        return rollout.to(State.SUCCEEDED, facts.now, words.succeeded(rollout))
    if seconds >= moves.patience(bake):
        return moves.give_up(rollout, facts, words.inconclusive(facts, judgement, seconds))
    return rollout
