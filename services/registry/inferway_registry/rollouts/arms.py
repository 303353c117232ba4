"""What an endpoint's arms are while a rollout drives it, and when it has ended. Pure."""

from __future__ import annotations

from inferway import names
from inferway_registry.resources import FULL_WEIGHT, Arm
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import HeaderMatch, Shadow

_MATCHING = (State.RUNNING, State.PROMOTING, State.BAKING)


def arms(rollout: Rollout) -> tuple[Arm, ...]:
    """The arms of the endpoint; their weights always add up to 10,000.

    The candidate comes first: units are assigned to ranges in the order of arms, so its range begins at 0 and only its
    end moves, and nobody moves twice. An arm without weight keeps its version loaded. In the end there is one arm.
    """
    if not rollout.active:
        wins = rollout.state is State.SUCCEEDED and not isinstance(rollout.spec.strategy, Shadow)
        return (_arm(rollout, rollout.spec.candidate if wins else rollout.stable, FULL_WEIGHT),)
    weight = rollout.weight_basis_points
    return (_arm(rollout, rollout.spec.candidate, weight), _arm(rollout, rollout.stable, FULL_WEIGHT - weight))


def stable_arm(rollout: Rollout) -> str:
    """The name of the stable version's arm."""
    return _name(rollout, rollout.stable)


def candidate_arm(rollout: Rollout) -> str:
    """The name of the candidate's arm."""
    return _name(rollout, rollout.spec.candidate)


def takes_matches(rollout: Rollout) -> bool:
    """The candidate may get the calls of rules: it is loaded, and does not go back."""
    return rollout.acts_as in _MATCHING


def matches(rollout: Rollout) -> tuple[HeaderMatch, ...]:
    """The calls that get the candidate's arm whatever the weights: once it is ready, until it ends."""
    return rollout.spec.match if takes_matches(rollout) else ()


def _arm(rollout: Rollout, version: tuple[str, int], weight: int) -> Arm:
    return Arm(_name(rollout, version), *version, weight)


def _name(rollout: Rollout, version: tuple[str, int]) -> str:
    model, number = version
    own = f"v{number}"
    return own if model == rollout.endpoint else f"{model[: names.MAX_SEGMENT_CHARACTERS - len(own) - 1]}-{own}"
