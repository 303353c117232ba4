"""Sends copies of requests and compares what comes back, a little at a time, so that nobody else has to wait.

    offered ──► waiting ──► sent ──► answered ──► compared

Nothing happens while the first answer is on its way: work begins a moment later, in turns that leave most of the event
loop's time to others. If copies come faster than they can be sent, answered and compared, new ones are turned away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from inferway.errors import InferwayError, MemoryPressure
from inferway_chassis.clock import Clock
from inferway_gateway.envelope import Envelope, Prediction
from inferway_gateway.lane import Flight, Loop
from inferway_gateway.tensors import Answer

MAX_COPIES = 1000
"""Waiting, sent, or answered and not yet compared."""
MAX_BYTES = 64 * 1024 * 1024
"""Of their inputs and of both answers."""
TURN_SECONDS = 0.0002
"""What one turn takes, unless a single copy takes longer."""
GATHER_SECONDS = 0.02
"""Before the first turn: the caller's answer is on its way, and what comes meanwhile goes in one message."""
PAUSE_SECONDS = 0.001
"""Between turns, which so have a sixth of the loop's time at most."""


class Copy(Protocol):
    """A request that shall be sent a second time."""

    @property
    def byte_count(self) -> int:
        """Of all that it keeps until it was compared; does not change."""

    def envelope(self, now: float, observer: CopyObserver) -> Envelope:
        """What to send, received at `now`, and observed."""

    def compare(self, outcome: Answer | InferwayError, seconds: float) -> None:
        """What became of it, so many seconds after it was received."""


class Copier:
    """One for the process. All calls come from its event loop."""

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        submit: Callable[[Envelope], Flight],
        admit: Callable[[int], None],
    ) -> None:
        """`submit` is the dispatcher's; `admit` the memory gate's: it raises MemoryPressure for a class of requests."""
        self._loop, self._clock, self._submit, self._admit = loop, clock, submit, admit
        self._waiting = deque[Copy]()
        self._answered = deque[tuple[Copy, Answer | InferwayError, float]]()
        self._is_due = False
        self.copies = 0
        self.byte_count = 0

    @property
    def is_full(self) -> bool:
        """There is no room for any copy."""
        return self.copies >= MAX_COPIES or self.byte_count >= MAX_BYTES

    def take(self, copy: Copy, criticality: int) -> bool:
        """Sends and compares `copy` soon; False if there is no room for it. Never raises."""
        if self.is_full or self.byte_count + copy.byte_count > MAX_BYTES:
            return False
        try:
            self._admit(criticality)
        except MemoryPressure:
            return False
        self.copies += 1
        self.byte_count += copy.byte_count
        self._waiting.append(copy)
        self._have_a_turn(GATHER_SECONDS)
        return True

    def answered(self, copy: Copy, outcome: Answer | InferwayError, seconds: float) -> None:
        """What became of a copy that was sent."""
        self._answered.append((copy, outcome, seconds))
        self._have_a_turn(GATHER_SECONDS)

    def _have_a_turn(self, seconds: float) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(seconds, Copier._turn, self)

    def _turn(self) -> None:
        self._is_due, began = False, self._clock()
        try:
            while (self._answered or self._waiting) and self._clock() - began < TURN_SECONDS:
                if self._answered:
                    self._compare(*self._answered.popleft())
                else:
                    self._send(self._waiting.popleft())
        finally:
            if self._answered or self._waiting:
                self._have_a_turn(PAUSE_SECONDS)

    def _send(self, copy: Copy) -> None:
        """A refusal, too, is told to the observer."""
        envelope = copy.envelope(self._clock(), CopyObserver(self, copy))
        with suppress(InferwayError):
            self._submit(envelope).result.add_done_callback(_read)

    def _compare(self, copy: Copy, outcome: Answer | InferwayError, seconds: float) -> None:
        self.copies -= 1
        self.byte_count -= copy.byte_count
        copy.compare(outcome, seconds)


class CopyObserver:
    """Hears what becomes of a copy."""

    __slots__ = ("_copier", "_copy")

    def __init__(self, copier: Copier, copy: Copy) -> None:
        """Of `copy`."""
        self._copier, self._copy = copier, copy

    def ended(self, envelope: Envelope, outcome: Answer | InferwayError, now: float) -> None:
        """See `Observer`."""
        self._copier.answered(self._copy, outcome, now - envelope.received_at)


def _read(result: asyncio.Future[Prediction]) -> None:
    """Nobody waits for a copy, so nobody else looks at its error."""
    if not result.cancelled():
        result.exception()
