"""Evidence that units do not reach the arms in the shares that they were assigned (sample ratio mismatch)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, lgamma, log

PRIOR_UNITS = 50
"""How strongly the alternatives keep to the assigned shares: as if so many units had been seen at them."""

Arrivals = Sequence[tuple[float, int]]
"""Of each arm its share, all of which add up to 1, and its units."""


def log_e(settings: Iterable[Arrivals]) -> float:
    """The natural logarithm of the evidence (e-value) against "each unit is an arm's with the chance of its share".

    For n_i units of arm i with share p_i, n in all, it is the marginal likelihood of shares that are drawn from a
    Dirichlet(50p) distribution, over that of p:

        G(50) / G(50 + n) * prod(G(50p_i + n_i) / G(50p_i) / p_i ** n_i), with the gamma function G

    and the product over settings of the weights; a setting that leaves one arm everything says nothing. Like the
    evidence of `ratio` it may be looked at any time.

    Source: M. Lindon, A. Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, section 3 (the
    Dirichlet-multinomial test of sample ratios).
    """
    return sum(_of_one(arrivals) for arrivals in settings if all(0 < share < 1 for share, _ in arrivals))


def log_mean(logs: Sequence[float]) -> float:
    """The natural logarithm of the mean of what these, at least one, are logarithms of.

    It is evidence again, whatever those that it is made of have in common: they may be about the same units.

    Source: V. Vovk, R. Wang, "E-values: calibration, combination and applications", Annals of Statistics 2021,
    section 3.
    """
    most = max(logs)
    return most + log(sum(exp(each - most) for each in logs) / len(logs))


def measured(arrivals: Arrivals) -> list[float]:
    """The shares as units arrived: the mean of the Dirichlet distribution above after them; the assigned if none."""
    units = sum(units for _, units in arrivals)
    return [(PRIOR_UNITS * share + own) / (PRIOR_UNITS + units) for share, own in arrivals]


def _of_one(arrivals: Arrivals) -> float:
    found, total = lgamma(PRIOR_UNITS), 0
    for share, units in arrivals:
        prior = PRIOR_UNITS * share
        found += lgamma(prior + units) - lgamma(prior) - units * log(share)
        total += units
    return found - lgamma(PRIOR_UNITS + total)
