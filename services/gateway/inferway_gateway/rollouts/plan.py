"""What a routing snapshot says of the rollout that drives an endpoint, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class Sides(NamedTuple):
    """The versions of a rollout, by name, whichever of them users get."""

    stable: str
    candidate: str


class ExamplePolicy(IntEnum):
    """What is kept of the pairs that differ most; values equal those of the protocol."""

    REDACTED = 1
    OUTPUTS = 2
    INPUTS_AND_OUTPUTS = 3


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """Copies to be made, and how their answers are compared."""

    version: str
    """Gets the copies, `models/{model}/versions/{version}`; requests that it answers itself are not copied."""
    sample_basis_points: int
    absolute_tolerance: float
    relative_tolerance: float
    examples: ExamplePolicy = ExamplePolicy.OUTPUTS


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """See `RolloutDirective`."""

    rollout: str
    """`endpoints/{endpoint}/rollouts/{rollout}`."""
    stable_arm: str
    candidate_arm: str
    counts: bool = False
    profiles: bool = False
    p95_seconds: float = 0.0
    """0: not known."""
    p99_seconds: float = 0.0
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Between the bins of each output; an edge belongs to the bin above it."""
    brake_alpha: float = 0.0
    """0: there is no brake."""
    mirror: MirrorPlan | None = None
