"""How many batches computed at once while one did: the number at the runner, averaged over its time there. Pure."""

from __future__ import annotations

from inferway_inference.work import Batch

ALONE, CROWDED = 1.25, 0.75
"""A batch was alone if at most so many computed on average, and beside others if at least so much of the capacity
did. What is between teaches neither."""
ONLY_ONE = 1.0001


class Crowd:
    """Of one version's runners."""

    def __init__(self) -> None:
        """Nobody is there."""
        self._sum, self._at, self._now = 0.0, 0.0, 0

    def enter(self, batch: Batch, now: float) -> None:
        """`batch` goes to a runner."""
        self._advance(now)
        self._now += 1
        batch.crowd_at = self._sum

    def leave(self, batch: Batch, now: float) -> float:
        """`batch` came back; returns how many there were on average."""
        self._advance(now)
        self._now -= 1
        seconds = now - batch.dispatched_at
        return (self._sum - batch.crowd_at) / seconds if seconds > 0 else 1.0 + self._now

    def clear(self) -> None:
        """All are gone."""
        self._now = 0

    def _advance(self, now: float) -> None:
        self._sum += self._now * (now - self._at)
        self._at = now


def was_crowded(mean: float, capacity: int) -> bool | None:
    """Whether a batch computed beside others; None if it did so for a part of its time."""
    if mean <= ALONE or capacity == 1:
        return False
    return True if mean >= max(CROWDED * capacity, ALONE) else None
