"""How long a request that joins a version's queue now will wait, by what the workers have told of their speed. Pure.

Work is taken as a fluid: a worker that computes r rows a second and holds n of them is free after n / r seconds, and
from then on takes r rows a second from the queue. The wait ends when all rows that go first have been taken. Rows go
first as in the queue itself: those of more critical classes; in the same class those of the own tenant with nearer
deadlines, and as many of every other tenant, for tenants take turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from inferway.errors import WouldBeLate

MARGIN = 1.1
"""How much longer than predicted it may take: whoever is admitted shall be answered in time."""
_FINE_SECONDS = 0.016
_FINE_PER_COARSE = 32
_MIN_RETRY_SECONDS = 0.05
_MAX_RETRY_SECONDS = 5.0


class Speed(NamedTuple):
    """What a worker has told of a version: a batch takes `fixed_us + row_us * rows`."""

    rows_per_second: float
    """At the best batch size; 0 if the worker does not know yet."""
    fixed_us: float
    row_us: float


class Load(NamedTuple):
    """One worker that has the version ready."""

    speed: Speed | None
    """None if it has told nothing yet."""
    rows: int
    """Of the version, bound to the worker and not answered yet."""


class Waiting(Protocol):
    """A request in the queue, or about to join it."""

    @property
    def deadline(self) -> float:
        """On the gateway's clock, in seconds."""

    @property
    def rows(self) -> int:
        """Rows to compute."""

    @property
    def criticality(self) -> int:
        """1 goes first."""

    @property
    def tenant(self) -> str:
        """For whom."""


class _Line:
    """Rows of one tenant and class by deadline: in fine bins, and these again in coarse ones to be added up fast."""

    __slots__ = ("coarse", "fine", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.fine, self.coarse = Counter[int](), Counter[int]()

    def add(self, deadline: float, rows: int) -> None:
        index = int(deadline / _FINE_SECONDS)
        self.rows += rows
        for bins, key in ((self.fine, index), (self.coarse, index // _FINE_PER_COARSE)):
            bins[key] += rows
            if not bins[key]:
                del bins[key]

    def nearer(self, deadline: float) -> int:
        """Rows whose deadlines are nearer, or as near to within a fine bin."""
        index = int(deadline / _FINE_SECONDS)
        coarse = index // _FINE_PER_COARSE
        before = sum(rows for key, rows in self.coarse.items() if key < coarse)
        return before + sum(self.fine[key] for key in range(coarse * _FINE_PER_COARSE, index + 1) if key in self.fine)


class Backlog:
    """The rows that wait for one version, kept so that asking who goes first costs microseconds."""

    def __init__(self) -> None:
        """Nobody waits."""
        self.rows = 0
        self._classes: dict[int, dict[str, _Line]] = {}
        self._class_rows = Counter[int]()

    def add(self, request: Waiting) -> None:
        """`request` joined the queue."""
        line = self._classes.setdefault(request.criticality, {}).setdefault(request.tenant, _Line())
        self._count(line, request, request.rows)

    def remove(self, request: Waiting) -> None:
        """`request`, which was added, has left the queue, whatever became of it."""
        tenants = self._classes[request.criticality]
        line = tenants[request.tenant]
        self._count(line, request, -request.rows)
        if not line.rows:
            del tenants[request.tenant]

    def rows_before(self, request: Waiting) -> int:
        """Rows that go before those of `request`, which has not joined."""
        first = sum(rows for criticality, rows in self._class_rows.items() if criticality < request.criticality)
        tenants = self._classes.get(request.criticality, {})
        own = tenants.get(request.tenant)
        if own is None:
            # Its turn comes after at most one request of every other tenant.
            return first
        nearer = own.nearer(request.deadline)
        others = self._class_rows[request.criticality] - own.rows
        return first + nearer + min(others, nearer * (len(tenants) - 1))

    def _count(self, line: _Line, request: Waiting, rows: int) -> None:
        line.add(request.deadline, rows)
        self.rows += rows
        self._class_rows[request.criticality] += rows


class Forecast:
    """Says of one version's requests whether they would be late. Costs next to nothing while everybody has time.

    Who goes first matters only when time is short: the rows are sorted by it once somebody might be late, and until
    the queue is empty again.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self._backlog: Backlog | None = None

    def late(
        self, now: float, request: Waiting, waiting: Iterable[Waiting], rows: int, loads: Collection[Load]
    ) -> float | None:
        """As `refuse`; `waiting` are the `rows` rows that wait already."""
        if not rows or _is_surely_in_time(request.deadline - now, rows + request.rows, loads):
            return None
        if self._backlog is None:
            self._backlog = Backlog()
            for other in waiting:
                self._backlog.add(other)
        return refuse(now, request, self._backlog, loads)

    def joined(self, request: Waiting) -> None:
        """`request` waits from now on."""
        if self._backlog is not None:
            self._backlog.add(request)

    def left(self, request: Waiting) -> None:
        """`request`, which waited, does not any more."""
        if self._backlog is not None:
            self._backlog.remove(request)
            if not self._backlog.rows:
                self._backlog = None


def _is_surely_in_time(seconds_left: float, rows: int, loads: Collection[Load]) -> bool:
    """Whether there is time even if all rows that wait or are out go first, at half the speed that was told."""
    rate = fixed = 0.0
    for speed, rows_out in loads:
        if speed is None or speed.rows_per_second <= 0:
            return True
        rate += speed.rows_per_second
        rows += rows_out
        fixed = max(fixed, speed.fixed_us)
    return bool(rate) and 2.0 * (rows / rate + fixed / 1e6) < seconds_left


def refuse(now: float, request: Waiting, backlog: Backlog, loads: Collection[Load]) -> float | None:
    """The seconds after which `request` would be answered if it joined, if that were too late; else None.

    `loads` are the workers that have the version ready. Nothing is refused while one of them has not told its speed,
    and nothing while nobody waits.
    """
    speeds = [load.speed for load in loads if load.speed is not None and load.speed.rows_per_second > 0]
    if not backlog.rows or not speeds or len(speeds) < len(loads):
        return None
    compute = min(speed.fixed_us + speed.row_us * request.rows for speed in speeds) / 1e6
    predicted = wait_seconds(backlog.rows_before(request), loads) + compute
    return predicted if predicted * MARGIN > request.deadline - now else None


def wait_seconds(rows_before: int, loads: Collection[Load]) -> float:
    """Seconds until `rows_before` rows have been taken from the queue; every load has a speed, and there is one."""
    free = sorted(
        (load.rows / load.speed.rows_per_second, load.speed.rows_per_second) for load in loads if load.speed is not None
    )
    time, rate, left = free[0][0], 0.0, float(rows_before)
    for free_at, rows_per_second in free:
        taken = rate * (free_at - time)
        if taken > left:
            break
        time, rate, left = free_at, rate + rows_per_second, left - taken
    return time + left / rate


def would_be_late(model: str, number: int, predicted_seconds: float, seconds_left: float) -> WouldBeLate:
    """The refusal of a request that would be answered after `predicted_seconds` but has only `seconds_left`."""
    excess = predicted_seconds * MARGIN - seconds_left
    return WouldBeLate(
        f"an answer would take about {predicted_seconds * 1e3:.0f} ms, and {seconds_left * 1e3:.0f} ms are left",
        retry_after_seconds=min(max(excess, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS),
        model=model,
        version=number,
        predicted_wait_ms=round(predicted_seconds * 1e3),
    )
