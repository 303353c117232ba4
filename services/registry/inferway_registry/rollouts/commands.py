"""What people do to a rollout: begin, pause, resume, promote, abort. Pure, like `machine`.

Each returns the rollout as it is then, `rollout` itself where it is so already. What its state does not permit raises
RolloutState; an abort is always permitted.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from inferway.errors import RolloutState
from inferway_registry.rollouts import moves, words
from inferway_registry.rollouts.rollout import Rollout, State, Thresholds
from inferway_registry.rollouts.spec import Canary, Shadow

_PAUSABLE = (State.PREPARING, State.RUNNING, State.BAKING)
_SOON = "It can be in some seconds, when it prepares or bakes; it can be aborted at any time."
_NOT_PAUSED = "It is not paused, and goes on by itself."
_NOT_LOADED = (
    "Its version is not loaded yet: promote it by one step to go on without a baseline, and all the way once it runs."
)
_NO_TRAFFIC = "A shadow moves no traffic: wait for its verdict, or abort it and begin a canary."
_OVER = {
    State.ROLLING_BACK: "It goes back: wait until it has ended, and retry it then.",
    State.ROLLED_BACK: "It has ended: retry it, or begin another one.",
    State.FAILED: "It has ended: retry it, or begin another one.",
    State.SUCCEEDED: "It has ended: begin another one.",
}


def begin(rollout: Rollout, principal: str) -> Rollout:
    """A rollout that was just made, with its first transition; the machine takes it on from there."""
    return rollout.to(State.PENDING, rollout.create_time, words.begun(rollout), principal)


def pause(rollout: Rollout, now: datetime, principal: str) -> Rollout:
    """Weights stay as they are; harm still rolls back."""
    if rollout.state is State.PAUSED:
        return rollout
    if rollout.state not in _PAUSABLE:
        raise _refused(rollout, "paused", _SOON)
    return rollout.to(State.PAUSED, now, "Paused by hand.", principal)


def resume(rollout: Rollout, now: datetime, principal: str) -> Rollout:
    """Goes on where it was paused; the time of its step begins anew."""
    if rollout.paused_from is None:
        raise _refused(rollout, "resumed", _NOT_PAUSED)
    return rollout.to(rollout.paused_from, now, "Resumed by hand.", principal)


def promote(rollout: Rollout, now: datetime, principal: str, *, full: bool = False) -> Rollout:
    """Goes on to the next step, or all the way, whatever the judge says. Ends a bake.

    While it prepares, it goes on without knowing how the stable version answers: by errors alone, as soon as workers
    have loaded the candidate.
    """
    match rollout.acts_as, rollout.spec.strategy:
        case State.PROMOTING, _:
            return rollout
        case ((State.PENDING | State.PREPARING), _) if not full:
            return _without_baseline(rollout, now, principal)
        case State.RUNNING, Canary() as canary if not full:
            return moves.advance(rollout, canary, now, words.BY_HAND, principal)
        case State.RUNNING, strategy if not isinstance(strategy, Shadow):
            return moves.promote(rollout, now, words.BY_HAND, principal)
        case State.BAKING, _:
            return rollout.to(State.SUCCEEDED, now, words.ended_by_hand(rollout), principal)
    raise _refused(rollout, "promoted", _NO_TRAFFIC if isinstance(rollout.spec.strategy, Shadow) else _NOT_LOADED)


def abort(rollout: Rollout, now: datetime, principal: str, reason: str = "") -> Rollout:
    """The stable version gets everything. Wins against everything; without effect once it goes back or has ended."""
    if not rollout.active or rollout.state is State.ROLLING_BACK:
        return rollout
    return moves.roll_back(rollout, now, f"Aborted: {reason}" if reason else "Aborted.", principal)


def supersede(rollout: Rollout, now: datetime, principal: str) -> Rollout:
    """Aborts it for another one that begins in the same transaction from the same stable version: it ends at once."""
    if not rollout.active:
        return rollout
    back = abort(rollout, now, principal, "another rollout was begun in its place.")
    return back.to(State.ROLLED_BACK, now, back.reason, principal)


def _without_baseline(rollout: Rollout, now: datetime, principal: str) -> Rollout:
    unwatched = replace(rollout, thresholds=Thresholds())
    return unwatched.to(State.PREPARING, now, words.not_watched(rollout), principal)


def _refused(rollout: Rollout, done: str, instead: str) -> RolloutState:
    """`instead` is what is to be done while it goes on."""
    state = rollout.state.name
    problem = f"{rollout.name} cannot be {done} while it is {state}. {_OVER.get(rollout.state, instead)}"
    return RolloutState(problem, rollout=rollout.name, state=state)
