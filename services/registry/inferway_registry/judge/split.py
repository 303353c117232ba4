"""Evidence that units do not reach the arms in the shares that they were assigned (sample ratio mismatch)."""

from __future__ import annotations

from collections.abc import Iterable
from math import lgamma, log

PRIOR_UNITS = 50
"""How strongly the alternatives keep to the assigned share: as if so many units had been seen at it."""

Arrivals = tuple[float, int, int]
"""The canary's share, its units, and those of the stable arm."""


def log_e(arrivals: Iterable[Arrivals]) -> float:
    """The natural logarithm of the evidence (e-value) against "each unit is the canary's with probability `share`".

    For c units of n, with share p and q = 1 - p, the marginal likelihood of a Beta(50p, 50q) share over that of p:

        B(50p + c, 50q + n - c) / B(50p, 50q) / (p**c * q**(n - c))

    and the product over settings of the weights. Like the evidence of `ratio` it may be looked at any time.

    Source: M. Lindon, A. Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, section 3 (the
    Dirichlet-multinomial test of sample ratios), with two arms.
    """
    return sum(_of_one(*arrival) for arrival in arrivals if 0 < arrival[0] < 1)


def measured(arrivals: Arrivals) -> float:
    """The canary's share as units arrived: the mean of the Beta distribution above after them; the assigned if none."""
    share, canary, stable = arrivals
    return (PRIOR_UNITS * share + canary) / (PRIOR_UNITS + canary + stable)


def _of_one(share: float, canary: int, stable: int) -> float:
    one, other = PRIOR_UNITS * share, PRIOR_UNITS * (1 - share)
    marginal = _log_beta(one + canary, other + stable) - _log_beta(one, other)
    return marginal - canary * log(share) - stable * log(1 - share)


def _log_beta(one: float, other: float) -> float:
    return lgamma(one) + lgamma(other) - lgamma(one + other)
