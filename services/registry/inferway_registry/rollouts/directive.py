"""What gateways do for a rollout: counting, learning, copying, braking. Mirrors `RolloutDirective`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferway import names
from inferway_registry.rollouts.arms import candidate_arm, stable_arm
from inferway_registry.rollouts.rollout import Rollout, State, Thresholds
from inferway_registry.rollouts.spec import Canary, Mirror, Shadow

BRAKE_SHARE = 0.001
"""Of the rollout's alpha: the chance at which one gateway alone stops a candidate that does no harm. Gateways add up: a
hundred of them have a tenth together. At a tenth each, twenty stopped 5 to 7 % of candidates that were no worse; a
thousandth costs two failures more of one that always fails."""
_LEARNING = (State.PENDING, State.PREPARING)
_SWITCHED = (State.PROMOTING, State.BAKING)


@dataclass(frozen=True, slots=True)
class MirrorDirective:
    """Copies to be made."""

    version: str
    """Gets them; `models/{model}/versions/{version}`."""
    mirror: Mirror


@dataclass(frozen=True, slots=True)
class Directive:
    """See `RolloutDirective`."""

    rollout: str
    stable_arm: str
    candidate_arm: str
    counts: bool
    profiles: bool
    p95_us: int = 0
    p99_us: int = 0
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    brake_alpha: float = 0.0
    mirror: MirrorDirective | None = None


def directive(rollout: Rollout) -> Directive | None:
    """What gateways do for `rollout`; None if it has ended.

    Nothing is counted before the candidate may get traffic: units that were met before would be no newcomers, and
    events that they had before would not count again.
    """
    if not rollout.active:
        return None
    learning = rollout.acts_as in _LEARNING
    thresholds = rollout.thresholds or Thresholds()
    return Directive(
        rollout.name,
        stable_arm(rollout),
        candidate_arm(rollout),
        counts=not learning,
        profiles=learning,
        p95_us=thresholds.p95_us,
        p99_us=thresholds.p99_us,
        edges=thresholds.edges,
        brake_alpha=0.0 if learning else _brake_alpha(rollout),
        mirror=_mirror(rollout),
    )


def _brake_alpha(rollout: Rollout) -> float:
    if isinstance(rollout.spec.strategy, Shadow):
        return 0.0
    return rollout.spec.judging.alpha * BRAKE_SHARE


def _mirror(rollout: Rollout) -> MirrorDirective | None:
    """Copies go to the version that users do not get."""
    strategy = rollout.spec.strategy
    if isinstance(strategy, Canary):
        return None
    if rollout.acts_as is State.RUNNING:
        return MirrorDirective(names.version_name(*rollout.spec.candidate), strategy.mirror)
    if rollout.acts_as in _SWITCHED:
        return MirrorDirective(names.version_name(*rollout.stable), strategy.mirror)
    return None
