"""A bounded queue of requests: pure data, no clock of its own, no waiting.

Order: criticality first; within a class weighted fair between tenants; within a tenant the nearest deadline, then
arrival. Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996): each tenant has a virtual start time that
grows by rows / weight with every request taken, and the tenant with the smallest goes next; a tenant that was away
starts at the time of the class, so that nobody saves up credit by being silent. To take a request costs the logarithm
of the tenants that have some waiting; of those that have none only some are remembered, whatever names callers use.

The queue refuses at the door (`offer` raises QueueFull) and never grows beyond its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

from inferway.errors import QueueFull

T = TypeVar("T")

MAX_IDLE_TENANTS = 128
"""Of a class, remembered though nothing of theirs waits; beyond that the half that is least ahead is forgotten."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The most a queue holds, of which each bound alone refuses, and how tenants share it."""

    max_items: int = 4096
    max_rows: int = 65536
    max_bytes: int = 512 * 1024 * 1024
    weights: Mapping[str, float] = field(default_factory=dict)
    """By tenant: one of weight 2 gets twice the rows of one that is not named, while both have some waiting."""


@dataclass(slots=True, eq=False)
class Queued(Generic[T]):
    """A request in the queue. `deadline` is on the clock of whoever uses the queue; `criticality` 1 is served first."""

    payload: T
    deadline: float
    rows: int = 1
    byte_count: int = 0
    criticality: int = 2
    tenant: str = ""
    gone: bool = False
    """Taken, removed or expired: what is still in a heap is skipped."""


@dataclass(slots=True, eq=False)
class _Tenant(Generic[T]):
    name: str
    waiting: list[tuple[float, int, Queued[T]]] = field(default_factory=list)

    def head(self) -> Queued[T] | None:
        while self.waiting and self.waiting[0][2].gone:
            heappop(self.waiting)
        return self.waiting[0][2] if self.waiting else None

    def compact(self) -> None:
        self.waiting = [entry for entry in self.waiting if not entry[2].gone]
        heapify(self.waiting)


@dataclass(slots=True)
class _Class(Generic[T]):
    """Its tenants may have become empty; whoever looks for the next request lets those go that stand before it."""

    virtual_time: float = 0.0
    tenants: dict[str, _Tenant[T]] = field(default_factory=dict)
    turns: list[tuple[float, int, _Tenant[T]]] = field(default_factory=list)
    """A heap of the same tenants by virtual start time, which is never before that of the class, then arrival."""
    idle: dict[str, float] = field(default_factory=dict)
    """Virtual start times of tenants that left ahead of the class, so that leaving and coming back wins nothing."""

    def join(self, name: str, number: int) -> _Tenant[T]:
        tenant = self.tenants[name] = _Tenant(name)
        heappush(self.turns, (max(self.virtual_time, self.idle.pop(name, 0.0)), number, tenant))
        return tenant

    def head(self) -> Queued[T] | None:
        while self.turns:
            if (head := self.turns[0][2].head()) is not None:
                return head
            start, _, tenant = heappop(self.turns)
            self._rest(tenant, start)
        return None

    def take(self, weights: Mapping[str, float]) -> Queued[T] | None:
        if self.head() is None:
            return None
        self.virtual_time, number, tenant = self.turns[0]
        item = heappop(tenant.waiting)[2]
        start = self.virtual_time + item.rows / weights.get(tenant.name, 1.0)
        if tenant.waiting:
            heapreplace(self.turns, (start, number, tenant))
        else:
            heappop(self.turns)
            self._rest(tenant, start)
        return item

    def compact(self) -> None:
        for tenant in self.tenants.values():
            tenant.compact()
        empty = [turn for turn in self.turns if not turn[2].waiting]
        self.turns = [turn for turn in self.turns if turn[2].waiting]
        heapify(self.turns)
        for start, _, tenant in empty:
            self._rest(tenant, start)

    def _rest(self, tenant: _Tenant[T], virtual_start: float) -> None:
        del self.tenants[tenant.name]
        if not self.turns:
            self.idle.clear()  # nobody is left to be ahead of
            return
        self.idle[tenant.name] = virtual_start
        if len(self.idle) > MAX_IDLE_TENANTS:
            least_ahead = sorted(self.idle, key=self.idle.__getitem__)
            for name in least_ahead[: MAX_IDLE_TENANTS // 2]:
                del self.idle[name]


class RequestQueue(Generic[T]):
    """See the module. Not thread-safe."""

    def __init__(self, limits: QueueLimits) -> None:
        """Nothing waits."""
        self.limits = limits
        self._classes: dict[int, _Class[T]] = {}
        self._arrivals = 0
        self._gone = 0
        self.items = 0
        self.rows = 0
        self.byte_count = 0

    def __len__(self) -> int:
        """Requests waiting."""
        return self.items

    def __iter__(self) -> Iterator[Queued[T]]:
        """Everything that waits, in no order."""
        for group in self._classes.values():
            for tenant in group.tenants.values():
                yield from (item for _, _, item in tenant.waiting if not item.gone)

    def offer(self, item: Queued[T]) -> None:
        """Takes `item` in; raises QueueFull, naming the bound that it would break."""
        limits = self.limits
        if self.items + 1 > limits.max_items:
            raise _full("requests", self.items, limits.max_items)
        if self.rows + item.rows > limits.max_rows and self.items:
            raise _full("rows", self.rows, limits.max_rows)
        if self.byte_count + item.byte_count > limits.max_bytes and self.items:
            raise _full("bytes", self.byte_count, limits.max_bytes)
        group = self._classes.get(item.criticality)
        if group is None:
            group = self._classes[item.criticality] = _Class()
        self._arrivals += 1
        tenant = group.tenants.get(item.tenant) or group.join(item.tenant, self._arrivals)
        heappush(tenant.waiting, (item.deadline, self._arrivals, item))
        self.items += 1
        self.rows += item.rows
        self.byte_count += item.byte_count

    def peek(self) -> Queued[T] | None:
        """The request that `take` would return."""
        for criticality in sorted(self._classes):
            if (head := self._classes[criticality].head()) is not None:
                return head
        return None

    def take(self) -> Queued[T] | None:
        """Removes and returns the request that is next in order; None if nothing waits."""
        for criticality in sorted(self._classes):
            if (item := self._classes[criticality].take(self.limits.weights)) is not None:
                self._leave(item)
                return item
        return None

    def remove(self, item: Queued[T]) -> bool:
        """Takes `item` out of turn, as when its caller went away; False if it is not waiting."""
        if item.gone:
            return False
        self._leave(item)
        self._compact_after(1)
        return True

    def expire(self, now: float) -> list[Queued[T]]:
        """Removes and returns every request whose deadline is at or before `now`."""
        expired = []
        for group in self._classes.values():
            for tenant in group.tenants.values():
                while (head := tenant.head()) is not None and head.deadline <= now:
                    heappop(tenant.waiting)
                    self._leave(head)
                    expired.append(head)
        self._compact_after(len(expired))
        return expired

    def next_deadline(self) -> float | None:
        """The nearest deadline of all that wait."""
        heads = (tenant.head() for group in self._classes.values() for tenant in group.tenants.values())
        return min((head.deadline for head in heads if head is not None), default=None)

    def drain(self) -> Iterator[Queued[T]]:
        """Takes everything, in order."""
        while (item := self.take()) is not None:
            yield item

    def take_while(self, accepts: Callable[[Queued[T]], bool]) -> Iterator[Queued[T]]:
        """Takes in order for as long as the next one is accepted."""
        while (head := self.peek()) is not None and accepts(head):
            taken = self.take()
            if taken is not None:
                yield taken

    def _leave(self, item: Queued[T]) -> None:
        item.gone = True
        self.items -= 1
        self.rows -= item.rows
        self.byte_count -= item.byte_count

    def _compact_after(self, gone: int) -> None:
        """Forgets what is gone but not from the head of its heap, requests and tenants, before it piles up."""
        self._gone += gone
        if self._gone > 64 + self.items:
            for group in self._classes.values():
                group.compact()
            self._gone = 0


def _full(bound: str, held: int, limit: int) -> QueueFull:
    return QueueFull(f"the queue is full: {held} of {limit} {bound}", bound=bound, limit=limit)
