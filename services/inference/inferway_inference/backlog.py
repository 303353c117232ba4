"""The books of what waits, as seconds of the runner's time, by when it is due: can a newcomer still be in time? Pure.

The order of service is that of the queue: criticality first, fair between tenants, within a tenant the nearest
deadline. A newcomer is in time if what goes before it leaves enough time, and does no harm if everybody behind it is
still in time after it: the demand test of earliest-deadline-first scheduling (Baruah, Rosier, Howell 1990), here with
deadlines rounded down by at most a 16th of the time that was left, so that the books stay short.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import frexp, inf

from inferway_inference.work import Part

_ROUNDING_BITS = 5
"""Deadlines are rounded to a 32nd to a 16th of the time that is left."""
_SETTLED = 1e-9


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What the books must know of a request that wants to join."""

    criticality: int
    tenant: str
    deadline: float
    work_seconds: float
    batch_seconds: float
    """For the batch that it will be in, from start to answer."""
    full_seconds: float
    """For a full batch, in which others may be."""
    batch_work_seconds: float
    """The work in a full batch."""
    step_seconds: float
    """Between the starts of one full batch and the next, with a margin."""


@dataclass(slots=True)
class _Class:
    """What waits of one criticality."""

    seconds: float = 0.0
    tenants: dict[str, dict[float, float]] = field(default_factory=dict)
    """By tenant: seconds of work by when they are due."""


class Backlog:
    """Of one version. Every part that was added must be removed once, whatever became of it."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        """Nothing waits. `weights` gives tenants more or less than the share of 1.0, as the queue does."""
        self._weights = weights or {}
        self._classes: dict[int, _Class] = {}
        self._unsorted: dict[Part, float] = {}
        """When each came that was added since somebody asked who is due when: most have left again by then."""
        self.total_seconds = 0.0
        """Of all work."""

    def add(self, part: Part, now: float) -> None:
        """A part waits; its `work_seconds` must be set and not change until it is removed."""
        if not part.work_seconds:
            return
        self._unsorted[part] = now
        self.total_seconds += part.work_seconds

    def remove(self, part: Part) -> None:
        """A part does not wait any more."""
        if not part.work_seconds:
            return
        self.total_seconds -= part.work_seconds
        if self._unsorted.pop(part, None) is None:
            self._take_out(part)
        if not self._unsorted and not self._classes:
            self.total_seconds = 0.0  # sums of floats drift

    def seconds(self, criticality: int) -> float:
        """Work of this criticality and of more critical ones."""
        self._sort()
        return sum([group.seconds for level, group in self._classes.items() if level <= criticality])

    def too_late_by(self, newcomer: Newcomer, free_at: float) -> float:
        """Seconds by which the newcomer, or somebody behind it because of it, would be late; at most 0 if nobody.

        `free_at` is when the runner can take the next batch.
        """
        before = self.seconds(newcomer.criticality - 1)
        group = self._classes.get(newcomer.criticality)
        demand = iter([(newcomer.deadline, 0.0)]) if group is None else self._demand(group, newcomer)
        worst = -inf
        for due, ahead in demand:
            if due < newcomer.deadline:
                continue
            starts = free_at + (before + ahead) // newcomer.batch_work_seconds * newcomer.step_seconds
            own = due == newcomer.deadline
            worst = max(worst, starts + (newcomer.batch_seconds if own else newcomer.full_seconds) - due)
        return worst

    def _demand(self, group: _Class, newcomer: Newcomer) -> Iterator[tuple[float, float]]:
        """By ascending deadline of the newcomer's tenant: the work of its class that goes before what is due then.

        While a tenant's own work is done, every other one gets as much by its weight, as far as it has any.
        """
        own = group.tenants.get(newcomer.tenant, {})
        others = sum(self._weights.get(tenant, 1.0) for tenant in group.tenants if tenant != newcomer.tenant)
        others /= self._weights.get(newcomer.tenant, 1.0)
        held = sum(own.values())
        rest = max(0.0, group.seconds - held)
        ahead, joined = 0.0, False
        for due in sorted({*own, newcomer.deadline}):
            if due == newcomer.deadline and not joined:
                ahead += own.get(due, 0.0)
                yield due, ahead + min(rest, others * ahead)
                ahead, joined = ahead + newcomer.work_seconds, True
                continue
            ahead += own[due]
            yield due, ahead - _SETTLED + min(rest, others * ahead)

    def _sort(self) -> None:
        for part, now in self._unsorted.items():
            part.due = rounded(part.deadline, now)
            group = self._classes.setdefault(part.criticality, _Class())
            due = group.tenants.setdefault(part.tenant, {})
            due[part.due] = due.get(part.due, 0.0) + part.work_seconds
            group.seconds += part.work_seconds
        self._unsorted.clear()

    def _take_out(self, part: Part) -> None:
        group = self._classes[part.criticality]
        due = group.tenants[part.tenant]
        due[part.due] -= part.work_seconds
        group.seconds -= part.work_seconds
        if due[part.due] < _SETTLED:
            del due[part.due]
        if not due:
            del group.tenants[part.tenant]
        if not group.tenants:
            del self._classes[part.criticality]


def rounded(deadline: float, now: float) -> float:
    """A deadline a little earlier, so that many share it."""
    step: float = 2.0 ** (frexp(max(deadline - now, 1e-6))[1] - _ROUNDING_BITS)
    return deadline // step * step
