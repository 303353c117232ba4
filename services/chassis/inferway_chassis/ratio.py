"""Evidence that an event is more, or less, than so many times as frequent on one arm as on the other.

An event met by units that are assigned at random is the canary's with probability

    theta(r) = share * r / (share * r + 1 - share)

where r is how many times as frequent it is there. That holds whatever the frequency itself does: traffic that swings
and outages of both arms cancel. So the arms of events, one after the other, are coin flips with a known probability if
r is known, and a wrong r is refuted by the likelihood ratio against another one.

Source: M. Lindon, A. Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022 (tests that stay valid
for rates that vary, of two Poisson processes conditioned on their sum); the mixture over alternatives is Wald's (1945).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import exp, log, log1p

ABOVE = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Alternatives to "at most r times as frequent": so many times r."""
BELOW = tuple(1 / factor for factor in ABOVE)
"""Alternatives to "at least r times as frequent"; the mirror image of ABOVE."""
NEAR_BELOW = (0.25, 0.5, 0.7, 0.8, 0.9)
"""The same where equal arms shall be told from a margin, which is near."""

Tally = tuple[float, int, int]
"""The canary's share, its events, and those of the stable arm."""


def log_e(tallies: Sequence[Tally], ratio: float, factors: tuple[float, ...]) -> float:
    """The natural logarithm of the evidence (e-value) against "the canary's ratio is at most `ratio`".

    For each alternative a = factor * ratio the likelihood ratio of c events on the canary and s on the stable arm is

        (theta(a) / theta(r))**c * ((1 - theta(a)) / (1 - theta(r)))**s  =  factor**c * (D(r) / D(a))**(c + s)

    with D(x) = 1 + share * (x - 1), and the evidence is the mean over the alternatives of the products over tallies.
    With factors below 1 it is evidence against "at least `ratio`". It is 1 at the beginning, and if the refuted
    statement is true it expects at most what it is (a test supermartingale): by Ville's inequality (1939) it ever
    reaches 1/alpha with probability at most alpha, however often one looks. It depends on sums alone, so the order
    of events and the gateways that counted them do not matter. Logarithms: counts up to 1e9 lose nothing that matters.
    """
    logs = [0.0] * len(factors)
    for share, canary, stable in tallies:
        if 0 < share < 1:
            steps, both = _steps(share, ratio, factors), canary + stable
            logs = [value + canary * gain - both * price for value, (gain, price) in zip(logs, steps, strict=True)]
    return log_mean(logs)


@lru_cache(maxsize=4096)
def _steps(share: float, ratio: float, factors: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """For each factor its logarithm, and log(D(factor * ratio) / D(ratio))."""
    start = 1 + share * (ratio - 1)
    return tuple((log(factor), log1p(share * ratio * (factor - 1) / start)) for factor in factors)


def log_either(tallies: Sequence[Tally], margin: float) -> float:
    """Evidence that the ratio is above `margin` or below 1/`margin`: the mean of both. Swapped arms give the same."""
    return log_mean((log_e(tallies, margin, ABOVE), log_e(tallies, 1 / margin, BELOW)))


def log_any(bins: Sequence[Sequence[Tally]], margin: float) -> float:
    """Evidence that not all of the bins keep within `margin`, up or down, of the same frequency on both arms.

    The mean over the bins, whatever they have to do with each other: one of K that shifts needs log K more than if one
    had known it beforehand (V. Vovk, R. Wang, "E-values: calibration, combination and applications", Annals of
    Statistics 2021: no symmetric way to merge evidence that may be dependent is better than the mean).
    """
    return log_mean([log_either(tallies, margin) for tallies in bins]) if bins else 0.0


def log_mean(logs: Sequence[float]) -> float:
    """The logarithm of the mean of what these are logarithms of."""
    most = max(logs)
    return most + log(sum([exp(value - most) for value in logs]) / len(logs))
