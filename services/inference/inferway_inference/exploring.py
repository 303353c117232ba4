"""When to compute a batch of another size than is thought best, so that a mistaken thought is corrected. Pure.

What is never computed is never learned: were one size thought slow because the machine was busy when it was tried, it
would stay so for ever. While more waits than makes the best batch, its neighbours among the candidates are tried, in
turn. One that turns out better is tried again at once, which costs nothing, until the curve says the same; others come
back so seldom that trials take at most one part in `EVERY` of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from inferway_inference.sizing import ABOUT_AS_GOOD, OVERHEAD_SECONDS, Sizing

EVERY = 32
"""Batches from one trial to the next, of a trial that takes as long as a batch of the best size."""


class Explorer:
    """Of one lane."""

    __slots__ = ("_larger", "_left")

    def __init__(self) -> None:
        """Nothing was tried."""
        self._left = EVERY
        self._larger = True

    def size(self, sizing: Sizing, sizes: Sequence[int], least: int, waiting: int) -> int | None:
        """The size that is to be tried now, from `least` to `waiting` rows; None if the best should be taken.

        Call it for each batch for which more rows wait than the best size has, and `began` if it is tried.
        """
        self._left -= 1
        if self._left > 0:
            return None
        larger = min((rows for rows in sizes if sizing.rows < rows <= waiting), default=None)
        smaller = max((rows for rows in sizes if least <= rows < sizing.rows), default=None)
        return (larger or smaller) if self._larger else (smaller or larger)

    def began(self) -> None:
        """A trial is under way."""
        self._left = EVERY

    def ended(self, sizing: Sizing, rows: int, seconds: float, capacity: int) -> None:
        """A trial of `rows` took `seconds`."""
        if (seconds + OVERHEAD_SECONDS) / (rows * capacity) < ABOUT_AS_GOOD * sizing.row_seconds:
            self._left = 0
            return
        self._left = EVERY * max(1, ceil(seconds / sizing.batch_seconds))
        self._larger = not self._larger
