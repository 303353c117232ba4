"""What happened, and what it cost: the longest time that any vehicle was without an answer meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LATEST = 16
"""Events that are looked at for each gap."""
AT_ONCE_SECONDS = 2.0
WATCHED_SECONDS = 10.0
"""Gaps that begin so long after an event are put down to it."""


@dataclass(slots=True)
class Event:
    """Something that vehicles may have felt."""

    at: float
    """Seconds since the start."""
    text: str
    longest_gap: float | None = 0.0
    """In seconds; None for a remark, which nobody can feel."""
    times: int = 1
    """How often, one after the other."""

    def line(self) -> str:
        """As it is shown."""
        cost = "" if self.longest_gap is None else f": longest gap {self.longest_gap:.2f} s"
        often = f", {self.times} times" if self.times > 1 else ""
        return f"{self.at:6.1f} s  {self.text}{often}{cost}"


class Journal:
    """Events in order; `clock` counts seconds from the start, and `tell` is given each event when it happens."""

    def __init__(self, clock: Callable[[], float], tell: Callable[[Event], None]) -> None:
        """Nothing has happened."""
        self._clock, self._tell = clock, tell
        self.events: list[Event] = []
        self.longest_gap = 0.0
        """Of all."""

    def event(self, text: str) -> None:
        """Something that may cost time. The same again at once is the same event."""
        last = self.events[-1] if self.events else None
        if last and last.text == text and self._clock() < last.at + AT_ONCE_SECONDS:
            last.times += 1
        else:
            self._add(Event(self._clock(), text))

    def remark(self, text: str) -> None:
        """Something that people should know."""
        self._add(Event(self._clock(), text, None))

    def gap(self, seconds: float) -> None:
        """A vehicle was without an answer for so long, until now: because of what happened meanwhile or just before."""
        self.longest_gap = max(self.longest_gap, seconds)
        began = self._clock() - seconds
        for event in self._felt_since(began):
            event.longest_gap = max(event.longest_gap or 0.0, seconds)

    def _felt_since(self, began: float) -> list[Event]:
        felt = [event for event in self.events[-LATEST:] if event.longest_gap is not None]
        meanwhile = [event for event in felt if event.at >= began]
        return meanwhile or [event for event in felt[-1:] if event.at >= began - WATCHED_SECONDS]

    def _add(self, event: Event) -> None:
        self.events.append(event)
        self._tell(event)
