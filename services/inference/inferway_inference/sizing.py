"""How many rows a batch should have, and whether to wait for more, by what was learned of latency. Pure.

The best size is the one that computes the most rows a second, side by side if the runner has several callers, and of
sizes that are about as good the smallest: its requests are done sooner. A batch of twice the size takes nearly twice as
long, so each doubling has to pay anew: else a hundredth more rows a second would be bought with batches that last as
long as most requests may take, and in overload those that are due sooner would be late behind them.

Waiting for one more row, with `n` rows at hand and rows arriving every `gap` seconds, costs each of the `n` the gap and
what the row adds to the batch. It saves the newcomer from sitting out the batch that would otherwise be under way, and
a batch of its own. Both follow from the curve; arrivals without memory make the comparison hold at every moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2

from inferway_inference.latency import Latency, LatencyModel, Speed

OVERHEAD_SECONDS = 0.0002
"""What a batch costs beside compute: joining, the hop to the runner and back, cutting."""
ABOUT_AS_GOOD = 0.975
"""Of the time for a row, for each doubling of the batch."""


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
        if best is None or row_seconds < best.row_seconds * ABOUT_AS_GOOD ** log2(rows / best.rows):
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


Seconds = Callable[[int], float]
"""Expected duration of a batch by rows."""


def rows_at_once(seconds: Seconds, sizing: Sizing, waiting: int, free: int, max_rows: int) -> int:
    """Rows of the next batch when `waiting` rows are there and `free` callers have nothing to do."""
    if waiting <= sizing.rows:
        return waiting if free == 1 or waiting == 1 else _shared(seconds, waiting, free)
    if waiting > max_rows or waiting >= 2 * sizing.rows:
        return sizing.rows
    best, rest, all_rows = seconds(sizing.rows), seconds(waiting - sizing.rows) + OVERHEAD_SECONDS, seconds(waiting)
    sooner, later = (best + rest - all_rows) * (waiting - sizing.rows), (all_rows - best) * sizing.rows
    return waiting if sooner > later else sizing.rows


def _shared(seconds: Seconds, waiting: int, free: int) -> int:
    """All rows in one batch, or side by side where that is done sooner."""
    share = -(-waiting // free)
    return share if seconds(share) < ABOUT_AS_GOOD * seconds(waiting) else waiting


def shared_seconds(seconds: Seconds, rows: int) -> float:
    """What a batch of `rows` and one of a single row take longer than one batch of all of them."""
    return seconds(rows) + seconds(1) + OVERHEAD_SECONDS - seconds(rows + 1)


def wait_costs(seconds: Seconds, rows: int, gap_seconds: float) -> float:
    """Seconds of latency, summed over requests, that waiting for one more row costs beyond what it saves."""
    more = seconds(rows + 1) - seconds(rows)
    return rows * (gap_seconds + more) - (shared_seconds(seconds, rows) - gap_seconds)
