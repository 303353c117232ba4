"""How many retries an endpoint may cost: a share of its own traffic, so that retries never make an outage worse.

The rule is `retries + 1 <= 0.2 * first attempts + 30` over the last ten seconds at least: a rate window and not a
count of what is in flight, because that shrinks as requests become retries.
"""

from __future__ import annotations

from inferway_chassis.clock import Clock

_BUCKETS = 11
"""Of a second each. The newest is not full yet, so ten of them would be less than ten seconds."""
_SHARE = 0.2
_FLOOR = 30


class RetryBudget:
    """A ring of one-second buckets. One for each endpoint."""

    __slots__ = ("_clock", "_first_attempts", "_retries", "_second")

    def __init__(self, clock: Clock) -> None:
        """Starts empty; the floor permits retries at once."""
        self._clock = clock
        self._first_attempts = [0] * _BUCKETS
        self._retries = [0] * _BUCKETS
        self._second = int(clock())

    def count_first_attempt(self) -> None:
        """Notes a request that came from a caller."""
        self._turn()
        self._first_attempts[self._second % _BUCKETS] += 1

    def withdraw(self) -> bool:
        """Takes one retry out of the budget; False if it is used up."""
        self._turn()
        if sum(self._retries) + 1 > _SHARE * sum(self._first_attempts) + _FLOOR:
            return False
        self._retries[self._second % _BUCKETS] += 1
        return True

    def _turn(self) -> None:
        now = int(self._clock())
        if now == self._second:
            return
        for second in range(max(self._second, now - _BUCKETS) + 1, now + 1):
            self._first_attempts[second % _BUCKETS] = self._retries[second % _BUCKETS] = 0
        self._second = now
