"""What was found, in plain English: one sentence each, with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from inferway_chassis.ratio import Tally
from inferway_registry.judge.plan import Drift, Rate

_PLAIN_ODDS = 1e6


def events(metric: Rate, tallies: Sequence[Tally], log_e: float, threshold: float) -> str:
    """On a metric that may be harmed."""
    if not any(canary or stable for _, canary, stable in tallies):
        return f"{metric.name}: none so far."
    harm = "harm" if metric.margin == 1 else f"more than {metric.margin:g} times as many as on the stable arm"
    return f"{metric.name}: {_had(tallies)}; evidence of {harm} is {odds(log_e)}, {odds(threshold)} would be enough."


def not_inferior(metric: Rate, tallies: Sequence[Tally], log_e: float, threshold: float) -> str:
    """On a metric that is proven to be well."""
    return (
        f"{metric.name}: {_had(tallies)}; evidence of fewer than {metric.not_inferior:g} times the stable arm's is "
        f"{odds(log_e)}, {odds(threshold)} was enough."
    )


def stable_fails(metric: Rate) -> str:
    """On a metric that both arms fail."""
    return (
        f"{metric.name}: more than {metric.most_stable_share:.0%} of the stable arm's units have them; no comparison."
    )


def shifted(metric: Drift, bin_number: int, tallies: Sequence[Tally], log_e: float, threshold: float) -> str:
    """On an output that differs between the arms."""
    return (
        f"{metric.name}: outputs differ between the arms, most in bin {bin_number}, where {_had(tallies)}; evidence "
        f"of a shift beyond {metric.margin:g} times is {odds(log_e)}, {odds(threshold)} was enough."
    )


def alike(metric: Drift, log_e: float, threshold: float) -> str:
    """On an output that seems the same on both arms."""
    return f"{metric.name}: evidence of a shift of outputs is {odds(log_e)}, {odds(threshold)} would be enough."


def few_outputs(metric: Drift, canary: int, needed: int) -> str:
    """On an output that cannot be compared yet."""
    return f"{metric.name}: {canary:,} outputs of the candidate were seen, {needed:,} are needed."


def split(arrivals: Sequence[Tally], log_e: float, threshold: float) -> str:
    """On how units were split."""
    return f"split: {_had(arrivals)}; evidence of a wrong split is {odds(log_e)}, {odds(threshold)} would be enough."


def units(canary: int, needed: int, *, silent: bool) -> str:
    """On how much was seen."""
    if silent:
        return "units: the stable arm has met nobody under these weights, so there is nothing to compare with."
    return f"units: the candidate has met {canary:,} of the {needed:,} units needed under these weights."


def _had(tallies: Sequence[Tally]) -> str:
    canary = sum(tally[1] for tally in tallies)
    total = sum(tally[1] + tally[2] for tally in tallies)
    expected = sum(share * (one + other) for share, one, other in tallies)
    return f"the candidate had {canary:,} of {total:,}, its share would be {expected:,.1f}"


def odds(log_e: float) -> str:
    """Evidence as odds; a power of ten where it is large."""
    if log_e > log(_PLAIN_ODDS):
        return f"10^{log_e / log(10):,.0f} to 1"
    odds = exp(log_e)
    return f"{odds:,.0f} to 1" if odds >= 10 else f"{odds:.2g} to 1"  # noqa: PLR2004 - two digits are enough
