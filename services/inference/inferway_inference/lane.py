"""What waits of one key, and what is known of its batches: the part of the scheduler that counts for each key. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from inferway_chassis.request_queue import QueueLimits, RequestQueue
from inferway_inference.exploring import Explorer
from inferway_inference.latency import Latency
from inferway_inference.sizing import Sizing, best_sizing, candidates, padded, rows_at_once
from inferway_inference.work import Batch, Part, Request

SIZED_EVERY = 8
"""Batches, after the first ones: what is learned from one changes little."""
TAUGHT_AT_FIRST, SHORT_SECONDS, SHORT_TEACH_EVERY, SHORT_SIZED_EVERY = 32, 0.002, 4, 32
"""Of short batches, after the first ones, only some are learned from: there are many, and learning costs as much."""
GAP_WEIGHT = 1 / 16
LONGEST_GAP_SECONDS = 0.02
"""Between arrivals; nothing is ever held open for longer ones, and shorter ones are noticed soon."""
NO_LIMITS = QueueLimits(max_items=sys.maxsize, max_rows=sys.maxsize, max_bytes=sys.maxsize)
"""The lanes share one set of limits, which the scheduler holds."""
UNSPLIT = sys.maxsize
CERTAIN = 0.9
"""A request that has less time left than so much of a single row's usual latency will not be in time."""
BACKLOG = 2
"""So many full batches waiting are a backlog."""
DEAR = 1.25
"""A batch that takes so many times as long for its rows as one of the best size is too small for a backlog."""
STALE_SECONDS = 1.0
"""Latency of which nothing was seen for longer refuses nobody: it could never be learned that it is better now."""

TRIAL_FACTOR = 2.0
"""A trial is not thought to take more times as long as its rows would take in batches of the best size."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for the batches of a version now."""

    max_rows: int
    buckets: tuple[int, ...]
    capacity: int
    """Batches that compute side by side."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of tenants."""

    @property
    def most_rows(self) -> int:
        """Rows in a batch at most."""
        return min(self.max_rows, self.buckets[-1]) if self.buckets else self.max_rows


class Lane:
    """Of one key."""

    __slots__ = (
        "_bounds", "_explorer", "_seconds", "_seen", "arrived_at", "batchable", "due_at", "gap_seconds", "held_since",
        "latency", "one_seconds", "part_rows", "queue", "running", "sizing",
    )  # fmt: skip

    def __init__(self, request: Request, latency: Latency, bounds: Bounds) -> None:
        """Nothing waits. `request` is the first of its key."""
        self.queue = RequestQueue[Request](replace(NO_LIMITS, weights=bounds.weights))
        self.latency = latency
        self.batchable = request.signature.batchable
        self.running = 0
        """Its batches at the runner."""
        self.gap_seconds = LONGEST_GAP_SECONDS
        """Between arrivals of rows, lately."""
        self.held_since: float | None = None
        """Since when a batch is held open on purpose."""
        self.arrived_at = request.received_at
        self.due_at = math.inf
        """No deadline of what waits is nearer."""
        self._seen = 0
        self._explorer = Explorer()
        self.sizing: Sizing | None
        self.part_rows: int
        """Larger requests are computed in parts of this size."""
        self.one_seconds: float
        """Expected duration of a batch of one row; 0.0 if unknown."""
        self.resize(bounds)

    def resize(self, bounds: Bounds) -> None:
        """Other bounds hold."""
        self._bounds = bounds if self.batchable else replace(bounds, max_rows=1, buckets=())
        self._size()

    def parts(self, request: Request) -> tuple[Part, ...]:
        """The request in parts that fit into a batch, and are of the best size if it is larger than that."""
        if request.rows <= self.part_rows:
            size = request.rows, request.byte_count
            return (Part(request, request.deadline, *size, request.criticality, request.tenant),)
        return tuple(cut(request, 0, request.rows, self.part_rows))

    def enqueue(self, part: Part) -> None:
        """A part waits."""
        if part.deadline < self.due_at or not self.queue.items:
            self.due_at = part.deadline
        self.queue.offer(part)

    def take(self) -> Part | None:
        """The part that is next in order; it does not wait any more."""
        return cast("Part | None", self.queue.take())

    def peek(self) -> Part | None:
        """The part that is next in order."""
        return cast("Part | None", self.queue.peek())

    def urgency(self) -> tuple[int, float]:
        """Of what is next in order, of which there must be some: criticality and deadline."""
        head = self.peek()
        assert head is not None
        return head.criticality, head.deadline

    def expire(self, now: float) -> list[Part]:
        """Takes what cannot be in time any more, as far as is known for sure."""
        late_before = now + CERTAIN * self.one_seconds
        if late_before < self.due_at:
            return []
        late = cast("list[Part]", self.queue.expire(late_before))
        self.due_at = self.queue.next_deadline() or math.inf
        return late

    def give_up(self, now: float) -> list[Part]:
        """Takes what could only be in time in so small a batch that others would be late for it.

        That is so in a backlog, which is worked off by full batches, or it grows until everybody is
        late by a little.
        """
        sizing = self.sizing
        given_up: list[Part] = []
        while sizing is not None and self.queue.rows >= BACKLOG * sizing.rows:
            head = self.peek()
            if head is None or self.is_stale(now):
                break
            within = self.rows_within(head.deadline - now)
            if (
                within >= sizing.rows
                or self.seconds(max(1, within)) < DEAR * max(1, within) * sizing.row_seconds * self.capacity
            ):
                break
            self.queue.take()
            given_up.append(head)
        return given_up

    def drain(self) -> list[Part]:
        """Takes everything, in order."""
        return cast("list[Part]", list(self.queue.drain()))

    def arrived(self, rows: int, now: float) -> None:
        """Rows came."""
        gap = min((now - self.arrived_at) / rows, LONGEST_GAP_SECONDS)
        self.arrived_at = now
        self.gap_seconds += (gap - self.gap_seconds) * GAP_WEIGHT

    def finished(self, batch: Batch, seconds: float, now: float, *, crowded: bool | None) -> bool:
        """A batch was computed; `crowded` is None if it began alone and ended beside others. True if sized anew."""
        self.latency.seen_at = now
        if batch.trial and self.sizing is not None:
            self._explorer.ended(self.sizing, batch.padded_rows, seconds, self.capacity)
        taught = batch.trial or self._seen < TAUGHT_AT_FIRST or seconds > SHORT_SECONDS
        if (taught or not self._seen % SHORT_TEACH_EVERY) and crowded is not None:
            self.latency.observe(batch.padded_rows, seconds, crowded=crowded)
        self._seen += 1
        every = SIZED_EVERY if seconds > SHORT_SECONDS else SHORT_SIZED_EVERY
        anew = batch.trial or self._seen <= SIZED_EVERY or self._seen % every == 0
        if anew:
            self._size()
        return anew

    def seconds(self, rows: int) -> float:
        """Expected duration of a batch of `rows`, beside others if there are several callers; 0.0 if unknown.

        As it was when the lane was last sized: it is asked for much more often than it changes.
        """
        known = self._seconds.get(rows)
        if known is None:
            bounds = self._bounds
            told = self.latency.seconds(padded(rows, bounds.buckets), crowded=bounds.capacity > 1)
            known = self._seconds[rows] = told or 0.0
        return known

    def work_seconds(self, rows: int, seconds_left: float) -> float:
        """The runner's time that `rows` will take, given that their batch may take `seconds_left`; 0.0 if unknown.

        Short deadlines mean small batches, which are dearer.
        """
        sizing = self.sizing
        if sizing is None:
            return 0.0
        if seconds_left >= sizing.batch_seconds * self.latency.caution:
            return rows * sizing.row_seconds
        fitting = min(max(self.rows_within(seconds_left), 1), sizing.rows)
        dearer = self.seconds(fitting) / self._bounds.capacity - fitting * sizing.row_seconds
        return rows * sizing.row_seconds + max(0.0, dearer)

    def is_stale(self, now: float) -> bool:
        """What is known is too old, or nothing, to refuse anybody."""
        if self.sizing is None:
            return True
        return not self.running and not self.queue.items and now - self.latency.seen_at > STALE_SECONDS

    def batch_rows(self, free: int, taken: int) -> int:
        """Rows that the next batch should have, of `taken` ones and those that wait, when `free` callers are free."""
        waiting, most = self.queue.rows + taken, self._bounds.most_rows
        if self.sizing is None:
            return min(waiting, most)
        return min(most, rows_at_once(self.seconds, self.sizing, waiting, free, most))

    def trial_rows(self, first: Part, now: float) -> int | None:
        """Rows for the next batch, to see whether they are better than the best ones known; None to take those.

        Nobody must become late by it, were it twice as slow for its rows as the best size: what is known may be wrong.
        """
        sizing, waiting = self.sizing, self.queue.rows + first.rows
        if sizing is None or waiting <= sizing.rows:
            return None
        most = min(waiting, self._bounds.most_rows)
        rows = self._explorer.size(sizing, self._candidates(), first.rows, most)
        if rows is None:
            return None
        takes = min(self.seconds(rows), TRIAL_FACTOR * sizing.batch_seconds * max(1.0, rows / sizing.rows))
        due = min(first.deadline, self.queue.next_deadline() or first.deadline)
        if now + (takes + sizing.batch_seconds) * self.latency.caution > due:
            return None
        self._explorer.began()
        return rows

    @property
    def capacity(self) -> int:
        """Batches that compute side by side."""
        return self._bounds.capacity

    def padded(self, rows: int) -> int:
        """Rows that are computed for a batch of `rows`."""
        return padded(rows, self._bounds.buckets)

    def rows_within(self, seconds: float) -> int:
        """Rows of the largest batch that is sure to take at most `seconds`; 0 if not one."""
        curve = self.latency.curve(crowded=self._bounds.capacity > 1)
        rows = min(curve.rows_within(seconds / self.latency.caution), self._bounds.most_rows)
        return max((bucket for bucket in self._bounds.buckets if bucket <= rows), default=int(rows))

    def _candidates(self) -> list[int]:
        return candidates(self._bounds.most_rows, self._bounds.buckets)

    def _size(self) -> None:
        bounds = self._bounds
        self._seconds: dict[int, float] = {}
        self.sizing = best_sizing(self.latency, bounds.capacity, bounds.most_rows, bounds.buckets)
        best = bounds.most_rows if self.sizing is None else self.sizing.rows
        self.part_rows = best if self.batchable else UNSPLIT
        self.one_seconds = self.seconds(1)


def cut(request: Request, start: int, end: int, rows: int) -> Iterator[Part]:
    """Rows from `start` to `end` of a request, in parts of at most `rows`."""
    for first in range(start, end, rows):
        count = min(rows, end - first)
        byte_count = request.byte_count * count // request.rows
        yield Part(request, request.deadline, count, byte_count, request.criticality, request.tenant, start=first)
