"""Binds envelopes to workers as late as possible: one bounded queue per version, and credits.

A request is bound at once if nobody waits before it and a lane has room; else it waits here, where it can still be
refused, expire, or go to whichever worker is free first. Everything happens in calls that return at once: answers
and losses come in as events from the links, and callers wait on a future.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from inferway.errors import (
    Cancelled,
    DeadlineExceeded,
    InferwayError,
    NoWorker,
    Overloaded,
    QueueFull,
    VersionNotFound,
    WorkerLost,
)
from inferway_chassis.clock import Clock
from inferway_chassis.request_queue import Queued, QueueLimits, RequestQueue
from inferway_gateway.envelope import Envelope, Prediction
from inferway_gateway.forecast import Forecast, would_be_late
from inferway_gateway.lane import FRAME_SECONDS, Flight, Lane
from inferway_gateway.outcomes import ArmOutcomes, Outcomes
from inferway_gateway.retry_budget import RetryBudget
from inferway_gateway.routing import RoutingTable, Version
from inferway_gateway.tensors import Answer
from inferway_gateway.workers import Worker, why_not

MAX_ATTEMPTS = {"WORKER_LOST": 3, "RUNNER_CRASHED": 2, "VERSION_NOT_READY": 3, "NO_WORKER": 3, "DRAINING": 3}
"""Attempts in all, by the reason of the failure. A request that crashes its runner crashes at most two."""
NOT_EXECUTED = frozenset({"VERSION_NOT_READY", "NO_WORKER", "DRAINING"})
"""The worker refused before it computed anything: repeating does no harm, whatever the model does."""
REPEAT_SECONDS = 5.0
"""How long a request waits for a version that nobody has ready any more, unless its deadline comes before."""
EXPECTED_BACK = frozenset({"VERSION_NOT_READY", "NO_WORKER"})
"""Why a version that was ready a moment ago is not: its worker or its runner ended, and is being started again."""

T = TypeVar("T")


class Loop(Protocol):
    """The part of an event loop that the dispatcher needs."""

    def create_future(self) -> asyncio.Future[Prediction]:
        """A future that callers wait on."""

    def call_later(self, delay: float, callback: Callable[[T], object], argument: T) -> asyncio.TimerHandle:
        """Calls back after `delay` seconds."""


class Pool:
    """One version: who waits for it, and the lanes that have it ready."""

    __slots__ = ("forecast", "lanes", "lost_at", "queue", "timer", "withdrawn")

    def __init__(self, limits: QueueLimits) -> None:
        """Nobody waits, nobody is ready."""
        self.queue: RequestQueue[Flight] = RequestQueue(limits)
        self.forecast = Forecast()
        self.lanes: list[Lane] = []
        self.timer: asyncio.TimerHandle | None = None
        """Set while time alone will make room."""
        self.lost_at = -math.inf
        """When the last lane went."""
        self.withdrawn = False
        """The version does not exist any more."""

    @property
    def is_over(self) -> bool:
        """Nobody has it, nobody waits for it, and nobody ever will."""
        return self.withdrawn and not self.lanes and not self.queue.items

    def choose(self, flight: Flight, now: float) -> Lane | None:
        """The lane with room whose worker has the least to do, best one with an open frame; not who failed it last."""
        best, least = None, (True, 0, True, 0)
        for lane in self.lanes:
            if lane.has_room(flight.envelope, now):
                load = (lane.worker is flight.avoid, lane.worker.rows, not lane.is_forming, lane.rows)
                if best is None or load < least:
                    best, least = lane, load
        return best


class Dispatcher:
    """See the module."""

    def __init__(self, loop: Loop, clock: Clock, limits: QueueLimits, outcomes: Outcomes) -> None:
        """`limits` hold for each version; `outcomes` counts what becomes of requests."""
        self._loop, self._clock, self._limits, self._outcomes = loop, clock, limits, outcomes
        self._pools: dict[str, Pool] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self.workers: list[Worker] = []
        """All that are dialled, connected or not."""
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever a version became ready somewhere, or nowhere."""

    def submit(self, envelope: Envelope) -> Flight:
        """Takes responsibility for `envelope`: its flight's `result` will be set by the deadline, come what may.

        Raises VersionUnloaded, VersionNotServed, VersionNotReady, VersionLoadFailed, NoWorker, QueueFull, WouldBeLate,
        DeadlineExceeded.
        """
        version = envelope.version
        pool = self._pools.get(version.name)
        if pool is None or version.unloaded:
            raise self._refused(envelope, why_not(version, self.workers))
        now = self._clock()
        seconds_left = envelope.deadline - now
        if seconds_left <= 0:
            raise self._refused(envelope, DeadlineExceeded("the deadline has passed", stage="gateway"))
        flight = Flight(envelope, self._loop.create_future())
        if not pool.lanes:
            flight.failure = why_not(version, self.workers)
            patience = pool.lost_at + REPEAT_SECONDS - now
            if patience <= 0 or flight.failure.reason not in EXPECTED_BACK:
                raise self._refused(envelope, flight.failure)
            seconds_left = min(patience, seconds_left)
        self._budget(envelope.endpoint).count_first_attempt()
        try:
            self._place(pool, flight)
        except Overloaded as refusal:
            raise self._refused(envelope, refusal) from None
        self._time(flight, seconds_left, self._expire if flight.failure is None else self._give_up)
        return flight

    def abandon(self, flight: Flight) -> None:
        """The caller went away: what waits is dropped, what a worker holds is cancelled there."""
        flight.result.cancel()
        if flight.timer is not None:
            self._settle(flight, Cancelled("the caller went away"))

    def is_ready(self, version: Version) -> bool:
        """Whether some connected worker answers for `version`."""
        pool = self._pools.get(version.name)
        return pool is not None and bool(pool.lanes) and not version.unloaded

    def why_not(self, version: Version) -> InferwayError:
        """Why `is_ready` says no."""
        return why_not(version, self.workers)

    def pools(self) -> list[tuple[str, Pool]]:
        """Every version that is or was ready somewhere, for metrics."""
        return list(self._pools.items())

    def apply(self, table: RoutingTable) -> None:
        """Refuses what waits for versions that are no more, and forgets them; pools go with their last lane."""
        for name, pool in list(self._pools.items()):
            version = table.versions.get(name)
            pool.withdrawn = version is None
            if version is None or version.unloaded:
                for queued in pool.queue.drain():
                    self._settle(queued.payload, self._withdrawn(name, version))
            if pool.is_over:
                del self._pools[name]
        self._outcomes.keep(table.endpoints, table.versions)
        for endpoint in self._budgets.keys() - table.endpoints.keys():
            del self._budgets[endpoint]

    def set_ready(self, lane: Lane, ready: Iterable[str]) -> None:
        """`lane` says which versions may be bound to it from now on."""
        before, lane.ready = lane.ready, frozenset(ready)
        for name in before - lane.ready:
            pool = self._pools[name]
            pool.lanes.remove(lane)
            if not pool.lanes:
                pool.lost_at = self._clock()
            if pool.is_over:
                del self._pools[name]
        for name in lane.ready - before:
            pool = self._pools.setdefault(name, Pool(self._limits))
            pool.lanes.append(lane)
            self._pump(pool)
        if before != lane.ready:
            self.on_change()

    def grant(self, lane: Lane, version: str, rows: int) -> None:
        """`lane` has room for more rows of `version`."""
        lane.grant(version, rows)
        pool = self._pools.get(version)
        if pool is not None and pool.queue:
            self._pump(pool)

    def has_room_again(self) -> None:
        """Binds what waits. Called once after the answers of a message, not after each: room comes back in frames."""
        for pool in self._pools.values():
            if pool.queue.items:
                self._pump(pool)

    def answered(self, lane: Lane, ticket: int, answer: Answer) -> None:
        """The worker answered with outputs."""
        flight = lane.release(ticket)
        if flight is None:
            return
        self._settle(flight, answer)

    def failed(self, lane: Lane, ticket: int, error: InferwayError) -> None:
        """The worker answered with an error."""
        flight = lane.release(ticket)
        if flight is None:
            return
        if error.reason in NOT_EXECUTED:
            # Its next hello says when the version may be bound there again.
            self.set_ready(lane, lane.ready - {flight.envelope.version.name})
        self._retry_or_settle(flight, lane.worker, error)

    def lost(self, lane: Lane) -> None:
        """The link is gone, and with it every answer that was still out."""
        self.set_ready(lane, ())
        for flight in lane.close():
            if flight.written:
                lost = WorkerLost("the worker went away while it held the request; it may have computed it")
                self._retry_or_settle(flight, lane.worker, lost)
            else:
                self._requeue(flight, lane.worker, NoWorker("the worker went away before it got the request"))

    def _retry_or_settle(self, flight: Flight, worker: Worker, error: InferwayError) -> None:
        if not self._may_retry(flight, error):
            self._settle(flight, error)
            return
        flight.attempt += 1
        self._counts(flight.envelope).retries += 1
        self._requeue(flight, worker, error)

    def _may_retry(self, flight: Flight, error: InferwayError) -> bool:
        envelope = flight.envelope
        return (
            flight.attempt < MAX_ATTEMPTS.get(error.reason, 0)
            and (envelope.version.idempotent or error.reason in NOT_EXECUTED)
            and envelope.deadline > self._clock()
            and self._budget(envelope.endpoint).withdraw()
        )

    def _requeue(self, flight: Flight, worker: Worker, error: InferwayError) -> None:
        """Lets `flight` wait for any worker, rather than for `worker`; ends it with `error` if there is no room."""
        flight.avoid = worker
        flight.failure = flight.failure or error
        try:
            self._place(self._pools.setdefault(flight.envelope.version.name, Pool(self._limits)), flight)
        except Overloaded:
            self._settle(flight, error)
        else:
            if self._is_stranded(flight):
                self._time(flight, min(REPEAT_SECONDS, self._seconds_left(flight)), self._give_up)

    def _is_stranded(self, flight: Flight) -> bool:
        return flight.queued is not None and not self._pools[flight.envelope.version.name].lanes

    def _seconds_left(self, flight: Flight) -> float:
        return max(0.0, flight.envelope.deadline - self._clock())

    def _time(self, flight: Flight, seconds: float, callback: Callable[[Flight], None]) -> None:
        """Sets the one timer that a flight has."""
        if flight.timer is not None:
            flight.timer.cancel()
        flight.timer = self._loop.call_later(seconds, callback, flight)

    def _give_up(self, flight: Flight) -> None:
        """Ends a flight that waits for nobody with what failed it; any other one has until its deadline."""
        if flight.failure is not None and self._is_stranded(flight):
            self._settle(flight, flight.failure)
        else:
            self._time(flight, self._seconds_left(flight), self._expire)

    def _place(self, pool: Pool, flight: Flight) -> None:
        if not pool.queue.items:
            now = self._clock()
            lane = pool.choose(flight, now)
            if lane is not None:
                lane.bind(flight, now)
                return
        envelope = flight.envelope
        caller = envelope.caller
        queued = Queued(
            flight, envelope.deadline, envelope.rows, envelope.byte_count, caller.criticality, caller.tenant
        )
        self._refuse_if_late(pool, queued)
        try:
            pool.queue.offer(queued)
        except QueueFull as full:
            full.metadata = {"model": envelope.version.model, "version": str(envelope.version.number)}
            raise
        pool.forecast.joined(queued)
        flight.queued = queued
        self._pump_later(pool, envelope.version.name)

    def _refuse_if_late(self, pool: Pool, queued: Queued[Flight]) -> None:
        now, version = self._clock(), queued.payload.envelope.version
        loads = [worker.load_of(version.name) for worker in {lane.worker for lane in pool.lanes}]
        predicted = pool.forecast.late(now, queued, pool.queue, pool.queue.rows, loads)
        if predicted is not None:
            raise would_be_late(version.model, version.number, predicted, queued.deadline - now)

    def _pump(self, pool: Pool) -> None:
        """Binds what waits, in order, for as long as there is room for the next one."""
        now = self._clock()
        while (head := pool.queue.peek()) is not None:
            flight = head.payload
            lane = pool.choose(flight, now)
            if lane is None:
                self._pump_later(pool, flight.envelope.version.name)
                return
            pool.queue.take()
            pool.forecast.left(head)
            flight.queued = None
            lane.bind(flight, now)

    def _pump_later(self, pool: Pool, version: str) -> None:
        if pool.timer is None and any(lane.is_paced(version) for lane in pool.lanes):
            pool.timer = self._loop.call_later(FRAME_SECONDS, self._pump_now, pool)

    def _pump_now(self, pool: Pool) -> None:
        pool.timer = None
        self._pump(pool)

    def _expire(self, flight: Flight) -> None:
        if flight.failure is not None and self._is_stranded(flight):
            self._settle(flight, flight.failure)
            return
        stage, held_by = ("worker", "a worker") if flight.lane is not None else ("queue", "the gateway's queue")
        self._settle(flight, DeadlineExceeded(f"the deadline passed while {held_by} held the request", stage=stage))

    def _settle(self, flight: Flight, outcome: Answer | InferwayError) -> None:
        """Ends `flight`, wherever it is. The only place where results are set and counted."""
        self._take_back(flight)
        if flight.timer is not None:
            flight.timer.cancel()
            flight.timer = None
        envelope, counts = flight.envelope, self._counts(flight.envelope)
        if isinstance(outcome, InferwayError):
            counts.failed(outcome.code)
            if not flight.result.done():
                flight.result.set_exception(outcome)
        else:
            counts.answered(self._clock() - envelope.received_at)
            if not flight.result.done():
                queue_us = int((flight.bound_at - envelope.received_at) * 1e6)
                flight.result.set_result(Prediction(envelope, outcome, queue_us))

    def _take_back(self, flight: Flight) -> None:
        if flight.lane is not None:
            flight.lane.give_up(flight)
            self.has_room_again()
        elif flight.queued is not None:
            pool = self._pools[flight.envelope.version.name]
            pool.queue.remove(flight.queued)
            pool.forecast.left(flight.queued)
            flight.queued = None

    def _withdrawn(self, name: str, version: Version | None) -> InferwayError:
        if version is not None:
            return why_not(version, self.workers)
        return VersionNotFound(f"{name} was deleted", model=name.split("/")[1], version=name.rpartition("/")[2])

    def _refused(self, envelope: Envelope, error: InferwayError) -> InferwayError:
        self._counts(envelope).failed(error.code)
        return error

    def _counts(self, envelope: Envelope) -> ArmOutcomes:
        return self._outcomes.of(envelope.endpoint, envelope.arm, envelope.version.name)

    def _budget(self, endpoint: str) -> RetryBudget:
        budget = self._budgets.get(endpoint)
        if budget is None:
            budget = self._budgets[endpoint] = RetryBudget(self._clock)
        return budget
