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


def begin(rollout: Rollout, principal: str) -> Rollout:
    """A rollout that was just made, with its first transition; the machine takes it on from there."""
    return rollout.to(State.PENDING, rollout.create_time, words.begun(rollout), principal)


def pause(rollout: Rollout, now: datetime, principal: str) -> Rollout:
    """Weights stay as they are; harm still rolls back."""
    if rollout.state is State.PAUSED:
        return rollout
    if rollout.state not in _PAUSABLE:
        raise _refused(rollout, "paused")
    return rollout.to(State.PAUSED, now, "Paused by hand.", principal)


def resume(rollout: Rollout, now: datetime, principal: str) -> Rollout:
    """Goes on where it was paused; the time of its step begins anew."""
    if rollout.paused_from is None:
        raise _refused(rollout, "resumed")
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
    raise _refused(rollout, "promoted")


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


def _refused(rollout: Rollout, done: str) -> RolloutState:
    why = "it has ended" if not rollout.active else f"it is {rollout.state.name}"
    return RolloutState(f"{rollout.name} cannot be {done}: {why}", rollout=rollout.name, state=rollout.state.name)
