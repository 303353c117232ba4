"""What one gateway keeps in a shared store, counted here: the store itself outlives gateways and cannot tell."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from inferway_chassis.clock import Clock


class Held(NamedTuple):
    """A record of this gateway, by its key."""

    key: str
    epoch: int


@dataclass(slots=True)
class _Holding:
    epoch: int
    expires_at: float
    released: bool = False


class Holdings:
    """Records that this gateway owns, or has released and that wait for their client. At most `max_sessions`.

    One that nobody renews is forgotten when the store forgets it, so whoever drops a session without a word leaks
    nothing.
    """

    def __init__(self, max_sessions: int, clock: Clock) -> None:
        """Holds nothing yet."""
        self._max_sessions, self._clock = max_sessions, clock
        self._holdings: dict[str, _Holding] = {}

    def room(self) -> bool:
        """One more would fit."""
        if len(self._holdings) >= self._max_sessions:
            now = self._clock()
            self._holdings = {key: held for key, held in self._holdings.items() if held.expires_at > now}
        return len(self._holdings) < self._max_sessions

    def evict(self) -> Held | None:
        """Forgets the released record that would expire first, and returns it for deletion."""
        released = [(held.expires_at, key) for key, held in self._holdings.items() if held.released]
        if not released:
            return None
        _, key = min(released)
        return Held(key, self._holdings.pop(key).epoch)

    def own(self, held: Held, seconds: float) -> None:
        """It was created or claimed here, and is ours until we are silent for so long."""
        self._holdings[held.key] = _Holding(held.epoch, self._clock() + seconds)

    def extend(self, held: Held, seconds: float) -> None:
        """It is ours for so long again."""
        if holding := self._same(held):
            holding.expires_at = self._clock() + seconds

    def release(self, held: Held, seconds: float) -> None:
        """Nobody's for so long, unless it is claimed."""
        if holding := self._same(held):
            holding.expires_at, holding.released = self._clock() + seconds, True

    def forget(self, held: Held) -> None:
        """It is gone or somebody else's."""
        if self._same(held):
            del self._holdings[held.key]

    def renew(self, keys: Collection[str], seconds: float) -> list[Held]:
        """Those of `keys` that are owned here, for so long again."""
        owned = []
        for key in keys:
            holding = self._holdings.get(key)
            if holding is not None and not holding.released:
                holding.expires_at = self._clock() + seconds
                owned.append(Held(key, holding.epoch))
        return owned

    def _same(self, held: Held) -> _Holding | None:
        """None if it has been claimed since, here or elsewhere."""
        holding = self._holdings.get(held.key)
        return holding if holding is not None and holding.epoch == held.epoch else None
