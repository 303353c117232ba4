"""Keeps the books of every session: what was sent, what came back, and whether it was what NumPy computes.

An answer depends on all items of its session before it. So one that agrees with NumPy, which applied each answered
item once and in order, says that the state on the server is right; a lost, doubled or swapped item would show in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.eta import numpy_model

TOLERANCE = 1e-4
"""Relative, and in minutes. TensorFlow's float32 and NumPy's differ by less than a tenth of it."""


@dataclass(slots=True)
class Totals:
    """Of all sessions."""

    sessions: int = 0
    sent: int = 0
    answered: int = 0
    lost: int = 0
    """Items without an answer when their session ended, or with an error in its place."""
    doubled: int = 0
    out_of_order: int = 0
    wrong: int = 0
    """Answers that are not NumPy's: the state behind them is wrong."""

    @property
    def clean(self) -> bool:
        """There were answers, and nothing was wrong."""
        return self.answered > 0 and not (self.lost or self.doubled or self.out_of_order or self.wrong)


@dataclass(frozen=True, slots=True)
class Sent:
    """An item under way."""

    x: NDArray[np.float32]
    at: float
    """When, on the clock of the caller."""
    step: int
    """Of the trip."""


class SessionAudit:
    """The books of one session."""

    def __init__(self, weights: numpy_model.Weights, totals: Totals) -> None:
        """A session begins, with the initial state."""
        self._weights, self._totals = weights, totals
        self._state = numpy_model.initial_state(weights, 1)
        self._under_way: dict[int, Sent] = {}
        totals.sessions += 1

    @property
    def under_way(self) -> int:
        """Items without an answer."""
        return len(self._under_way)

    def sent(self, number: int, item: Sent) -> None:
        """An item went out under this id."""
        self._under_way[number] = item
        self._totals.sent += 1

    def answered(self, number: int, eta_minutes: float) -> Sent | None:
        """Its answer came; returns the item, or None if it had been answered before."""
        item = self._take(number)
        if item is None:
            return None
        self._totals.answered += 1
        expected, self._state = numpy_model.step(self._weights, item.x, self._state)
        self._totals.wrong += not np.isclose(eta_minutes, expected.item(), TOLERANCE, TOLERANCE)
        return item

    def failed(self, number: int) -> None:
        """An error came in place of its answer, which leaves the state as it was."""
        self._totals.lost += self._take(number) is not None

    def end(self) -> None:
        """The session is over; what is still under way will not be answered."""
        self._totals.lost += len(self._under_way)
        self._under_way.clear()

    def _take(self, number: int) -> Sent | None:
        first = next(iter(self._under_way), None)
        item = self._under_way.pop(number, None)
        self._totals.doubled += item is None
        self._totals.out_of_order += item is not None and number != first
        return item
