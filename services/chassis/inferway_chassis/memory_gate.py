"""Refuses work while memory is short, the least critical first, and holds only so many bytes of requests at once. Pure.

The steps are those of Envoy's overload manager, with criticality added: what can be shed goes at 85 % of the limit, new
streams at 92 %, everything at 95 %. Health is not asked here, and goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from inferway.errors import MemoryPressure
from inferway_chassis.clock import Clock

SHED_AT, STREAMS_AT, ALL_AT = 0.85, 0.92, 0.95
SHEDDABLE_FROM = 3
"""The most critical class that can be shed."""
READ_SECONDS = 0.1
"""A reading holds for so long."""
RELIEF_SECONDS = 1.0
"""Freed memory is given back at most so often."""


class Refused(StrEnum):
    """What was refused, for metrics."""

    SHEDDABLE = "sheddable"
    STREAM = "stream"
    ANY = "any"
    BYTES = "bytes"


class MemoryGate:
    """Of one process."""

    def __init__(
        self, max_held_bytes: int, used_share: Callable[[], float], clock: Clock, relieve: Callable[[], None]
    ) -> None:
        """`used_share` reads how much of the limit is used; `relieve` gives back what was freed and is kept."""
        self._max_held_bytes, self._used_share, self._clock, self._relieve = max_held_bytes, used_share, clock, relieve
        self._share = 0.0
        self._read_at = self._relieved_at = -RELIEF_SECONDS
        self.held_bytes = 0
        """Of requests that are not answered."""
        self.refused = Counter[Refused]()

    @property
    def share(self) -> float:
        """Of the limit, as last read; never older than READ_SECONDS."""
        now = self._clock()
        if now - self._read_at >= READ_SECONDS:
            self._read_at, self._share = now, self._used_share()
            if self._share >= SHED_AT and now - self._relieved_at >= RELIEF_SECONDS:
                self._relieved_at = now
                self._relieve()
                self._share = self._used_share()
        return self._share

    def admit(self, criticality: int) -> None:
        """A request of that class wants in, 1 being the most critical; raises MemoryPressure."""
        share = self.share
        if share < SHED_AT:
            return
        if share >= ALL_AT:
            raise self._refusal(Refused.ANY, "nothing is taken")
        if criticality >= SHEDDABLE_FROM:
            raise self._refusal(Refused.SHEDDABLE, "only critical requests are taken")

    def admit_stream(self) -> None:
        """A stream wants to open; raises MemoryPressure."""
        if self.share >= STREAMS_AT:
            raise self._refusal(Refused.STREAM, "no new streams are taken")

    def hold(self, byte_count: int) -> None:
        """A request with so many bytes is held until `release`; raises MemoryPressure if that were too many.

        One is held in any case.
        """
        if self.held_bytes and self.held_bytes + byte_count > self._max_held_bytes:
            self.refused[Refused.BYTES] += 1
            raise MemoryPressure(
                f"requests of {self.held_bytes} bytes are held already, of {self._max_held_bytes} at most"
            )
        self.held_bytes += byte_count

    def release(self, byte_count: int) -> None:
        """A request that was held is answered."""
        self.held_bytes -= byte_count

    def _refusal(self, what: Refused, meaning: str) -> MemoryPressure:
        self.refused[what] += 1
        return MemoryPressure(f"{self._share:.0%} of the memory is used: {meaning}")
