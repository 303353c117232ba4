"""A worker in virtual time: arrivals, a model of latency, cancels, failures and crashes, and any scheduler between.

Nothing here waits: the clock jumps from event to event, so that a second takes milliseconds and every run of a seed is
the same. Batches that compute at the same time slow one another down as the machine says.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Protocol

from inferway.errors import InferwayError
from inferway_inference.work import Batch, Decision, Request

FRONT_SECONDS = 0.0002
"""From the end of compute until the scheduler hears of it, unless told otherwise."""


class Schedules(Protocol):
    """What is simulated: the scheduler, or another that it is compared with."""

    capacity: int

    def offer(self, request: Request) -> None:
        """Takes a request in or raises."""

    def withdraw(self, request: Request) -> bool:
        """Forgets a request."""

    def decide(self, now: float) -> Decision:
        """What to do now."""

    def finished(self, batch: Batch, compute_seconds: float, now: float) -> bool:
        """A batch was computed."""

    def failed(self, batch: Batch, now: float) -> list[Request]:
        """A batch failed."""

    def crashed(self, batch: Batch, now: float) -> list[Request]:
        """The runner ended."""


Machine = Callable[[int, int], float]
"""Seconds for a batch of so many rows while so many batches compute at once."""


@dataclass(slots=True, eq=False)
class _Computing:
    batch: Batch
    noise: float
    left: float = 1.0
    """Of its work."""
    began_at: float | None = None


@dataclass(slots=True)
class Ending:
    """What became of a request."""

    how: str
    """`answered`, `expired`, `cancelled`, `failed`, `crashed`, or the reason of the error at the door."""
    at: float
    rows: list[tuple[int, int]] = field(default_factory=list)
    """First row and number of rows of each part that was computed."""


class Simulation:
    """One run. `poison` names requests on which the model raises, `deadly` those that end the runner."""

    def __init__(
        self,
        scheduler: Schedules,
        machine: Machine,
        seed: int = 0,
        noise: float = 0.0,
        front_seconds: float = FRONT_SECONDS,
    ) -> None:
        """Nothing has happened; `noise` is the standard deviation of the logarithm of durations."""
        self.scheduler, self._machine = scheduler, machine
        self.now = 0.0
        self.requests: dict[int, Request] = {}
        self.endings: dict[int, Ending] = {}
        self.batches: list[Batch] = []
        self.most_at_once = 0
        """Batches at the runner."""
        self.observe: Callable[[], object] = lambda: None
        """Called after each event."""
        self.poison = set[int]()
        self.deadly = set[int]()
        self._random, self._noise, self._front_seconds = random.Random(seed), noise, front_seconds
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._computing: list[_Computing] = []
        self._advanced_at = 0.0
        self._epoch = 0
        self._wake_at = -1.0
        self._partial: dict[int, Ending] = {}

    def at(self, when: float, act: Callable[..., None], *arguments: Any) -> None:
        """Lets something happen later."""
        self._count += 1
        heappush(self._events, (when, self._count, act, arguments))

    def arrives(self, request: Request) -> None:
        """Lets a request arrive at its `received_at`."""
        self.at(request.received_at, self._arrive, request)

    def cancels(self, request: Request, when: float) -> None:
        """Lets a caller go away."""
        self.at(when, self._cancel, request)

    def run(self) -> None:
        """Until nothing happens any more."""
        while self._events:
            when, _, act, arguments = heappop(self._events)
            self.now = max(self.now, when)
            act(*arguments)
            self.observe()
            if not self._events or self._events[0][0] > self.now:
                self._decide()

    def _arrive(self, request: Request) -> None:
        self.requests[request.id] = request
        try:
            self.scheduler.offer(request)
        except InferwayError as error:
            self._end(request, error.reason)

    def _cancel(self, request: Request) -> None:
        if not request.ended and request.id in self.requests:
            request.cancelled = True
            self.scheduler.withdraw(request)
            self._end(request, "cancelled")

    def _decide(self) -> None:
        decision = self.scheduler.decide(self.now)
        for request in decision.expired:
            self._end(request, "expired")
        self._advance()
        for batch in decision.batches:
            self.batches.append(batch)
            self._computing.append(_Computing(batch, self._random.lognormvariate(0, self._noise)))
        if decision.batches:
            self.most_at_once = max(self.most_at_once, len(self._computing))
            self._reschedule()
        if decision.wake_at is not None and decision.wake_at != self._wake_at:
            self._wake_at = decision.wake_at
            self.at(max(decision.wake_at, self.now), self._woken)

    def _woken(self) -> None:
        self._wake_at = -1.0

    def _served(self) -> list[_Computing]:
        return self._computing[: self.scheduler.capacity]

    def _seconds(self, one: _Computing) -> float:
        return one.noise * self._machine(one.batch.padded_rows, len(self._served()))

    def _advance(self) -> None:
        for one in self._served():
            one.began_at = self._advanced_at if one.began_at is None else one.began_at
            one.left -= (self.now - self._advanced_at) / self._seconds(one)
        self._advanced_at = self.now

    def _reschedule(self) -> None:
        """Who is done first is known as long as nobody joins."""
        self._epoch += 1
        served = self._served()
        if served:
            first = min(served, key=lambda one: one.left * self._seconds(one))
            self.at(self.now + max(0.0, first.left) * self._seconds(first), self._compute_ends, first, self._epoch)

    def _compute_ends(self, one: _Computing, epoch: int) -> None:
        if epoch != self._epoch:
            return
        self._advance()
        self._computing.remove(one)
        self._reschedule()
        began = self.now if one.began_at is None else one.began_at
        self.at(self.now + self._front_seconds, self._hear, one.batch, self.now - began)

    def _hear(self, batch: Batch, seconds: float) -> None:
        ids = {request.id for request in batch.requests}
        if ids & self.deadly:
            self._crash(batch)
        elif ids & self.poison:
            for request in self.scheduler.failed(batch, self.now):
                self.scheduler.withdraw(request)
                self._end(request, "failed")
        else:
            self.scheduler.finished(batch, seconds, self.now)
            for part in batch.parts:
                self._computed(part.payload, part.start, part.rows)

    def _crash(self, batch: Batch) -> None:
        """Everything at the runner ends with it."""
        lost = [batch, *(one.batch for one in self._computing)]
        self._computing.clear()
        self._epoch += 1
        for one in lost:
            for request in self.scheduler.crashed(one, self.now):
                self.scheduler.withdraw(request)
                self._end(request, "crashed")

    def _computed(self, request: Request, start: int, rows: int) -> None:
        if request.ended:
            return
        partial = self._partial.setdefault(request.id, Ending("answered", 0.0))
        partial.rows.append((start, rows))
        if sum(count for _, count in partial.rows) >= request.rows:
            self._end(request, "answered", partial.rows)

    def _end(self, request: Request, how: str, rows: list[tuple[int, int]] | None = None) -> None:
        if request.ended and how in ("crashed", "failed"):
            return  # it was cancelled while it was at the runner, or another part of it had the same end
        assert request.id not in self.endings, f"{request.id} ended twice: {self.endings[request.id].how}, then {how}"
        request.end()
        self.endings[request.id] = Ending(how, self.now, rows or [])
