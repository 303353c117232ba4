"""The brake: when a gateway alone stops a candidate, by the errors that it has counted itself. Pure.

Two rules, either of which is enough. The evidence that the candidate has more errors than the stable version, which
may be asked at any time and then cries wolf with probability `alpha` at most. And a plain one for what everybody would
call broken: half of the candidate's units fail, and hardly any of the stable version's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from inferway_chassis import ratio
from inferway_gateway.rollouts.tally import ArmTally, PhaseTally

LEAST_UNITS = 20
BROKEN_SHARE = 0.5
TIMES_STABLE = 10.0


def why_stop(phases: Sequence[PhaseTally], alpha: float) -> str:
    """Why the candidate shall get nothing, in plain words; empty if it may go on. `phases` are first to last."""
    return _by_evidence(phases, alpha) or _by_share(phases)


def _by_evidence(phases: Sequence[PhaseTally], alpha: float) -> str:
    tallies = [(each.share, each.candidate.errors_of_units, each.stable.errors_of_units) for each in phases]
    evidence, threshold = ratio.log_e(tallies, 1.0, ratio.ABOVE), -log(alpha)
    if evidence < threshold:
        return ""
    canary, stable = (sum(tally[arm] for tally in tallies) for arm in (1, 2))
    expected = sum(share * (one + other) for share, one, other in tallies)
    odds = f"{exp(min(evidence, 30.0)):,.0f}"
    return (
        f"errors: the candidate had {canary:,} of {canary + stable:,}, its share would be {expected:,.1f}; evidence of "
        f"harm is {odds} to 1, {exp(threshold):,.0f} to 1 was enough"
    )


def _by_share(phases: Sequence[PhaseTally]) -> str:
    candidate, stable = phases[-1].candidate, _latest_stable(phases)
    if candidate.units < LEAST_UNITS or stable is None:
        return ""
    failing, usual = (arm.errors_of_units / arm.units for arm in (candidate, stable))
    if failing < BROKEN_SHARE or failing < TIMES_STABLE * usual:
        return ""
    return (
        f"errors: {candidate.errors_of_units:,} of {candidate.units:,} units of the candidate failed, and "
        f"{stable.errors_of_units:,} of {stable.units:,} of the stable version"
    )


def _latest_stable(phases: Sequence[PhaseTally]) -> ArmTally | None:
    """What the stable version met when it last met enough: after a switch, before it."""
    return next((each.stable for each in reversed(phases) if each.stable.units >= LEAST_UNITS), None)
