"""What is asked for of a rollout, as immutable values. What each field means is said in `rollouts.proto`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class OnInconclusive(IntEnum):
    """What is done if nothing can be said; values equal those of the protocol."""

    PAUSE = 1
    ROLL_BACK = 2


class ExamplePolicy(IntEnum):
    """What is kept of single requests; values equal those of the protocol."""

    REDACTED = 1
    OUTPUTS = 2
    INPUTS_AND_OUTPUTS = 3


@dataclass(frozen=True, slots=True)
class Mirror:
    """How copies are taken and compared."""

    sample_basis_points: int
    absolute_tolerance: float = 1e-5
    relative_tolerance: float = 1e-3
    min_agreement: float = 0.98
    examples: ExamplePolicy = ExamplePolicy.OUTPUTS


@dataclass(frozen=True, slots=True)
class Step:
    """A share of the users, for a while."""

    weight_basis_points: int
    hold_seconds: float = 60.0


DEFAULT_STEPS = tuple(map(Step, (100, 500, 1000, 2500, 5000)))


@dataclass(frozen=True, slots=True)
class Canary:
    """A growing share of the users."""

    steps: tuple[Step, ...] = DEFAULT_STEPS


@dataclass(frozen=True, slots=True)
class BlueGreen:
    """All users at one moment."""

    mirror: Mirror = Mirror(1000)
    min_pairs: int = 300


@dataclass(frozen=True, slots=True)
class Shadow:
    """None of the users."""

    mirror: Mirror = Mirror(10_000)
    min_pairs: int = 1000
    hold_seconds: float = 60.0


Strategy = Canary | BlueGreen | Shadow


@dataclass(frozen=True, slots=True)
class Judging:
    """By what a candidate is judged."""

    alpha: float = 0.05
    min_units: int = 300
    error_margin: float = 1.0
    p95_margin: float = 1.25
    p99_margin: float = 1.5
    output_margin: float = 1.25
    """0 does not judge outputs."""
    errors_not_inferior: float | None = None


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A header of a call: its whole value, or how it begins."""

    header: str
    value: str
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """All of it. `candidate` is model and number."""

    candidate: tuple[str, int]
    strategy: Strategy = field(default_factory=Canary)
    judging: Judging = Judging()
    baseline_seconds: float = 30.0
    bake_seconds: float = 600.0
    prepare_seconds: float = 600.0
    match: tuple[HeaderMatch, ...] = ()
    on_inconclusive: OnInconclusive = OnInconclusive.PAUSE
    description: str = ""
