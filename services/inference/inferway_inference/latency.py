"""Learns how long a batch takes: latency by rows, one pair of curves for each signature and shape. Pure.

A curve has a knot at each power of two that batches came near, and is straight between knots. A batch corrects the two
knots around it, each by its weight, by a part of how far the batch was from what the curve said; how far counts only up
to three times what is usual (winsorised), so that a stall of the machine moves little and a machine that became slower
is believed within a dozen batches. Latency never falls with rows: of knots that contradict one another those with more
samples stand, up to as many as make a knot certain, and the others give way. A new knot begins where the curve says, or
between there and what its rows would take in batches of a size that is known: one batch cannot bend the whole curve.

Batches that compute beside others are learned apart from those that compute alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_CURVES = 64
"""Signatures and shapes of which something is known; the one longest unused is forgotten."""
LEAST_WEIGHT = 0.1
"""Of a new batch against what was known, once much is known."""
USUAL = (0.1, 0.25)
"""Least and first deviation that counts as usual."""
WINSOR = 3.0
"""Deviations beyond so many times the usual one count as that many."""
LATE_QUANTILE = 0.98
"""Of the batches are to take at most `caution` times as long as expected."""
CERTAIN_SAMPLES = round(1 / LEAST_WEIGHT)
"""More make a knot no more certain."""
MOST_BESIDE = 4.0
"""Beside others a batch is first thought to take at most so many times as long as alone, or alone as beside others."""
CAUTION_STEP = 0.02
CAUTION_LIMITS = (1.0, 2.0)

CurveKey = tuple[str, tuple[tuple[int, ...], ...]]
"""Name of the signature, and the trailing dimensions of each input."""


def curve_key(signature: str, shapes: Sequence[tuple[int, ...]]) -> CurveKey:
    """Of the curves of a signature whose inputs have these shapes; their first dimension counts rows."""
    return signature, tuple([shape[1:] for shape in shapes])


@dataclass(frozen=True, slots=True)
class Speed:
    """What was learned, in short. Zeros until the first sample."""

    rows_per_second: float = 0.0
    """At the best batch size, all callers together."""
    fixed_us: float = 0.0
    row_us: float = 0.0


@dataclass(slots=True)
class Knot:
    """One point of a curve."""

    rows: int
    seconds: float
    samples: int = 0
    """Batches near it that were seen."""


class Curve:
    """Latency by rows. Not a guess: empty until the first batch."""

    __slots__ = ("_sizes", "_usual", "knots")

    def __init__(self) -> None:
        """Nothing is known."""
        self.knots: list[Knot] = []
        self._sizes: list[int] = []
        """Their rows."""
        self._usual = USUAL[1]

    def observe(self, rows: int, seconds: float) -> None:
        """Adds one batch."""
        knot = self._knot_near(rows, seconds)
        expected = self.seconds(rows) or seconds
        away = math.log(max(seconds, 1e-7) / expected)
        bound = WINSOR * self._usual
        self._usual = max(USUAL[0], self._usual + (min(abs(away), bound) - self._usual) * LEAST_WEIGHT)
        self._correct(rows, max(-bound, min(bound, away)))
        knot.samples += 1

    def seconds(self, rows: int) -> float | None:
        """Expected duration of a batch of `rows`; None before the first."""
        knots = self.knots
        if not knots:
            return None
        above = bisect_left(self._sizes, rows)
        if above == len(knots):
            return knots[-1].seconds + (rows - knots[-1].rows) * self._slope_beyond()
        upper = knots[above]
        if upper.rows == rows or above == 0:
            return upper.seconds
        lower = knots[above - 1]
        return lower.seconds + (upper.seconds - lower.seconds) * (rows - lower.rows) / (upper.rows - lower.rows)

    def rows_within(self, seconds: float) -> float:
        """The most rows that are expected to take at most `seconds`; 0.0 if not one, infinite if nothing is known."""
        knots = self.knots
        if not knots:
            return math.inf
        above = bisect_left(knots, seconds, key=_seconds)
        while above < len(knots) and knots[above].seconds <= seconds:
            above += 1
        if above == 0:
            return 0.0
        lower = knots[above - 1]
        if above == len(knots):
            return lower.rows + (seconds - lower.seconds) / max(self._slope_beyond(), 1e-15)
        upper = knots[above]
        share = (seconds - lower.seconds) / (upper.seconds - lower.seconds)
        return lower.rows + share * (upper.rows - lower.rows)

    def begin_as(self, other: Curve, factor: float) -> None:
        """A first idea: like another curve but slower or faster; counts as not seen."""
        self.knots = [Knot(knot.rows, knot.seconds * factor) for knot in other.knots]
        self._sizes = [knot.rows for knot in self.knots]

    def _slope_beyond(self) -> float:
        """Seconds for each row more than was seen; from one size alone nothing follows, so that others are tried."""
        last = self.knots[-1]
        if len(self.knots) == 1:
            return 0.0
        before = self.knots[-2]
        return (last.seconds - before.seconds) / (last.rows - before.rows)

    def _knot_near(self, rows: int, seconds: float) -> Knot:
        size = 1 << ((2 * rows * rows).bit_length() - 1) // 2  # 2 ** round(log2(rows))
        place = bisect_left(self._sizes, size)
        if place < len(self.knots) and self.knots[place].rows == size:
            return self.knots[place]
        known, here = self.seconds(size), self.seconds(rows)
        ratio = known / here if known and here else size / rows
        least, most = self._plausible(place, size)
        knot = Knot(size, min(max(seconds * ratio, least), most))
        self.knots.insert(place, knot)
        self._sizes.insert(place, size)
        return knot

    def _plausible(self, place: int, size: int) -> tuple[float, float]:
        """Least and most seconds of a new knot at `place`: more rows take longer, but at most in proportion."""
        lower = self.knots[place - 1] if place else None
        upper = self.knots[place] if place < len(self.knots) else None
        if upper is not None:
            least = lower.seconds if lower is not None else upper.seconds * size / upper.rows
            return least, upper.seconds
        return (0.0, math.inf) if lower is None else (lower.seconds, lower.seconds * size / lower.rows)

    def _correct(self, rows: int, away: float) -> None:
        above = bisect_left(self._sizes, rows)
        if above == len(self.knots) or above == 0 or self.knots[above].rows == rows:
            self._move(min(above, len(self.knots) - 1), away)
            return
        lower, upper = self.knots[above - 1].rows, self.knots[above].rows
        share = (rows - lower) / (upper - lower)
        self._move(above - 1, away * (1 - share))
        self._move(above, away * share)

    def _move(self, place: int, away: float) -> None:
        knot = self.knots[place]
        knot.seconds *= math.exp(away * max(LEAST_WEIGHT, 1 / (knot.samples + 1)))
        self._keep_rising(place)

    def _keep_rising(self, place: int) -> None:
        """The knot at `place` was moved: it stops at those with more samples, and pushes the others."""
        knot, above, below = self.knots[place], self.knots[place + 1 :], self.knots[:place]
        if (not below or below[-1].seconds <= knot.seconds) and (not above or knot.seconds <= above[0].seconds):
            return
        if knot.samples < CERTAIN_SAMPLES:
            knot.seconds = min([knot.seconds, *[other.seconds for other in above if other.samples > knot.samples]])
            knot.seconds = max([knot.seconds, *[other.seconds for other in below if other.samples > knot.samples]])
        for other in above:
            other.seconds = max(other.seconds, knot.seconds)
        for other in below:
            other.seconds = min(other.seconds, knot.seconds)


class Latency:
    """Of one signature and shape: alone, and beside other batches."""

    __slots__ = ("alone", "caution", "crowded", "seen_at")

    def __init__(self) -> None:
        """Nothing is known."""
        self.alone, self.crowded = Curve(), Curve()
        self.caution = 1.1
        """What a deadline is compared with is the expected duration times this."""
        self.seen_at = -math.inf
        """When a batch of a caller was last seen; what is old refuses nobody."""

    def observe(self, rows: int, seconds: float, *, crowded: bool = False) -> None:
        """Adds one batch."""
        own, other = (self.crowded, self.alone) if crowded else (self.alone, self.crowded)
        expected = own.seconds(rows)
        if expected is None:
            self._begin(own, other, rows, seconds)
        else:
            late = seconds > expected * self.caution
            step = CAUTION_STEP * (LATE_QUANTILE if late else LATE_QUANTILE - 1)
            self.caution = min(max(self.caution + step, CAUTION_LIMITS[0]), CAUTION_LIMITS[1])
        own.observe(rows, seconds)

    def seconds(self, rows: int, *, crowded: bool = False) -> float | None:
        """Expected duration of a batch of `rows`; None before the first of any size."""
        return self.curve(crowded=crowded).seconds(rows)

    def curve(self, *, crowded: bool) -> Curve:
        """The curve that tells most of batches beside others, or of batches alone."""
        own, other = (self.crowded, self.alone) if crowded else (self.alone, self.crowded)
        return own if own.knots else other

    @staticmethod
    def _begin(own: Curve, other: Curve, rows: int, seconds: float) -> None:
        """The shape of the other curve is the best that is known of this one."""
        expected = other.seconds(rows)
        if expected:
            own.begin_as(other, min(max(seconds / expected, 1 / MOST_BESIDE), MOST_BESIDE))


class LatencyModel:
    """Of one version: bounded in signatures and shapes."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._known: dict[CurveKey, Latency] = {}

    def of(self, key: CurveKey) -> Latency:
        """What is known of a signature and shape, which may be nothing."""
        found = self._known.pop(key, None) or Latency()
        self._known[key] = found
        if len(self._known) > MAX_CURVES:
            del self._known[next(iter(self._known))]
        return found

    def observe(self, key: CurveKey, rows: int, seconds: float, *, crowded: bool = False) -> None:
        """Adds one batch, as warm-up does."""
        self.of(key).observe(rows, seconds, crowded=crowded)

    def __iter__(self) -> Iterator[tuple[CurveKey, Latency]]:
        """Everything known, the longest unused first."""
        return iter(self._known.items())


def _seconds(knot: Knot) -> float:
    return knot.seconds
