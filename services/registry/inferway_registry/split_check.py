"""Whether units reach the arms of an endpoint, and are answered, as weights say that somebody set by hand. Pure.

Units that come alone are nobody else's, so those of all gateways are one sample. Keys and streams may come to several
gateways, or to one that was started again, and get the same arm everywhere: added up, a few users would look like many
who agree. They are tested gateway by gateway, and the mean of that evidence counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import log, sqrt

from inferway_registry.judge import split
from inferway_registry.judge.plan import SPLIT_ALPHA
from inferway_registry.judge.wording import odds
from inferway_registry.resources import FULL_WEIGHT, Endpoint

THRESHOLD = -log(SPLIT_ALPHA)
"""What the natural logarithm of the evidence must reach: a sound split ever does with a chance of .001, for each kind
of mismatch."""
_ANEW = "Other weights, or another salt, begin the count anew."


class Mismatch(IntEnum):
    """What differs from the weights; values equal those of the protocol."""

    NONE = 1
    ASSIGNED = 2
    ANSWERED = 3


@dataclass(frozen=True, slots=True)
class ArmCount:
    """What came to an arm; see the protocol's `SplitArm`."""

    units: int = 0
    answered: int = 0
    keyed_units: int = 0
    keyed_answered: int = 0

    def __add__(self, other: ArmCount) -> ArmCount:
        """Both together."""
        return ArmCount(
            self.units + other.units,
            self.answered + other.answered,
            self.keyed_units + other.keyed_units,
            self.keyed_answered + other.keyed_answered,
        )


Counts = Mapping[str, ArmCount]
"""Of all arms with weight, by name: what one gateway has counted."""


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """What came to the arms, and whether that is as assigned."""

    arms: Counts
    """Of all gateways, in the endpoint's order."""
    mismatch: Mismatch
    log_e: float
    """Natural logarithm of the evidence of the mismatch; if there is none, of the more likely one."""
    explanation: str


def weights(endpoint: Endpoint) -> dict[str, int]:
    """The weight of each arm that has one."""
    return {arm.arm: arm.weight_basis_points for arm in endpoint.arms if arm.weight_basis_points}


def is_split(endpoint: Endpoint) -> bool:
    """Whether chance decides, and no rollout tests that."""
    return endpoint.rollout is None and len(weights(endpoint)) > 1


def check(endpoint: Endpoint, reports: Iterable[Counts]) -> SplitCheck:
    """Whether `reports`, one of each gateway, are as an endpoint that `is_split` assigns."""
    shares = {arm: weight / FULL_WEIGHT for arm, weight in weights(endpoint).items()}
    given = list(reports)
    arms = {arm: sum((counts[arm] for counts in given), ArmCount()) for arm in shares}
    assigned = _log_e(shares, given, lambda arm: (arm.units - arm.keyed_units, arm.keyed_units))
    answered = _log_e(shares, given, lambda arm: (arm.answered - arm.keyed_answered, arm.keyed_answered))
    units, answers = {arm: each.units for arm, each in arms.items()}, {arm: each.answered for arm, each in arms.items()}
    if assigned >= THRESHOLD:
        return SplitCheck(arms, Mismatch.ASSIGNED, assigned, _assigned(shares, units, assigned))
    if answered >= THRESHOLD:
        return SplitCheck(arms, Mismatch.ANSWERED, answered, _answered(shares, answers, answered))
    return SplitCheck(arms, Mismatch.NONE, max(assigned, answered), _none(shares, units, max(assigned, answered)))


def _log_e(
    shares: Mapping[str, float], reports: Sequence[Counts], kinds: Callable[[ArmCount], tuple[int, int]]
) -> float:
    """`kinds` says how many units of an arm came alone, and how many did not.

    The two are independent, so their evidence multiplies.
    """
    found = [{arm: kinds(counts[arm]) for arm in shares} for counts in reports]
    alone = [(share, sum(counts[arm][0] for counts in found)) for arm, share in shares.items()]
    keyed = [split.log_e([[(share, counts[arm][1]) for arm, share in shares.items()]]) for counts in found]
    return split.log_e([alone]) + (split.log_mean(keyed) if keyed else 0.0)


def _none(shares: Mapping[str, float], units: Mapping[str, int], log_e: float) -> str:
    if not any(units.values()):
        return "As assigned: nobody came by chance yet."
    worst = max(shares, key=lambda arm: abs(_deviation(shares, units, arm)))
    return f"As assigned: {_had(shares, units, worst, 'units')}; {_evidence(log_e)}."


def _assigned(shares: Mapping[str, float], units: Mapping[str, int], log_e: float) -> str:
    worst = max(shares, key=lambda arm: abs(_deviation(shares, units, arm)))
    return (
        f"srm: units do not reach the arms as assigned. {_had(shares, units, worst, 'units')}; {_evidence(log_e)}. "
        "What these arms met cannot be compared: look for an arm that refuses what it is sent, and for callers who "
        f"choose by arm whom to send. {_ANEW}"
    )


def _answered(shares: Mapping[str, float], answers: Mapping[str, int], log_e: float) -> str:
    worst = min(shares, key=lambda arm: _deviation(shares, answers, arm))
    return (
        f"srm: units reach the arms as assigned, but {worst} leaves more of them without an answer than others. "
        f"{_had(shares, answers, worst, 'answered units')}; {_evidence(log_e)}. Those that are left survived it, and "
        f"cannot be compared: look for what fails on {worst}. {_ANEW}"
    )


def _deviation(shares: Mapping[str, float], units: Mapping[str, int], arm: str) -> float:
    """How far an arm is from its share, in standard deviations."""
    share, total = shares[arm], sum(units.values())
    return (units[arm] - share * total) / sqrt(max(1, total) * share * (1 - share))


def _had(shares: Mapping[str, float], units: Mapping[str, int], arm: str, what: str) -> str:
    total = sum(units.values())
    return f"{arm} had {units[arm]:,} of {total:,} {what}, its share would be {shares[arm] * total:,.1f}"


def _evidence(log_e: float) -> str:
    return f"evidence of a wrong split is {odds(log_e)}, {odds(THRESHOLD)} would be enough"
