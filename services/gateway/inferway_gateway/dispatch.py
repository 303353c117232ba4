"""Binds envelopes to workers as late as possible: one bounded queue per version, and credits.

A request is bound at once if nobody waits before it and a lane has room; else it waits here, where it can still be
refused, expire, or go to whichever worker is free first. Everything happens in calls that return at once: answers
and losses come in as events from the links, and callers wait on a future.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

from inferway.errors import (
    Cancelled,
    DeadlineExceeded,
    InferwayError,
    NoWorker,
    Overloaded,
    Quarantined,
    RunnerCrashed,
    WorkerLost,
)
from inferway_chassis.clock import Clock
from inferway_chassis.request_queue import QueueLimits
from inferway_gateway.envelope import Envelope, Prediction
from inferway_gateway.lane import Flight, Lane, Loop
from inferway_gateway.outcomes import ArmOutcomes, Outcomes
from inferway_gateway.pool import Pool
from inferway_gateway.pools import Pools
from inferway_gateway.retries import MAY_HAVE_RUN, NOT_EXECUTED, Retries, blames_worker, pause_before
from inferway_gateway.routing import RoutingTable, Version
from inferway_gateway.tensors import Answer
from inferway_gateway.ward import Ward
from inferway_gateway.workers import Worker, why_not, why_withdrawn

REPEAT_SECONDS = 5.0
"""How long a request waits for a version that nobody has ready any more, unless its deadline comes before."""
EXPIRY_SLACK_SECONDS = 0.005
"""A call that its transport ends so shortly before the deadline has run out of time: its timer was the quicker one."""
EXPECTED_BACK = frozenset({"VERSION_NOT_READY", "NO_WORKER"})
"""Why a version that was ready a moment ago is not: its worker or its runner ended, and is being started again."""


class Dispatcher:
    """See the module."""

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        limits: QueueLimits,
        outcomes: Outcomes,
        random: Callable[[], float] = random.random,
    ) -> None:
        """`limits` hold for each version; `outcomes` counts what becomes of requests."""
        self._loop, self._clock, self._outcomes = loop, clock, outcomes
        self._random = random
        self._pools = Pools(loop, clock, limits, random)
        self._retries = Retries(clock)
        self._ward = Ward(clock, lambda flight: self._pools.place(self._pools.of(flight), flight), self._settle)
        self.guard = self._ward.guard
        """Knows who may have crashed runners."""
        self.workers: list[Worker] = []
        """All that are dialled, connected or not."""
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever a version became ready somewhere, or nowhere."""

    def submit(self, envelope: Envelope) -> Flight:
        """Takes responsibility for `envelope`: its flight's `result` will be set by the deadline, come what may.

        Raises VersionUnloaded, VersionNotServed, VersionNotReady, VersionLoadFailed, NoWorker, QueueFull, WouldBeLate,
        DeadlineExceeded, Quarantined.
        """
        version = envelope.version
        pool = self._pools.by_version.get(version.name)
        if pool is None or version.unloaded:
            raise self._refused(envelope, why_not(version, self.workers))
        now = self._clock()
        seconds_left = envelope.deadline - now
        if seconds_left <= 0:
            raise self._refused(envelope, DeadlineExceeded("the deadline has passed", stage="gateway"))
        flight = Flight(envelope, self._loop.create_future())
        if not pool.lanes:
            seconds_left = min(self._patience(pool, flight, now), seconds_left)
        self._retries.count_first_attempt(envelope)
        try:
            if self.guard.known and not envelope.is_copy:
                self._ward.recognise(flight)
            if flight.suspicion is None:
                self._pools.place(pool, flight)
        except (Overloaded, Quarantined) as refusal:
            raise self._refused(envelope, refusal) from None
        self._time(flight, seconds_left, self._expire if flight.failure is None else self._give_up)
        if flight.suspicion is not None:
            self._ward.enter(flight)
        return flight

    def _patience(self, pool: Pool, flight: Flight, now: float) -> float:
        """How long a new `flight` waits for a version that nobody has ready; raises why, if that is hopeless."""
        flight.failure = why_not(flight.envelope.version, self.workers)
        seconds = pool.lost_at + REPEAT_SECONDS - now
        if seconds <= 0 or flight.failure.reason not in EXPECTED_BACK:
            raise self._refused(flight.envelope, flight.failure)
        return seconds

    def abandon(self, flight: Flight) -> None:
        """The caller went away, or its time is up: what waits is dropped, what a worker holds is cancelled there."""
        flight.result.cancel()
        is_late = self._seconds_left(flight) < EXPIRY_SLACK_SECONDS
        if flight.timer is not None and is_late:
            self._expire(flight)
        elif flight.timer is not None:
            self._settle(flight, Cancelled("the caller went away"))

    def is_ready(self, version: Version) -> bool:
        """Whether some connected worker answers for `version`."""
        pool = self._pools.by_version.get(version.name)
        return pool is not None and bool(pool.lanes) and not version.unloaded

    def why_not(self, version: Version) -> InferwayError:
        """Why `is_ready` says no."""
        return why_not(version, self.workers)

    def is_away(self, version: str) -> bool:
        """Whether nobody has it ready only because whoever had it went away, and none has loaded it again.

        A worker that stays and has it no longer, or failed to load it, says that the version itself is broken.
        """
        pool = self._pools.by_version.get(version)
        if pool is not None and pool.lanes:
            return False
        return not any(version in worker.tried and self._stays(worker) for worker in self.workers)

    def pools(self) -> list[tuple[str, Pool]]:
        """Every version that is or was ready somewhere, for metrics."""
        return list(self._pools.by_version.items())

    def apply(self, table: RoutingTable) -> None:
        """Refuses what waits for versions that are no more, and forgets them; pools go with their last lane."""
        for name, pool in self.pools():
            version = table.versions.get(name)
            pool.withdrawn = version is None
            pool.keep(self.workers)
            if version is None or version.unloaded:
                for flight in [*(queued.payload for queued in pool.queue.drain()), *self._ward.waiting(name)]:
                    self._settle(flight, why_withdrawn(name, version, self.workers))
            self._pools.forget_if_over(name)
        self._outcomes.keep(table.endpoints, table.versions)
        self._retries.keep(table.endpoints)

    def set_ready(self, lane: Lane, ready: Iterable[str], *, failed: bool = False) -> None:
        """Which versions may be bound to `lane` from now on; `failed` if they became fewer because something broke."""
        before = lane.ready
        if not self._pools.set_ready(lane, ready, failed=failed):
            return
        for name in before - lane.ready:
            pool = self._pools.by_version.get(name)
            if pool is not None and not pool.lanes:
                self._strand(pool)
        self.on_change()

    def _strand(self, pool: Pool) -> None:
        """Nobody has its version ready any more: what waits in it has no time but to wait for somebody."""
        for queued in pool.queue:
            flight = queued.payload
            flight.failure = flight.failure or why_not(flight.envelope.version, self.workers)
            self._limit_wait(flight)

    def grant(self, lane: Lane, version: str, rows: int) -> None:
        """`lane` has room for more rows of `version`."""
        lane.grant(version, rows)
        self._pools.pump(version)

    def has_room_again(self) -> None:
        """Binds what waits. Called once after the answers of a message, not after each: room comes back in frames."""
        self._pools.pump_all()

    def answered(self, lane: Lane, ticket: int, answer: Answer) -> None:
        """The worker answered with outputs."""
        if lane.silenced:
            self.spoke_again(lane.worker)
        flight = lane.release(ticket)
        if flight is None:
            return
        member = flight.member
        if member is not None:
            member.succeeded()
            if member.trial is flight:
                self._judge(flight, passed=True)
        if flight.suspicion is not None:
            self.guard.clear(flight.suspicion)
        self._settle(flight, answer)

    def failed(self, lane: Lane, ticket: int, error: InferwayError) -> None:
        """The worker answered with an error."""
        if lane.silenced:
            self.spoke_again(lane.worker)
        flight = lane.release(ticket)
        if flight is None:
            return
        self._judge(flight, passed=False if blames_worker(error) else None)
        is_copy = flight.envelope.is_copy  # it is never sent alone, so it proves nothing
        if error.reason in NOT_EXECUTED:
            # Its next hello says when the version may be bound there again.
            self.set_ready(lane, lane.ready - {flight.envelope.version.name})
        elif isinstance(error, RunnerCrashed) and not is_copy:
            error = self._ward.accuse(flight, error)
        elif isinstance(error, Quarantined) and not is_copy:
            self.guard.convict(flight.envelope, self._clock())
        self._retry_or_settle(flight, lane.worker, error)

    def lost(self, lane: Lane) -> None:
        """The link is gone, and with it every answer that was still out."""
        self.set_ready(lane, (), failed=not lane.draining)
        self._pools.remove(lane)
        for flight in lane.close():
            self._judge(flight, passed=None)
            if flight.written:
                self._retry_or_settle(flight, lane.worker, _lost())
            else:
                self._requeue(flight, lane.worker, NoWorker("the worker went away before it got the request"))

    def oldest_bound_at(self, worker: Worker) -> float:
        """Since when an answer of `worker` is due; infinite if none is."""
        return min([lane.oldest_bound_at for lane in self._pools.lanes_of(worker)], default=math.inf)

    def fell_silent(self, worker: Worker) -> None:
        """`worker` holds requests and gives no sign of life: others get its work until it `spoke_again`.

        What it holds moves only if somebody else can answer it. Else it stays: it may still be answered where it is.
        """
        worker.is_silent, worker.silences = True, worker.silences + 1
        lanes = self._pools.lanes_of(worker)
        for lane in lanes:
            ready = lane.ready
            self.set_ready(lane, (), failed=True)
            lane.silenced = ready
        for lane in lanes:
            for flight in lane.flights:
                self._rescue(flight, lane)

    def spoke_again(self, worker: Worker) -> None:
        """`worker` gives signs of life."""
        worker.is_silent = False
        for lane in self._pools.lanes_of(worker):
            if lane.silenced and not lane.draining:
                self.set_ready(lane, lane.silenced)

    def _rescue(self, flight: Flight, lane: Lane) -> None:
        pool = self._pools.by_version.get(flight.envelope.version.name)
        if pool is None or not pool.lanes:
            return
        if flight.written:
            if not self._retries.permits(flight, _lost()):
                return
            self._count_retry(flight)
        lane.give_up(flight)
        self._requeue(flight, lane.worker, _lost())

    def _judge(self, flight: Flight, *, passed: bool | None) -> None:
        """The worker of `flight` did well, or not; None if its end says nothing about the worker."""
        member, flight.member = flight.member, None
        pool = self._pools.by_version.get(flight.envelope.version.name)
        if member is not None and pool is not None:
            pool.judge(member, flight, self._clock(), passed=passed)

    def _retry_or_settle(self, flight: Flight, worker: Worker, error: InferwayError) -> None:
        if not self._retries.permits(flight, error):
            if not flight.envelope.version.idempotent and error.reason in MAY_HAVE_RUN:
                error.retry_after_seconds = None  # so its caller must not repeat it either
            self._settle(flight, error)
            return
        self._count_retry(flight)
        if error.reason not in NOT_EXECUTED:
            flight.gives_up_at = math.inf
        self._requeue(flight, worker, error)

    def _count_retry(self, flight: Flight) -> None:
        flight.attempt += 1
        self._counts(flight.envelope).retries += 1

    def _requeue(self, flight: Flight, worker: Worker, error: InferwayError) -> None:
        """Lets `flight` wait for any worker, rather than for `worker`; ends it with `error` if there is no room."""
        flight.avoid = worker
        flight.failure = flight.failure or error
        pause = pause_before(flight.attempt, self._random)
        if flight.suspicion is not None:
            self._ward.enter(flight)
        elif pause:
            self._time(flight, min(pause, self._seconds_left(flight)), self._paused)
            return
        else:
            self._place_again(flight)
        self._limit_wait(flight)

    def _paused(self, flight: Flight) -> None:
        self._time(flight, self._seconds_left(flight), self._expire)
        self._place_again(flight)
        self._limit_wait(flight)

    def _place_again(self, flight: Flight) -> None:
        try:
            self._pools.place(self._pools.of(flight), flight)
        except Overloaded as refusal:
            self._settle(flight, flight.failure or refusal)

    def _limit_wait(self, flight: Flight) -> None:
        if self._is_stranded(flight):
            now = self._clock()
            flight.gives_up_at = min(flight.gives_up_at, now + REPEAT_SECONDS)
            self._time(flight, max(0.0, min(flight.gives_up_at - now, self._seconds_left(flight))), self._give_up)

    def _is_stranded(self, flight: Flight) -> bool:
        """Whether it waits for a version that nobody has ready."""
        return flight.lane is None and not flight.result.done() and not self._pools.of(flight).lanes

    def _stays(self, worker: Worker) -> bool:
        """Whether it is linked, speaks, and is not about to leave."""
        return any(not lane.draining and not lane.silenced for lane in self._pools.lanes_of(worker))

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

    def _expire(self, flight: Flight) -> None:
        if flight.failure is not None and self._is_stranded(flight):
            self._settle(flight, flight.failure)
            return
        if flight.lane is not None:
            self._judge(flight, passed=False)
        stage, held_by = ("worker", "a worker") if flight.lane is not None else ("queue", "the gateway's queue")
        self._settle(flight, DeadlineExceeded(f"the deadline passed while {held_by} held the request", stage=stage))

    def _settle(self, flight: Flight, outcome: Answer | InferwayError) -> None:
        """Ends `flight`, wherever it is. The only place where results are set and counted."""
        self._take_back(flight)
        if flight.timer is not None:
            flight.timer.cancel()
            flight.timer = None
        if flight.suspicion is not None:
            self._ward.leave(flight)
        envelope, counts = flight.envelope, self._counts(flight.envelope)
        if envelope.observer is not None:
            envelope.observer.ended(envelope, outcome, self._clock())
        if isinstance(outcome, InferwayError):
            counts.failed(outcome.code)
            if not flight.result.done():
                flight.result.set_exception(outcome)
        else:
            counts.answered(self._clock() - envelope.received_at)
            if not flight.result.done():
                queue_us = int((flight.bound_at - envelope.received_at) * 1e6)
                flight.result.set_result(Prediction(envelope, outcome, queue_us))
        envelope.inputs = ()  # an answer that nobody reads must not keep what nobody needs

    def _take_back(self, flight: Flight) -> None:
        if flight.lane is not None:
            self._judge(flight, passed=None)
            flight.lane.give_up(flight)
            self.has_room_again()
        elif flight.queued is not None:
            self._pools.of(flight).drop(flight)

    def _refused(self, envelope: Envelope, error: InferwayError) -> InferwayError:
        self._counts(envelope).failed(error.code)
        if envelope.observer is not None:
            envelope.observer.ended(envelope, error, self._clock())
        return error

    def _counts(self, envelope: Envelope) -> ArmOutcomes:
        if envelope.is_copy:
            return self._outcomes.copies
        return self._outcomes.of(envelope.endpoint, envelope.arm, envelope.version.name)


def _lost() -> WorkerLost:
    return WorkerLost("the worker went away while it held the request; it may have computed it")
