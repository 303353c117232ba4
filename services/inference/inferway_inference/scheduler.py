"""Decides what a version's runners compute next. Pure: time and events come in, decisions go out.

    offer ──► lane of the request's key ──► decide ──► Batch ──► finished
      │  │           │  withdraw, expire                 ├─────► failed ──► its halves, until one request is at fault
      │  └ WouldBeLate, QueueFull, Quarantined           └─────► crashed ─► suspects, who run alone when they come again
      └ larger than a batch should be: in parts

Batches are counted in rows and never mix keys. As many compute side by side as `capacity` says. A free runner takes
what is there, in the size that computes the most rows a second, unless waiting for a moment is expected to save more
than it costs. Before anything is learned it takes all that fits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from inferway.errors import QueueFull
from inferway.names import parse_version
from inferway_chassis.request_queue import QueueLimits
from inferway_inference.backlog import Backlog
from inferway_inference.crowd import ONLY_ONE, Crowd, was_crowded
from inferway_inference.decision_log import Cause, DecisionLog, Dispatch
from inferway_inference.door import work_in_time
from inferway_inference.filling import fill
from inferway_inference.holding import NO_HOLD, Hold, hold
from inferway_inference.lane import Bounds, Lane, cut
from inferway_inference.latency import LatencyModel, Speed
from inferway_inference.plan import ServingBounds
from inferway_inference.quarantine import Quarantine
from inferway_inference.sizing import speed_of
from inferway_inference.work import Batch, Decision, DispatchReason, Part, Request

PIPELINE_BELOW_SECONDS = 0.0005
"""One more batch waits at the runner while a batch this short computes: the hop between processes then costs no idle
time. Behind longer ones it would only keep its requests from gathering, and those that are due sooner waiting: at 2 ms
the medium model lost an eighth of its goodput at 0.7 of capacity."""
IDLE_LANES = 16
"""Lanes without requests that are kept for their fairness between tenants."""


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """Bounds of one version's scheduler, as they hold when the operator sets none."""

    max_batch_rows: int = 512
    max_batch_bytes: int = 64 * 1024 * 1024
    """Of inputs: the rows of a few requests can be large."""
    max_compute_seconds: float = 60.0
    """A runner that takes longer for a batch hangs, as far as anybody can tell."""
    limits: QueueLimits = field(default_factory=QueueLimits)
    buckets: tuple[int, ...] = ()
    """Rows to which batches are padded, ascending."""


class Scheduler:
    """Of one version. Each part of a request is in one place only: waiting, at a runner, or gone."""

    def __init__(self, options: SchedulerOptions, capacity: int = 1, quarantine: Quarantine | None = None) -> None:
        """Nothing waits."""
        self.options = options
        self.capacity = capacity
        self.bounds = ServingBounds()
        """What the operator set."""
        self.latency = LatencyModel()
        self.log = DecisionLog()
        self.quarantine = quarantine or Quarantine()
        self.waiting_rows = self.waiting_bytes = 0
        self._holds = self._what_holds()
        self._lanes: dict[Hashable, Lane] = {}
        self._waiting: dict[Part, Lane] = {}
        """By arrival."""
        self._backlog = Backlog(options.limits.weights)
        self._groups: deque[tuple[Lane, list[Part], Cause]] = deque()
        """To be computed next, each as one batch: halves of failed ones. Suspects go last, when nothing else runs."""
        self._running: dict[Batch, tuple[Lane, Dispatch]] = {}
        """By dispatch."""
        self._suspect: Batch | None = None
        """At the runner, alone."""
        self._next_free_at = 0.0
        """When the runners are expected to have room for another batch; in the past if they have."""
        self._crowd = Crowd()

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is at a runner."""
        return not self._waiting and not self._running

    @property
    def waiting_items(self) -> int:
        """Requests that wait; of one that is split, each part counts."""
        return len(self._waiting)

    @property
    def max_batch_rows(self) -> int:
        """As it holds now."""
        return self._holds.most_rows

    def oldest_seconds(self, now: float) -> float:
        """How long the oldest that waits has waited."""
        part = next(iter(self._waiting), None)
        return 0.0 if part is None else now - part.payload.received_at

    def learned(self) -> Speed:
        """The speed of what is called most, in short."""
        return speed_of(self.latency, self.capacity, self._holds.most_rows, self._holds.buckets)

    def best_rows(self) -> int:
        """The largest of the best batch sizes of what is called."""
        return max([lane.part_rows for lane in self._lanes.values() if lane.batchable], default=self.max_batch_rows)

    def set_capacity(self, capacity: int) -> None:
        """So many batches may compute at once from now on."""
        self.capacity = capacity
        self._note_free()
        self._rebound()

    def rebound(self, bounds: ServingBounds) -> None:
        """Tunes itself within other bounds from now on; what waits is cut anew where batches became smaller."""
        self.bounds = bounds
        self._rebound()
        for lane in self._lanes.values():
            for part in lane.drain():
                self._cut_again(part, lane)

    def offer(self, request: Request) -> None:
        """Takes a request in; raises Quarantined, QueueFull or WouldBeLate."""
        now = request.received_at
        suspect = self.quarantine.admit(request)
        self._refuse_if_full(request)
        lane = self._lanes.get(request.key)
        if lane is None:
            lane = self._open_lane(request)
        lane.arrived(request.rows, now)
        work_seconds = work_in_time(request, lane, self._backlog, self._free_at(now))
        if suspect:
            request.parts = tuple(cut(request, 0, request.rows, request.rows))
            self._group(lane, list(request.parts), Cause.SUSPECT)
            return
        request.parts = lane.parts(request)
        for part in request.parts:
            part.work_seconds = work_seconds * part.rows / request.rows
            self._enqueue(part, lane, now)

    def withdraw(self, request: Request) -> bool:
        """Forgets what waits of a request that needs no answer any more; False if nothing of it does."""
        waiting = [part for part in request.parts if part in self._waiting]
        for part in waiting:
            self._waiting[part].queue.remove(part)
            self._left(part)
        return bool(waiting)

    def decide(self, now: float) -> Decision:
        """What to dispatch and whom to refuse at `now`."""
        decision = Decision([], self._expire(now) if self._waiting else [])
        held_until: float | None = None
        while self._waiting and held_until is None and self._has_room():
            if self._groups:
                decision.batches += self._close_group(now)
                continue
            lane = self._most_urgent()
            if self._gave_up(lane, decision, now):
                continue
            why = self._hold(lane, now)
            if why.until > now:
                held_until = why.until
            else:
                decision.batches.append(self._close(lane, why, now))
        oldest = next(iter(self._running), None)
        limit = None if oldest is None else oldest.overdue_at(self.options.max_compute_seconds)
        decision.wake_at = self._next_wake(limit, held_until)
        decision.overdue = limit is not None and limit <= now
        return decision

    def finished(self, batch: Batch, compute_seconds: float, now: float) -> bool:
        """A runner answered `batch`. True if what is known of the version's speed was looked at anew."""
        if self._suspect is batch:
            self.quarantine.cleared(batch.requests[0])
        lane, mean = self._left_runner(batch, now, compute_seconds)
        return lane.finished(batch, compute_seconds, now, crowded=was_crowded(mean, self.capacity))

    def failed(self, batch: Batch, now: float) -> list[Request]:
        """The model raised an error on `batch`; returns the requests at fault. The others run again, in halves."""
        lane, _ = self._left_runner(batch, now)
        if len(batch.parts) == 1:
            return batch.requests
        parts = [part for part in batch.parts if not part.payload.ended]
        middle = (len(parts) + 1) // 2
        for half in (parts[:middle], parts[middle:]):
            if half:
                self._group(lane, half, Cause.BISECTED)
        return []

    def crashed(self, batch: Batch, now: float) -> list[Request]:
        """A runner ended while it held `batch`; returns its requests, which are suspects from now on."""
        _, mean = self._left_runner(batch, now)
        self.quarantine.crashed(batch.requests, alone=len(batch.requests) == 1 and mean <= ONLY_ONE)
        return batch.requests

    def dropped(self, batch: Batch, now: float) -> list[Request]:
        """`batch` never reached a runner; returns its requests."""
        self._left_runner(batch, now)
        return batch.requests

    def abandon(self) -> tuple[list[Request], list[Request]]:
        """The runners are gone: forgets everything and returns what was at them, and what waited."""
        running = {request: None for batch in self._running for request in batch.requests}
        waiting = {part.payload: None for part in self._waiting if part.payload not in running}
        for part, lane in list(self._waiting.items()):
            lane.queue.remove(part)
            self._left(part)
        self._running.clear()
        self._note_free()
        self._groups.clear()
        self._lanes.clear()
        self._crowd.clear()
        self._suspect = None
        return list(running), list(waiting)

    def _what_holds(self) -> Bounds:
        rows = self.bounds.max_batch_rows or self.options.max_batch_rows
        return Bounds(rows, self.bounds.buckets or self.options.buckets, self.capacity, self.options.limits.weights)

    def _rebound(self) -> None:
        self._holds = self._what_holds()
        for lane in self._lanes.values():
            lane.resize(self._holds)

    def _cut_again(self, old: Part, lane: Lane) -> None:
        """`old` was just drained from its queue; its rows go back into it in parts that fit."""
        request = old.payload
        rows = old.rows if old.rows <= self._holds.most_rows or not lane.batchable else lane.part_rows
        parts = list(cut(request, old.start, old.start + old.rows, rows))
        self._left(old)
        for part in parts:
            part.work_seconds = old.work_seconds * part.rows / old.rows
            self._enqueue(part, lane, request.received_at)
        request.parts = (*(part for part in request.parts if part is not old), *parts)

    def _enqueue(self, part: Part, lane: Lane, now: float) -> None:
        lane.enqueue(part)
        self._backlog.add(part, now)
        self._waits(part, lane)

    def _group(self, lane: Lane, parts: list[Part], cause: Cause) -> None:
        for part in parts:
            part.gone, part.work_seconds = True, 0.0  # it is in no queue, whose books do not count it
            self._waits(part, lane)
        join = self._groups.append if cause is Cause.SUSPECT else self._groups.appendleft
        join((lane, parts, cause))

    def _has_room(self) -> bool:
        running = len(self._running)
        if self._suspect is not None:
            return False
        if self._groups and self._groups[0][2] is Cause.SUSPECT:
            return not running
        if running != self.capacity:
            return running < self.capacity
        last, (lane, _) = next(reversed(self._running.items()))
        return 0.0 < lane.seconds(last.rows) < PIPELINE_BELOW_SECONDS

    def _free_at(self, now: float) -> float:
        """When a runner is expected to begin another batch."""
        return max(now, self._next_free_at)

    def _note_free(self) -> None:
        beyond = len(self._running) - self.capacity
        self._next_free_at = 0.0 if beyond < 0 else sorted([batch.expected_end for batch in self._running])[beyond]

    def _most_urgent(self) -> Lane:
        lanes = [lane for lane in self._lanes.values() if lane.queue.items]
        return lanes[0] if len(lanes) == 1 else min(lanes, key=Lane.urgency)

    def _hold(self, lane: Lane, now: float) -> Hold:
        """Waiting is only a question when the last free runner would be taken, and nothing else could use it."""
        if len(self._running) + 1 != self.capacity or lane.queue.items != len(self._waiting):
            return NO_HOLD
        why = hold(lane, now, self.bounds.max_queue_delay_seconds)
        if why.until > now and lane.held_since is None:
            lane.held_since = now
        return why

    def _close_group(self, now: float) -> list[Batch]:
        """The next group as a batch; none if nobody of it waits any more."""
        lane, parts, cause = self._groups.popleft()
        waiting = [part for part in parts if part in self._waiting]
        if not waiting:
            return []
        batch = Batch(waiting, DispatchReason.IDLE if lane.batchable else DispatchReason.UNBATCHED)
        if cause is Cause.SUSPECT:
            self._suspect = batch
        self._dispatch(batch, lane, Hold(0.0), cause, now)
        return [batch]

    def _close(self, lane: Lane, why: Hold, now: float) -> Batch:
        free = max(1, self.capacity - len(self._running))
        batch = fill(lane, why, free, self.options.max_batch_bytes, now)
        self._dispatch(batch, lane, why, Cause.TRIAL if batch.trial else Cause.USUAL, now)
        lane.held_since = None
        return batch

    def _dispatch(self, batch: Batch, lane: Lane, why: Hold, cause: Cause, now: float) -> None:
        for part in batch.parts:
            self._left(part)
        batch.padded_rows = lane.padded(batch.rows)
        batch.expected_seconds = expected = lane.seconds(batch.rows)
        batch.expected_end = self._free_at(now) + expected
        batch.dispatched_at = batch.began_at = now
        self._crowd.enter(batch, now)
        requests = batch.requests
        waited = now - min([request.received_at for request in requests])
        held = 0.0 if lane.held_since is None else now - lane.held_since
        record = Dispatch(
            now, requests[0].signature_name, len(requests), batch.rows, batch.reason, cause,
            waited, expected, lane.queue.rows, held, why.costs_seconds,
        )  # fmt: skip
        self.log.dispatched(record)
        self._running[batch] = lane, record
        self._note_free()
        lane.running += 1

    def _left_runner(self, batch: Batch, now: float, compute_seconds: float = 0.0) -> tuple[Lane, float]:
        """Its lane, and how many computed beside it."""
        lane, record = self._running.pop(batch)
        record.compute_seconds, record.failed = compute_seconds or now - batch.began_at, not compute_seconds
        self._note_free()
        lane.running -= 1
        if len(self._running) >= self.capacity:  # the last one waited at the runner until now
            next(reversed(self._running)).began_at = now
        if self._suspect is batch:
            self._suspect = None
        return lane, self._crowd.leave(batch, now)

    def _expire(self, now: float) -> list[Request]:
        late = [part for lane in self._lanes.values() if lane.queue.items for part in lane.expire(now)]
        for _, parts, _ in self._groups:
            late += [part for part in parts if part in self._waiting and part.deadline <= now]
        return self._late(late)

    def _late(self, late: list[Part]) -> list[Request]:
        if not late:
            return []
        requests = dict.fromkeys([part.payload for part in late])
        for part in late:
            self._left(part)
        for request in requests:
            self.withdraw(request)
        return list(requests)

    def _gave_up(self, lane: Lane, decision: Decision, now: float) -> bool:
        given_up = lane.give_up(now)
        if given_up:
            decision.expired += self._late(given_up)
        return bool(given_up)

    def _next_wake(self, limit: float | None, held_until: float | None) -> float | None:
        if not self._waiting:
            return limit
        wakes = [lane.due_at for lane in self._lanes.values() if lane.queue.items]
        wakes += [part.deadline for _, parts, _ in self._groups for part in parts if part in self._waiting]
        wakes += [at for at in (limit, held_until) if at is not None]
        return min(wakes, default=None)

    def _open_lane(self, request: Request) -> Lane:
        if len(self._lanes) >= IDLE_LANES:
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.queue.items or lane.running}
        lane = self._lanes[request.key] = Lane(request, self.latency.of(request.curve), self._holds)
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

    def _waits(self, part: Part, lane: Lane) -> None:
        self._waiting[part] = lane
        self.waiting_rows += part.rows
        self.waiting_bytes += part.byte_count

    def _left(self, part: Part) -> None:
        del self._waiting[part]
        self._backlog.remove(part)
        self.waiting_rows -= part.rows
        self.waiting_bytes -= part.byte_count
