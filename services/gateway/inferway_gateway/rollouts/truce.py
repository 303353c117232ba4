"""When two versions cannot be compared: while one is missing only because its workers went away.

A worker that comes back loads one version before the other, and which one comes first says nothing about either. So
from the loss of one until both are there again nobody is judged, on neither arm, nor is who began to wait before. A
version that crashed or cannot be loaded is not away: that it is missing is its own doing, and counts.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from inferway_gateway.rollouts.plan import Sides

MOST_SECONDS = 60.0
"""How long users may meet the want of one version while the other is there. From then on it counts."""


class Truce:
    """Of one rollout. Looks when it is asked, which costs next to nothing while all are there."""

    def __init__(self, is_away: Callable[[str], bool]) -> None:
        """`is_away` says of a version's name whether whoever had it went away, and nobody has loaded it again."""
        self._is_away = is_away
        self._alone_since: float | None = None
        self._fair_from = -inf
        self.uneven_until = -inf
        """When one of them was last known to be missing without the other: since then, one is colder."""

    def fair_from(self, sides: Sides, now: float) -> float:
        """Whoever came before is not judged, on either side; infinite while nobody is."""
        away = [self._is_away(version) for version in sides]
        if all(away):
            self._alone_since, self._fair_from = None, inf
        elif any(away):
            self.uneven_until = now
            self._alone_since = now if self._alone_since is None else self._alone_since
            ends_at = self._alone_since + MOST_SECONDS
            self._fair_from = inf if now < ends_at else ends_at
        else:
            self._alone_since = None
            self._fair_from = min(self._fair_from, now)
        return self._fair_from
