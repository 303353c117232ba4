"""Repeats those who were aboard a crashed runner one at a time for each version, so that it shows who crashed it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from inferway.errors import InferwayError, Overloaded, Quarantined, RunnerCrashed
from inferway_chassis.clock import Clock
from inferway_gateway.lane import Flight
from inferway_gateway.poison import PoisonGuard


class Ward:
    """Every flight with a `suspicion` is here, until it is cleared or ends: one of each version is out, others wait.

    `place` sets a flight on its way and may raise Overloaded; `end` settles it, which must tell the ward by `leave`.
    """

    def __init__(
        self, clock: Clock, place: Callable[[Flight], None], end: Callable[[Flight, InferwayError], None]
    ) -> None:
        """Nobody is here."""
        self.guard = PoisonGuard()
        self._clock, self._place, self._end = clock, place, end
        self._waiting: dict[str, deque[Flight]] = {}
        self._out: dict[str, Flight] = {}

    def recognise(self, flight: Flight) -> None:
        """Makes `flight` a suspect if its request is one; raises Quarantined for a convict."""
        flight.suspicion = self.guard.suspicion(flight.envelope, self._clock())

    def accuse(self, flight: Flight, crash: RunnerCrashed) -> InferwayError:
        """A runner crashed with `flight` aboard; returns what to tell its caller, if it is not repeated."""
        as_suspect = flight.suspicion is not None
        flight.suspicion = self.guard.crashed(flight.envelope, flight.bound_at, self._clock(), as_suspect=as_suspect)
        try:
            self.recognise(flight)
        except Quarantined as convicted:
            return convicted
        return crash

    def enter(self, flight: Flight) -> None:
        """Sets a suspect on its way when it is its turn."""
        version = flight.envelope.version.name
        if self._out.get(version) is flight:
            del self._out[version]
        self._waiting.setdefault(version, deque()).append(flight)
        self._let_out(version)

    def leave(self, flight: Flight) -> None:
        """A suspect has ended."""
        version = flight.envelope.version.name
        if self._out.get(version) is flight:
            del self._out[version]
            self._let_out(version)
        elif flight in self.waiting(version):
            self._waiting[version].remove(flight)

    def waiting(self, version: str) -> list[Flight]:
        """Suspects whose turn has not come."""
        return list(self._waiting.get(version, ()))

    def _let_out(self, version: str) -> None:
        """The next one's turn, if nobody has it; who was cleared meanwhile needs none."""
        waiting = self._waiting.get(version, deque())
        while waiting and version not in self._out:
            flight = waiting.popleft()
            try:
                self.recognise(flight)
                self._place(flight)
            except (Overloaded, Quarantined) as refusal:
                self._end(flight, flight.failure or refusal)
            else:
                if flight.suspicion is not None:
                    self._out[version] = flight
        if not waiting:
            self._waiting.pop(version, None)
