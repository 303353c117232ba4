"""How sure one is, at any time, of the share of pairs whose answers agree: a confidence sequence from two sums.

Against "a share m agrees" the evidence after k of n pairs is the likelihood ratio of a mixture over all shares,

    E(m) = B(k + 1/2, n - k + 1/2) / B(1/2, 1/2) / (m**k * (1 - m)**(n - k)),

a test martingale if m is true: a bet whose stakes the mixture learns. The shares that it does not refute, those with
E(m) < 1/alpha, contain the true one at all times together with probability 1 - alpha (Ville 1939).

Source: H. Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of Mathematical
Statistics 1970 (mixtures); I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting",
Journal of the Royal Statistical Society B 2024. The weights 1/2 are those of R. Krichevsky and V. Trofimov (1981).
"""

from __future__ import annotations

from collections.abc import Callable
from math import lgamma, log

ALPHA = 0.05
_HALVINGS = 40


def bounds(pairs: int, agreeing: int, alpha: float = ALPHA) -> tuple[float, float]:
    """A lower and an upper bound of the share that agrees; 0 and 1 if nothing was seen."""
    if not pairs:
        return 0.0, 1.0
    middle, enough = agreeing / pairs, -log(alpha)

    def refuted(share: float) -> bool:
        return log_e(pairs, agreeing, share) >= enough

    lower = _edge(0.0, middle, refuted) if agreeing else 0.0
    upper = _edge(1.0, middle, refuted) if agreeing < pairs else 1.0
    return lower, upper


def log_e(pairs: int, agreeing: int, share: float) -> float:
    """The natural logarithm of the evidence against "so large a share agrees"; `share` is between 0 and 1."""
    differing = pairs - agreeing
    mixture = _log_beta(agreeing + 0.5, differing + 0.5) - _log_beta(0.5, 0.5)
    return mixture - _times_log(agreeing, share) - _times_log(differing, 1 - share)


def _edge(outer: float, inner: float, refuted: Callable[[float], bool]) -> float:
    """Where refuted shares, on the side of `outer`, end. Rounded towards `outer`."""
    for _ in range(_HALVINGS):
        between = (outer + inner) / 2
        outer, inner = (between, inner) if refuted(between) else (outer, between)
    return outer


def _times_log(count: int, share: float) -> float:
    """`count * log(share)`, which is 0 for no count, whatever the share."""
    if not count:
        return 0.0
    return count * log(share) if share > 0 else float("-inf")


def _log_beta(one: float, other: float) -> float:
    return lgamma(one) + lgamma(other) - lgamma(one + other)
