"""A lane: one open link as binding sees it. Pure bookkeeping; `link.py` moves what it holds over the wire.

A flight is an envelope between submission and result:

    QUEUED ──bind──► BOUND ──answer──► done
       ▲                │
       └──── retry ◄────┘  the lane closed, or the answer says that it was not executed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from inferway_chassis.request_queue import Queued
from inferway_gateway.envelope import Envelope, Prediction
from inferway_gateway.workers import Worker

MAX_LARGE_CALLS = 4
"""Envelopes that one worker gets outside its links at once; they take no credit, so something must bound them."""


class Flight:
    """One envelope on its way."""

    __slots__ = (
        "attempt", "avoid", "bound_at", "envelope", "lane", "large", "queued", "result", "ticket", "timer", "written",
    )  # fmt: skip

    def __init__(self, envelope: Envelope, result: asyncio.Future[Prediction]) -> None:
        """Nobody holds it yet."""
        self.envelope = envelope
        self.result = result
        self.attempt = 1
        """1 for the first; grows each time a worker may have begun to execute it."""
        self.avoid: Worker | None = None
        """Who failed it last."""
        self.bound_at = 0.0
        self.lane: Lane | None = None
        self.ticket = 0
        """Its id on the lane."""
        self.written = False
        """It left the process: the worker may know it."""
        self.large = False
        """It goes outside the link."""
        self.queued: Queued[Flight] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Frame(NamedTuple):
    """What the writer of a link takes in one go."""

    flights: list[Flight]
    cancelled: list[int]
    """Tickets that need no answer any more."""


class Carrier(Protocol):
    """What moves a lane's envelopes."""

    def wake(self) -> None:
        """There is something to write."""

    def carry_large(self, flight: Flight) -> Callable[[], object]:
        """Sends `flight` outside the link; the answer comes as any other. Returns what cancels it."""


class Lane:
    """Credits per version, and the flights out on one link. See the proto of the link for the rules of credits."""

    def __init__(self, worker: Worker, max_envelope_bytes: int, carrier: Carrier) -> None:
        """Larger envelopes than `max_envelope_bytes` go outside the link."""
        self.worker = worker
        self.ready: frozenset[str] = frozenset()
        """Versions that may be bound here."""
        self.draining = False
        """The worker wants nothing new here."""
        self.rows = 0
        self._max_envelope_bytes = max_envelope_bytes
        self._carrier = carrier
        self._credits: dict[str, int] = {}
        self._next_ticket = 1
        self._outstanding: dict[int, Flight] = {}
        self._large: dict[int, Callable[[], object]] = {}
        self._outbox: list[Flight] = []
        self._cancelled: list[int] = []

    def __len__(self) -> int:
        """Flights bound here."""
        return len(self._outstanding)

    def grant(self, version: str, rows: int) -> None:
        """Adds to the credits of `version`."""
        self._credits[version] = self._credits.get(version, 0) + rows

    def has_room(self, envelope: Envelope) -> bool:
        """Whether `envelope` may be bound now."""
        if envelope.byte_count > self._max_envelope_bytes:
            return self.worker.large_calls < MAX_LARGE_CALLS
        return self._credits.get(envelope.version.name, 0) > 0

    def bind(self, flight: Flight, now: float) -> None:
        """Takes `flight`; `has_room` has said yes."""
        envelope = flight.envelope
        flight.lane, flight.ticket, flight.bound_at = self, self._next_ticket, now
        flight.large = flight.written = envelope.byte_count > self._max_envelope_bytes
        self._next_ticket += 1
        self._outstanding[flight.ticket] = flight
        self._add_rows(envelope.rows)
        if flight.large:
            self.worker.large_calls += 1
            self._large[flight.ticket] = self._carrier.carry_large(flight)
            return
        self._credits[envelope.version.name] -= envelope.rows
        self._outbox.append(flight)
        self._carrier.wake()

    def take_frame(self) -> Frame:
        """Hands over everything that waits to be written."""
        frame = Frame(self._outbox, self._cancelled)
        self._outbox, self._cancelled = [], []
        for flight in frame.flights:
            flight.written = True
        return frame

    def release(self, ticket: int) -> Flight | None:
        """The flight that was answered under `ticket`; None if it was given up before."""
        flight = self._outstanding.pop(ticket, None)
        if flight is not None:
            self._forget(flight)
        return flight

    def give_up(self, flight: Flight) -> None:
        """Nobody waits for `flight` any more: it is not sent, or the worker is told."""
        if self._outstanding.pop(flight.ticket, None) is None:
            return
        cancel_large = self._large.get(flight.ticket)
        if cancel_large is not None:
            cancel_large()
        elif flight.written:
            self._cancelled.append(flight.ticket)
            self._carrier.wake()
        else:
            self._outbox.remove(flight)
            self.grant(flight.envelope.version.name, flight.envelope.rows)
        self._forget(flight)

    def close(self) -> list[Flight]:
        """Ends the lane and hands back every flight without an answer."""
        left = list(self._outstanding.values())
        for cancel in self._large.values():
            cancel()
        for flight in left:
            self._forget(flight)
        self._outstanding.clear()
        self._outbox.clear()
        self._credits.clear()
        self.ready = frozenset()
        return left

    def _forget(self, flight: Flight) -> None:
        flight.lane = None
        self._add_rows(-flight.envelope.rows)
        if self._large.pop(flight.ticket, None) is not None:
            self.worker.large_calls -= 1

    def _add_rows(self, rows: int) -> None:
        self.rows += rows
        self.worker.rows += rows
