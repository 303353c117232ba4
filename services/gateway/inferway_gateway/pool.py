"""One version in the gateway: who waits for it, and which workers have it ready."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from inferway.errors import QueueFull
from inferway_chassis.request_queue import Queued, QueueLimits, RequestQueue
from inferway_gateway.forecast import Forecast, Load, would_be_late
from inferway_gateway.lane import Flight, Lane
from inferway_gateway.roster import REVIEW_SECONDS, Breaker, Member, Roster
from inferway_gateway.workers import Worker

CHOICES = 2
"""Workers of which the better one is taken."""


class Seat(NamedTuple):
    """A worker that may be given requests, with its open links."""

    cost: float
    member: Member
    worker: Worker
    lanes: list[Lane]


class Pool:
    """See the module."""

    __slots__ = (
        "_lanes_of",
        "_random",
        "_review_at",
        "_seats",
        "forecast",
        "lanes",
        "lost_at",
        "queue",
        "roster",
        "timer",
        "version",
        "withdrawn",
    )

    def __init__(self, version: str, limits: QueueLimits, random: Callable[[], float]) -> None:
        """Nobody waits, nobody is ready. `random` answers between 0 and 1."""
        self.version = version
        self.queue: RequestQueue[Flight] = RequestQueue(limits)
        self.forecast = Forecast()
        self.lanes: list[Lane] = []
        """All that have it ready, of ejected workers too."""
        self.roster = Roster[Worker](random)
        self.timer: asyncio.TimerHandle | None = None
        """Set while time alone will make room."""
        self.lost_at = -math.inf
        """When the last lane went."""
        self.withdrawn = False
        """The version does not exist any more."""
        self._random = random
        self._lanes_of: dict[Worker, list[Lane]] = {}
        self._seats: list[Seat] = []
        self._review_at = math.inf

    @property
    def is_over(self) -> bool:
        """Nobody has it, nobody waits for it, and nobody ever will."""
        return self.withdrawn and not self.lanes and not self.queue.items

    def add(self, lane: Lane, now: float) -> None:
        """`lane` leads to a worker that has it ready."""
        lanes = self._lanes_of.setdefault(lane.worker, [])
        if not lanes:
            self.roster.join(lane.worker, now)
        lanes.append(lane)
        self.lanes.append(lane)
        self.review(now)

    def remove(self, lane: Lane, now: float, *, failed: bool) -> None:
        """`lane` does not any more; `failed` says that nobody wanted that."""
        lanes = self._lanes_of[lane.worker]
        lanes.remove(lane)
        self.lanes.remove(lane)
        if not lanes:
            del self._lanes_of[lane.worker]
            self.roster.leave(lane.worker, now, failed=failed)
        if not self.lanes:
            self.lost_at = now
        self.review(now)

    def keep(self, workers: Collection[Worker]) -> None:
        """Forgets what was held against workers that are not among these."""
        for worker in [known for known in self.roster.members if known not in workers]:
            self.roster.forget(worker)

    def take(self, flight: Flight, now: float) -> None:
        """Binds `flight`, or lets it wait in its place; raises WouldBeLate or QueueFull."""
        if self.queue.items or not self.bind(flight, now):
            self._wait(flight, now)

    def drop(self, flight: Flight) -> None:
        """`flight`, which waits, need not any more."""
        assert flight.queued is not None
        self.queue.remove(flight.queued)
        self._left(flight.queued)

    def pump(self, now: float) -> bool:
        """Binds what waits, in order, for as long as there is room; True if time alone will make more."""
        while (head := self.queue.peek()) is not None:
            if not self.bind(head.payload, now):
                return self.is_paced
            self.queue.take()
            self._left(head)
        return False

    @property
    def is_paced(self) -> bool:
        """Whether some lane has room in a moment, though nothing happens."""
        return any(lane.is_paced(self.version) for lane in self.lanes)

    def bind(self, flight: Flight, now: float) -> bool:
        """Gives `flight` to a worker; False if none has room."""
        seat = self.choose(flight, now)
        if seat is None:
            return False
        lane, member = seat
        flight.member = member
        lane.bind(flight, now)
        if member.breaker is Breaker.HALF_OPEN and not self.roster.panic:
            member.trial = flight
            self.review(now)
        return True

    def choose(self, flight: Flight, now: float) -> tuple[Lane, Member] | None:
        """The lane with room whose worker would be done soonest, of any two workers (Mitzenmacher 2001).

        All are asked if these two have no room, or only one that has just failed `flight`. Of a worker's links one with
        an open frame is best: there one more envelope costs no message.
        """
        if now >= self._review_at:
            self.review(now)
        seats = self._seats
        if len(seats) <= CHOICES:
            return _best(seats, flight, now)
        best = _best(self._any_two(), flight, now)
        return _best(seats, flight, now) if best is None or best[0].worker is flight.avoid else best

    def review(self, now: float) -> None:
        """Looks at the workers anew: something happened, or some time has passed."""
        places = self.roster.review(now, self._rate_of)
        self._seats = [Seat(place.cost, place.member, place.key, self._lanes_of[place.key]) for place in places]
        self._review_at = now + REVIEW_SECONDS

    def judge(self, member: Member, flight: Flight, now: float, *, passed: bool | None) -> None:
        """`flight` ended at `member`, which it speaks for or against, or neither."""
        if member.trial is flight:
            self.roster.tried(member, now, passed=passed)
            self.review(now)
        elif passed is False and self.roster.failed(member, now):
            self.review(now)

    def _loads(self) -> list[Load]:
        """What its workers have to do, for a forecast."""
        return [seat.worker.load_of(self.version) for seat in self._seats]

    def _wait(self, flight: Flight, now: float) -> None:
        envelope = flight.envelope
        caller = envelope.caller
        queued = Queued(
            flight, envelope.deadline, envelope.rows, envelope.byte_count, caller.criticality, caller.tenant
        )
        version = envelope.version
        predicted = self.forecast.late(now, queued, self.queue, self.queue.rows, self._loads())
        if predicted is not None:
            raise would_be_late(version.model, version.number, predicted, envelope.deadline - now)
        try:
            self.queue.offer(queued)
        except QueueFull as full:
            full.metadata = {"model": version.model, "version": str(version.number)}
            raise
        self.forecast.joined(queued)
        flight.queued = queued

    def _left(self, queued: Queued[Flight]) -> None:
        self.forecast.left(queued)
        queued.payload.queued = None

    def _any_two(self) -> Iterable[Seat]:
        seats = self._seats
        if seats[-1].cost == 0.0:  # one that is to be tried is never left out
            return seats[int(self._random() * (len(seats) - 1))], seats[-1]
        first = int(self._random() * len(seats))
        second = int(self._random() * (len(seats) - 1))
        return seats[first], seats[second + (second >= first)]

    def _rate_of(self, worker: Worker) -> float:
        speed = worker.speeds.get(self.version)
        return 0.0 if speed is None else speed.rows_per_second


def _best(seats: Iterable[Seat], flight: Flight, now: float) -> tuple[Lane, Member] | None:
    best, least = None, (True, 0.0, True, 0)
    envelope, avoid = flight.envelope, flight.avoid
    for cost, member, worker, lanes in seats:
        for lane in lanes:
            if lane.has_room(envelope, now):
                load = (worker is avoid, (worker.rows + 1) * cost, not lane.forming, lane.rows)
                if best is None or load < least:
                    best, least = (lane, member), load
    return best
