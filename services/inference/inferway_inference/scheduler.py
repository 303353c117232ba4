"""Decides what a version's runner computes next. Pure: time and events come in, decisions go out.

    offer ──► lane of the request's key ──► decide ──► Batch ──► finished
                     │  withdraw, expire                 └─────► failed ──► each request of it alone

Batches are counted in rows and never mix keys. While the runner is idle nothing waits; while it computes, requests
gather, and what has gathered goes as one batch when it is free (natural batching: no timer, no guess). A batch that
fails is taken apart, so that the request at fault fails alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from inferway.errors import QueueFull
from inferway.names import parse_version
from inferway_chassis.request_queue import Queued, QueueLimits, RequestQueue
from inferway_inference.latency import LatencyModel, Speed
from inferway_inference.sizing import speed_of
from inferway_inference.work import Batch, DispatchReason, Request

PIPELINE_BELOW_SECONDS = 0.002
"""A second batch waits at the runner while a batch this short computes: the hop between processes then costs no idle
time. Behind longer ones it would only keep its requests from gathering."""
IDLE_LANES = 16
"""Lanes without requests that are kept for their fairness between tenants."""


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """Bounds of one version's scheduler."""

    max_batch_rows: int = 64
    max_batch_bytes: int = 64 * 1024 * 1024
    """Of inputs: the rows of a few requests can be large."""
    max_compute_seconds: float = 60.0
    """A runner that takes longer for a batch hangs, as far as anybody can tell."""
    limits: QueueLimits = field(default_factory=QueueLimits)


@dataclass(slots=True)
class Decision:
    """What to do now."""

    batches: list[Batch]
    """To dispatch, in order."""
    expired: list[Request]
    """To be told that their deadline passed."""
    wake_at: float | None
    """When to decide again if nothing happens before."""
    overdue: bool = False
    """The runner has computed one batch for longer than is permitted."""


class Scheduler:
    """Of one version. A request is in one place only: waiting, at the runner, or gone."""

    def __init__(self, options: SchedulerOptions) -> None:
        """Nothing waits."""
        self.options = options
        self.latency = LatencyModel()
        self.waiting_items = self.waiting_rows = self.waiting_bytes = 0
        self._lanes: dict[Hashable, RequestQueue[Request]] = {}
        self._alone: deque[Request] = deque()
        self._running: list[Batch] = []

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is at the runner."""
        return not self.waiting_items and not self._running

    def learned(self) -> Speed:
        """The speed of what is called most."""
        return speed_of(self.latency, 1, self.options.max_batch_rows)

    def offer(self, request: Request) -> None:
        """Takes a request in; raises QueueFull."""
        self._refuse_if_full(request)
        lane = self._lanes.get(request.key)
        if lane is None:
            lane = self._open_lane(request.key)
        queued = Queued(
            request, request.deadline, request.rows, request.byte_count, request.criticality, request.tenant
        )
        lane.offer(queued)
        request.queued = queued
        self._count(request, +1)

    def withdraw(self, request: Request) -> bool:
        """Forgets a request whose caller went away; False if it is at the runner already or gone."""
        if request in self._alone:
            self._alone.remove(request)
        elif request.queued is None or not self._lanes[request.key].remove(request.queued):
            return False
        self._left(request)
        return True

    def decide(self, now: float) -> Decision:
        """What to dispatch and whom to refuse at `now`."""
        expired, batches = self._expire(now) if self.waiting_items else [], list[Batch]()
        while self.waiting_items and len(self._running) < self._outstanding_limit():
            batch = self._next_batch()
            batch.dispatched_at = now
            self._running.append(batch)
            batches.append(batch)
        limit = self._running[0].dispatched_at + self.options.max_compute_seconds if self._running else None
        return Decision(batches, expired, self._next_wake(limit), overdue=limit is not None and limit <= now)

    def finished(self, batch: Batch, compute_seconds: float) -> None:
        """The runner answered `batch`."""
        self._running.remove(batch)
        self.latency.observe(batch.requests[0].curve, batch.rows, compute_seconds)

    def failed(self, batch: Batch) -> list[Request]:
        """The model raised an error on `batch`; returns the requests that fail for good, the others run alone next."""
        self._running.remove(batch)
        if len(batch.requests) == 1:
            return batch.requests
        for request in batch.requests:
            if not request.cancelled:
                self._alone.append(request)
                self._count(request, +1)
        return []

    def abandon(self) -> tuple[list[Request], list[Request]]:
        """The runner is gone: forgets everything and returns what was at it, and what waited."""
        running = [request for batch in self._running for request in batch.requests]
        waiting = [*self._alone, *(queued.payload for lane in self._lanes.values() for queued in lane.drain())]
        self._running.clear()
        self._alone.clear()
        self._lanes.clear()
        self.waiting_items = self.waiting_rows = self.waiting_bytes = 0
        return running, waiting

    def _outstanding_limit(self) -> int:
        if not self._running:
            return 1
        last = self._running[-1]
        seconds = self.latency.of(last.requests[0].curve).seconds(last.rows)
        return 2 if seconds is not None and seconds < PIPELINE_BELOW_SECONDS else 1

    def _next_batch(self) -> Batch:
        if self._alone:
            request = self._alone.popleft()
            self._left(request)
            return Batch([request], DispatchReason.IDLE)
        lane = min((lane for lane in self._lanes.values() if lane.items), key=_urgency)
        first = lane.take()
        assert first is not None
        self._left(first.payload)
        if not first.payload.signature.batchable:
            return Batch([first.payload], DispatchReason.UNBATCHED)
        return self._fill(first.payload, lane)

    def _fill(self, first: Request, lane: RequestQueue[Request]) -> Batch:
        requests = [first]
        rows, room = self.options.max_batch_rows - first.rows, self.options.max_batch_bytes - first.byte_count
        head = lane.peek()
        while head is not None and head.rows <= rows and head.byte_count <= room:
            lane.take()
            self._left(head.payload)
            requests.append(head.payload)
            rows, room = rows - head.rows, room - head.byte_count
            head = lane.peek()
        full = head is not None or rows <= 0
        return Batch(requests, DispatchReason.FULL if full else DispatchReason.IDLE)

    def _expire(self, now: float) -> list[Request]:
        late = [request for request in self._alone if request.deadline <= now]
        for request in late:
            self._alone.remove(request)
        late += [queued.payload for lane in self._lanes.values() if lane.items for queued in lane.expire(now)]
        for request in late:
            self._left(request)
        return late

    def _next_wake(self, limit: float | None) -> float | None:
        wakes = [lane.next_deadline() for lane in self._lanes.values() if lane.items]
        wakes += [request.deadline for request in self._alone]
        return min((at for at in (limit, *wakes) if at is not None), default=None)

    def _open_lane(self, key: Hashable) -> RequestQueue[Request]:
        if len(self._lanes) >= IDLE_LANES:
            self._lanes = {known: lane for known, lane in self._lanes.items() if lane.items}
        lane = self._lanes[key] = RequestQueue[Request](self.options.limits)
        return lane

    def _refuse_if_full(self, request: Request) -> None:
        """The lanes share one set of limits."""
        limits = self.options.limits
        if (
            self.waiting_items >= limits.max_items
            or (self.waiting_rows + request.rows > limits.max_rows and self.waiting_items)
            or (self.waiting_bytes + request.byte_count > limits.max_bytes and self.waiting_items)
        ):
            model, number = parse_version(request.version)
            raise QueueFull(
                f"the worker's queue of {request.version} is full: {self.waiting_items} requests, "
                f"{self.waiting_rows} rows, {self.waiting_bytes} bytes",
                model=model,
                version=number,
            )

    def _left(self, request: Request) -> None:
        request.queued = None
        self._count(request, -1)

    def _count(self, request: Request, sign: int) -> None:
        self.waiting_items += sign
        self.waiting_rows += sign * request.rows
        self.waiting_bytes += sign * request.byte_count


def _urgency(lane: RequestQueue[Request]) -> tuple[int, float]:
    head = lane.peek()
    assert head is not None
    return head.criticality, head.deadline
