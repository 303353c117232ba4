"""Counts of the last seconds, in buckets of one second. Pure."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds, monotonic."""


class Recent:
    """How much was added in the last `seconds`."""

    def __init__(self, seconds: int, clock: Clock) -> None:
        """Nothing yet."""
        self._clock = clock
        self._buckets = [0] * seconds
        self._second = int(clock())
        self._total = 0

    def add(self) -> None:
        """One more, now."""
        self._turn()
        self._buckets[self._second % len(self._buckets)] += 1
        self._total += 1

    @property
    def total(self) -> int:
        """Of all buckets."""
        self._turn()
        return self._total

    def _turn(self) -> None:
        now, size = int(self._clock()), len(self._buckets)
        for second in range(max(self._second, now - size) + 1, now + 1):
            self._total -= self._buckets[second % size]
            self._buckets[second % size] = 0
        self._second = now
