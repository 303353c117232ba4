"""How many rows a batch should have, by what was learned of latency. Pure.

The best size is the one that computes the most rows a second, side by side if the runner has several callers, and of
sizes that are about as good the smallest: its requests are done sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

from inferway_inference.latency import Latency, LatencyModel, Speed

OVERHEAD_SECONDS = 0.0002
"""What a batch costs beside compute: joining, the hop to the runner and back, cutting."""
ABOUT_AS_GOOD = 0.985


@dataclass(frozen=True, slots=True)
class Sizing:
    """The best way to compute many rows of one kind."""

    rows: int
    """In each batch."""
    batch_seconds: float
    """For each batch, beside the others."""
    row_seconds: float
    """For each row, when all callers are busy."""
    crowded: bool
    """Whether batches compute side by side."""


def best_sizing(latency: Latency, capacity: int, max_rows: int, buckets: tuple[int, ...] = ()) -> Sizing | None:
    """The best size up to `max_rows` when `capacity` batches may compute at once; None if nothing is known."""
    crowded = capacity > 1
    curve = latency.curve(crowded=crowded)
    best: Sizing | None = None
    for rows in candidates(max_rows, buckets):
        seconds = curve.seconds(rows)
        if seconds is None:
            return None
        row_seconds = (seconds + OVERHEAD_SECONDS) / (rows * capacity)
        if best is None or row_seconds < best.row_seconds * ABOUT_AS_GOOD:
            best = Sizing(rows, seconds, row_seconds, crowded)
    return best


def candidates(max_rows: int, buckets: tuple[int, ...]) -> list[int]:
    """Sizes worth comparing, ascending: buckets, or powers of two and the largest."""
    if buckets:
        return [rows for rows in buckets if rows <= max_rows] or [buckets[0]]
    powers = [1 << power for power in range(max_rows.bit_length()) if 1 << power < max_rows]
    return [*powers, max_rows]


def padded(rows: int, buckets: tuple[int, ...]) -> int:
    """The rows that are computed for a batch of `rows`."""
    for bucket in buckets:
        if bucket >= rows:
            return bucket
    return rows


def speed_of(model: LatencyModel, capacity: int, max_rows: int, buckets: tuple[int, ...] = ()) -> Speed:
    """The speed of what is called most, in short."""
    latencies = [latency for _, latency in model]
    if not latencies:
        return Speed()
    latency = max(latencies, key=_samples)
    sizing = best_sizing(latency, capacity, max_rows, buckets)
    if sizing is None:
        return Speed()
    curve = latency.curve(crowded=sizing.crowded)
    one, most = curve.seconds(1) or 0.0, curve.seconds(max_rows) or 0.0
    row = (most - one) / (max_rows - 1) if max_rows > 1 else 0.0
    return Speed(1 / sizing.row_seconds, max(0.0, one - row) * 1e6, row * 1e6)


def _samples(latency: Latency) -> int:
    return sum(knot.samples for curve in (latency.alone, latency.crowded) for knot in curve.knots)
