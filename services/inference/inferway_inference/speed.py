"""Learns how long a batch takes: `fixed + row * rows`, by least squares that forgets.

Every batch is a sample; older ones lose weight by `DECAY` with each new one (recursive least squares in the form of
decayed sums), so the model follows a machine whose load changes.
"""

from __future__ import annotations

from dataclasses import dataclass

DECAY = 0.98


@dataclass(frozen=True, slots=True)
class Speed:
    """What was learned. Zeros until the first sample."""

    rows_per_second: float = 0.0
    """At the largest batch seen."""
    fixed_us: float = 0.0
    row_us: float = 0.0


class SpeedModel:
    """Latency of a batch as a function of its rows."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._largest = 0

    def observe(self, rows: int, seconds: float) -> None:
        """Adds one batch."""
        self._weight = self._weight * DECAY + 1.0
        self._x = self._x * DECAY + rows
        self._y = self._y * DECAY + seconds
        self._xx = self._xx * DECAY + rows * rows
        self._xy = self._xy * DECAY + rows * seconds
        self._largest = max(self._largest, rows)

    def seconds(self, rows: int) -> float | None:
        """Expected duration of a batch of `rows`; None before the first sample."""
        if not self._weight:
            return None
        fixed, row = self._fit()
        return fixed + row * rows

    def learned(self) -> Speed:
        """The model in the units it is told in."""
        if not self._weight:
            return Speed()
        fixed, row = self._fit()
        return Speed(self._largest / max(fixed + row * self._largest, 1e-9), fixed * 1e6, row * 1e6)

    def _fit(self) -> tuple[float, float]:
        mean_rows, mean_seconds = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_rows * mean_rows
        if variance < 1e-6:  # noqa: PLR2004 - batches of one size only: nothing tells the two costs apart
            return mean_seconds, 0.0
        row = max(0.0, (self._xy / self._weight - mean_rows * mean_seconds) / variance)
        return max(0.0, mean_seconds - row * mean_rows), row
