"""Before anything moves: workers load the candidate, and gateways learn how the stable version answers. Pure."""

from __future__ import annotations

from dataclasses import replace

from inferway_registry.rollouts import thresholds, words
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import Canary


def step(rollout: Rollout, facts: Facts) -> Rollout:
    """The rollout as it goes on from PREPARING.

    It fails if the candidate cannot be loaded, which workers say, or not in time. That nobody says anything is no
    failure: it waits, and pauses.
    """
    if not facts.published:
        return rollout.to(State.FAILED, facts.now, words.unloaded(rollout))
    if facts.load_failure:
        return rollout.to(State.FAILED, facts.now, words.not_loaded(rollout, facts.load_failure))
    late = rollout.seconds_in_state(facts.now) >= patience(rollout) and facts.everybody_had_time
    if not loaded(rollout, facts):
        return _waited_for_workers(rollout, facts) if late else rollout
    if watched(rollout, facts):
        return _run(rollout, facts)
    return (
        rollout.to(State.PAUSED, facts.now, words.no_baseline(rollout, facts, thresholds.MIN_ANSWERS))
        if late
        else rollout
    )


def loaded(rollout: Rollout, facts: Facts) -> bool:
    """Whoever has the stable version has the candidate, too.

    If nobody has the stable version, who has the candidate is enough for somebody who decided to go on without it.
    """
    if facts.needed_workers:
        return facts.ready_workers >= facts.needed_workers
    return facts.holders > 0 and rollout.thresholds is not None


def watched(rollout: Rollout, facts: Facts) -> bool:
    """The stable version was watched for long enough, and answered; or somebody has decided to go on without."""
    if rollout.thresholds is not None:
        return True
    long_enough = rollout.seconds_in_state(facts.now) >= rollout.spec.baseline_seconds
    return long_enough and facts.profile.answers >= thresholds.MIN_ANSWERS


def patience(rollout: Rollout) -> float:
    """How many seconds it may take."""
    return max(rollout.spec.prepare_seconds, rollout.spec.baseline_seconds)


def _waited_for_workers(rollout: Rollout, facts: Facts) -> Rollout:
    if facts.needed_workers:
        return rollout.to(State.FAILED, facts.now, words.loaded_too_late(rollout, facts))
    return rollout.to(State.PAUSED, facts.now, words.no_workers(rollout))


def _run(rollout: Rollout, facts: Facts) -> Rollout:
    strategy = rollout.spec.strategy
    known = rollout.thresholds or thresholds.thresholds(facts.profile)
    weight = strategy.steps[0].weight_basis_points if isinstance(strategy, Canary) else 0
    reason = words.running(rollout, 0)
    return replace(rollout, thresholds=known).to(State.RUNNING, facts.now, reason, step=0, weight=weight)
