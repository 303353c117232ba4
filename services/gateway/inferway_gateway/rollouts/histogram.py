"""Durations by order of magnitude, a twentieth each: bucket i holds what took at most 10 µs * 1.05^i."""

from __future__ import annotations

from math import ceil, log

FIRST_SECONDS = 1e-5
LAST_BUCKET = 400
"""Holds whatever took longer, too: it ends at almost an hour."""
_PER_LOG = 1 / log(1.05)


class Histogram:
    """Counts of durations."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        """Empty."""
        self.counts: dict[int, int] = {}
        """By bucket; none is zero."""

    def add(self, seconds: float) -> None:
        """One more."""
        bucket = bucket_of(seconds)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1


def bucket_of(seconds: float) -> int:
    """The number of the bucket that holds `seconds`."""
    if seconds <= FIRST_SECONDS:
        return 0
    return min(LAST_BUCKET, ceil(log(seconds / FIRST_SECONDS) * _PER_LOG))
