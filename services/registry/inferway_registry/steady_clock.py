"""The time of day, as whoever measures by it wants it: it goes on evenly while the process lives."""

from __future__ import annotations

from datetime import datetime, timedelta

from inferway_chassis.clock import Clock
from inferway_registry.ledger import WallClock


class SteadyClock:
    """Reads the wall clock once, and goes on from there: who sets the clock makes no step shorter or longer."""

    def __init__(self, now: WallClock, clock: Clock) -> None:
        self._start = now()
        self._clock = clock
        self._began = clock()

    def __call__(self) -> datetime:
        """The time, aware, in UTC."""
        return self._start + timedelta(seconds=self._clock() - self._began)
