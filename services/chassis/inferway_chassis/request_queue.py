"""A bounded queue of requests: pure data, no clock of its own, no waiting.

Order: criticality first; within a class weighted fair between tenants; within a tenant the nearest deadline, then
arrival. Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996): each tenant has a virtual start time that
grows by rows / weight with every request taken, and the tenant with the smallest goes next; a tenant that was away
starts at the time of the class, so that nobody saves up credit by being silent.

The queue refuses at the door (`offer` raises QueueFull) and never grows beyond its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from inferway.errors import QueueFull

T = TypeVar("T")


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


@dataclass(slots=True)
class _Tenant(Generic[T]):
    virtual_start: float
    waiting: list[tuple[float, int, Queued[T]]] = field(default_factory=list)

    def head(self) -> Queued[T] | None:
        while self.waiting and self.waiting[0][2].gone:
            heappop(self.waiting)
        return self.waiting[0][2] if self.waiting else None


@dataclass(slots=True)
class _Class(Generic[T]):
    virtual_time: float = 0.0
    tenants: dict[str, _Tenant[T]] = field(default_factory=dict)

    def next_tenant(self) -> tuple[str, _Tenant[T]] | None:
        best: tuple[str, _Tenant[T]] | None = None
        for name, tenant in list(self.tenants.items()):
            if tenant.head() is None:
                # Kept while ahead of the class, so that leaving and coming back wins nothing.
                if tenant.virtual_start <= self.virtual_time:
                    del self.tenants[name]
            elif best is None or tenant.virtual_start < best[1].virtual_start:
                best = (name, tenant)
        if best is None:
            self.tenants.clear()
        return best


class RequestQueue(Generic[T]):
    """See the module. Not thread-safe."""

    def __init__(self, limits: QueueLimits) -> None:
        """Nothing waits."""
        self.limits = limits
        self._classes: dict[int, _Class[T]] = {}
        self._arrivals = 0
        self._dead = 0
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
        tenant = group.tenants.get(item.tenant)
        if tenant is None or tenant.head() is None:
            start = max(group.virtual_time, tenant.virtual_start if tenant else 0.0)
            tenant = group.tenants[item.tenant] = _Tenant(start)
        self._arrivals += 1
        heappush(tenant.waiting, (item.deadline, self._arrivals, item))
        self.items += 1
        self.rows += item.rows
        self.byte_count += item.byte_count

    def peek(self) -> Queued[T] | None:
        """The request that `take` would return."""
        for criticality in sorted(self._classes):
            chosen = self._classes[criticality].next_tenant()
            if chosen is not None:
                return chosen[1].head()
        return None

    def take(self) -> Queued[T] | None:
        """Removes and returns the request that is next in order; None if nothing waits."""
        for criticality in sorted(self._classes):
            group = self._classes[criticality]
            chosen = group.next_tenant()
            if chosen is None:
                continue
            name, tenant = chosen
            item = heappop(tenant.waiting)[2]
            group.virtual_time = tenant.virtual_start
            tenant.virtual_start += item.rows / self.limits.weights.get(name, 1.0)
            self._leave(item)
            if not self.items:
                group.tenants.clear()  # nobody is left to be ahead of
            return item
        return None

    def remove(self, item: Queued[T]) -> bool:
        """Takes `item` out of turn, as when its caller went away; False if it is not waiting."""
        if item.gone:
            return False
        self._leave(item)
        self._dead += 1
        if self._dead > 64 + self.items:
            self._compact()
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

    def _compact(self) -> None:
        """Forgets removed entries that are not at the head of their heap, so that cancels do not pile up."""
        for group in self._classes.values():
            for tenant in group.tenants.values():
                tenant.waiting = [entry for entry in tenant.waiting if not entry[2].gone]
                heapify(tenant.waiting)
        self._dead = 0


def _full(bound: str, held: int, limit: int) -> QueueFull:
    return QueueFull(f"the queue is full: {held} of {limit} {bound}", bound=bound, limit=limit)
