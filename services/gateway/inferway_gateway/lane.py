"""A lane: one open link as binding sees it. Pure bookkeeping; `link.py` moves what it holds over the wire.

A flight is an envelope between submission and result:

    QUEUED ──bind──► BOUND ──answer──► done
       ▲                │
       └──── retry ◄────┘  the lane closed, or the answer says that it was not executed
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from inferway.errors import InferwayError
from inferway_chassis.request_queue import Queued
from inferway_gateway.envelope import Envelope, Prediction
from inferway_gateway.roster import Member
from inferway_gateway.workers import Worker

MAX_UNANSWERED_FRAMES = 4
"""Frames of one version that one link may have out. Counted per version: a slow model holds up nobody else."""
FRAME_SECONDS = 0.002
"""While a frame is unanswered, another one of its version is opened only so much later. A message costs far more than
an envelope in it, so what comes meanwhile waits, unbound, and goes together. A model that is quicker than this answers
first, and then there is nothing to wait for; of a slower one, a worker has the next frame before it is done."""
MAX_LARGE_CALLS = 4
"""Envelopes that one worker gets outside its links at once; they take no credit, so something must bound them."""
MAX_LARGE_COPIES = 2
"""A copy is one of them only while fewer are out: those for a version that hangs must leave some to users of others."""
MAX_FRAME_BYTES = 8 * 1024 * 1024
"""Of inputs in one frame, unless a single envelope has more: far from the limit of a message, whoever set that."""
MAX_UNANSWERED = 4096
"""Requests that one link may have out, however much credit its worker grants."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Flight:
    """One envelope on its way."""

    envelope: Envelope
    result: asyncio.Future[Prediction]
    attempt: int = 1
    """1 for the first; grows each time a worker may have begun to execute it."""
    avoid: Worker | None = None
    """Who failed it last."""
    failure: InferwayError | None = None
    """Why it had to be repeated, at first."""
    gives_up_at: float = math.inf
    """When it has waited long enough for a version that nobody has ready; infinite while somebody computes it."""
    bound_at: float = 0.0
    lane: Lane | None = None
    ticket: int = 0
    """Its id on the lane."""
    member: Member | None = None
    """Whom its outcome speaks for or against, while it is bound."""
    suspicion: bytes | None = None
    """Its fingerprint, if it may be what crashed a runner."""
    frame: FrameShare | None = None
    """What it shares with those of its version that are written together with it."""
    written: bool = False
    """It left the process: the worker may know it."""
    large: bool = False
    """It goes outside the link."""
    queued: Queued[Flight] | None = None
    timer: asyncio.TimerHandle | None = None


class Loop(Protocol):
    """The part of an event loop that flights need."""

    def create_future(self) -> asyncio.Future[Prediction]:
        """A future that callers wait on."""

    def call_later(self, delay: float, callback: Callable[[T], object], argument: T) -> asyncio.TimerHandle:
        """Calls back after `delay` seconds."""


class FrameShare:
    """The flights of one version in one frame: the frame counts as unanswered until the last of them is done."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        """Empty."""
        self.left = 0


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
        self.silenced: frozenset[str] = frozenset()
        """Versions that may be bound here again once the worker speaks again."""
        self.rows = 0
        self._max_envelope_bytes = max_envelope_bytes
        self._carrier = carrier
        self._credits: dict[str, int] = {}
        self._told_ready: frozenset[str] = frozenset()
        self._next_ticket = 1
        self._outstanding: dict[int, Flight] = {}
        self._large: dict[int, Callable[[], object]] = {}
        self._outbox: list[Flight] = []
        self._cancelled: list[int] = []
        self._forming: dict[str, FrameShare] = {}
        self._frames: dict[str, int] = {}
        self._opened_at: dict[str, float] = {}

    def __len__(self) -> int:
        """Flights bound here."""
        return len(self._outstanding)

    @property
    def flights(self) -> list[Flight]:
        """All that are bound here, oldest first."""
        return list(self._outstanding.values())

    @property
    def oldest_bound_at(self) -> float:
        """Since when an answer is due; infinite if none is."""
        oldest = next(iter(self._outstanding.values()), None)
        return math.inf if oldest is None else oldest.bound_at

    @property
    def forming(self) -> int:
        """Envelopes in the frame that is open here: while there is one, one more costs no message."""
        return len(self._outbox)

    def grant(self, version: str, rows: int) -> None:
        """Adds to the credits of `version`."""
        self._credits[version] = self._credits.get(version, 0) + rows

    def told_ready(self, versions: frozenset[str]) -> None:
        """The worker says which versions it has ready: all others, and those that were not until now, have no credits.

        A version that is loaded again comes with a whole window. Added to what is left of the window before, the sum
        would grow with each load.
        """
        for void in self._credits.keys() - (versions & self._told_ready):
            del self._credits[void]
        self._told_ready = versions

    def has_room(self, envelope: Envelope, now: float) -> bool:
        """Whether `envelope` may be bound at `now`."""
        if envelope.byte_count > self._max_envelope_bytes:
            return self.worker.large_calls < (MAX_LARGE_COPIES if envelope.is_copy else MAX_LARGE_CALLS)
        version = envelope.version.name
        if self._credits.get(version, 0) <= 0 or len(self._outstanding) >= MAX_UNANSWERED:
            return False
        return version in self._forming or self._may_open_frame(version, now)

    def is_paced(self, version: str) -> bool:
        """Whether time alone will make room for `version`."""
        return self._credits.get(version, 0) > 0 and 0 < self._frames.get(version, 0) < MAX_UNANSWERED_FRAMES

    def bind(self, flight: Flight, now: float) -> None:
        """Takes `flight`; `has_room` has said yes."""
        envelope = flight.envelope
        flight.lane, flight.ticket, flight.bound_at = self, self._next_ticket, now
        flight.large = flight.written = envelope.byte_count > self._max_envelope_bytes
        self._next_ticket += 1
        self._outstanding[flight.ticket] = flight
        self._add_rows(envelope, +1)
        if flight.large:
            self.worker.large_calls += 1
            self._large[flight.ticket] = self._carrier.carry_large(flight)
            return
        self._credits[envelope.version.name] -= envelope.rows
        self._join_frame(flight, envelope.version.name, now)
        self._outbox.append(flight)
        self._carrier.wake()

    def take_frame(self) -> Frame:
        """Hands over what waits to be written, as far as a message takes it, and wakes the carrier for the rest.

        The rest joins no newcomers: it still belongs to the frames that were open until now.
        """
        taken = byte_count = 0
        for flight in self._outbox:
            byte_count += flight.envelope.byte_count
            if byte_count > MAX_FRAME_BYTES and taken:
                self._carrier.wake()
                break
            flight.written = True
            taken += 1
        frame = Frame(self._outbox[:taken], self._cancelled)
        self._outbox, self._cancelled = self._outbox[taken:], []
        self._forming.clear()
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
        left = self.flights
        for cancel in self._large.values():
            cancel()
        for flight in left:
            self._forget(flight)
        self._outstanding.clear()
        self._outbox.clear()
        self._credits.clear()
        self._forming.clear()
        self.ready = self.silenced = frozenset()
        return left

    def _forget(self, flight: Flight) -> None:
        flight.lane = None
        self._add_rows(flight.envelope, -1)
        if self._large.pop(flight.ticket, None) is not None:
            self.worker.large_calls -= 1
        elif flight.frame is not None:
            self._leave_frame(flight.frame, flight.envelope.version.name)
            flight.frame = None

    def _may_open_frame(self, version: str, now: float) -> bool:
        unanswered = self._frames.get(version, 0)
        if unanswered == 0:
            return True
        return unanswered < MAX_UNANSWERED_FRAMES and now - self._opened_at[version] >= FRAME_SECONDS

    def _join_frame(self, flight: Flight, version: str, now: float) -> None:
        share = self._forming.get(version)
        if share is None:
            share = self._forming[version] = FrameShare()
            self._frames[version] = self._frames.get(version, 0) + 1
            self._opened_at[version] = now
        share.left += 1
        flight.frame = share

    def _leave_frame(self, share: FrameShare, version: str) -> None:
        share.left -= 1
        if share.left == 0:
            self._frames[version] -= 1
            if self._forming.get(version) is share:
                del self._forming[version]

    def _add_rows(self, envelope: Envelope, sign: int) -> None:
        self.rows += sign * envelope.rows
        self.worker.add_rows(envelope.version.name, sign * envelope.rows)
