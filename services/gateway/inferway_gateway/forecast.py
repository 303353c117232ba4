"""How long a request that joins a version's queue now will wait, by what the workers have told of their speed. Pure.

Work is taken as a fluid: a worker that computes r rows a second and holds n of them is free after n / r seconds, and
from then on takes r rows a second from the queue. The wait ends when all rows that go first have been taken. Rows go
first as in the queue itself: those of more critical classes; in the same class those of the own tenant with nearer
deadlines, and as many of every other tenant, for tenants take turns.

Whoever was admitted stays in time: a request is refused, too, if it would push one behind it over its deadline.
Without that, at a few times the capacity, urgent requests make all late that are a little less urgent. (It is the
demand bound test of schedulers that serve the earliest deadline first: Baruah, Rosier, Howell 1990.)

More critical requests that are still to come go first, too: as many are expected as were let in of late, and a
class waits for what speed they leave. The less critical a class, the more of its time must be left over, so that
those who matter more find room when they come in a burst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from math import exp
from typing import NamedTuple, Protocol

from inferway.errors import WouldBeLate

MARGINS = {1: 1.1, 2: 1.2, 3: 1.3, 4: 1.43}
"""How much longer than predicted it may take, by class: whoever is admitted shall be answered in time."""
MARGIN = MARGINS[2]
ARRIVALS_SECONDS = 0.3
"""Time constant of the rates at which classes arrive."""
LEAST_LEFT = 0.05
"""Share of the speed that a class is expected to get at least, however much comes before it."""
_FINE_SECONDS = 0.008
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

    def behind(self, deadline: float) -> Iterator[tuple[float, int]]:
        """Further deadlines, ascending, each with all rows up to it: to a fine bin where it is near, else a coarse."""
        index, rows = int(deadline / _FINE_SECONDS), self.nearer(deadline)
        beyond = index // _FINE_PER_COARSE + 2
        for key in range(index + 1, beyond * _FINE_PER_COARSE):
            if key in self.fine:
                rows += self.fine[key]
                yield (key + 1) * _FINE_SECONDS, rows
        for key in sorted(self.coarse):
            if key >= beyond:
                rows += self.coarse[key]
                yield (key + 1) * _FINE_PER_COARSE * _FINE_SECONDS, rows


class _Order(NamedTuple):
    """What goes before the requests of one tenant and class."""

    first: int
    """Rows of more critical classes."""
    others: int
    """Rows of the same class of other tenants."""
    turns: int
    """How many other tenants there are."""
    own: _Line | None

    def rows_before(self, deadline: float) -> int:
        # A tenant that waits for nothing else comes after at most one request of every other.
        nearer = self.own.nearer(deadline) if self.own is not None else 0
        return self.first + nearer + min(self.others, nearer * self.turns)


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
        return self._order(request).rows_before(request.deadline)

    def behind(self, request: Waiting) -> Iterator[tuple[float, int]]:
        """Deadlines of what `request` would go before, ascending, each with the rows that go until then, without it."""
        first, others, turns, own = self._order(request)
        if own is not None:
            for deadline, rows in own.behind(request.deadline):
                yield deadline, first + rows + min(others, rows * turns)

    def _order(self, request: Waiting) -> _Order:
        first = sum([rows for criticality, rows in self._class_rows.items() if criticality < request.criticality])
        tenants = self._classes.get(request.criticality, {})
        own = tenants.get(request.tenant)
        others = self._class_rows[request.criticality] - (own.rows if own is not None else 0)
        return _Order(first, others, len(tenants) - (own is not None), own)

    def _count(self, line: _Line, request: Waiting, rows: int) -> None:
        line.add(request.deadline, rows)
        self.rows += rows
        self._class_rows[request.criticality] += rows


class Arrivals:
    """Rows a second by class, averaged with an exponential window."""

    def __init__(self) -> None:
        """Nobody has come."""
        self._rows: dict[int, float] = {}
        self._at = 0.0

    def age(self, now: float) -> None:
        """It is `now`, for what is added and asked next."""
        decay = exp((self._at - now) / ARRIVALS_SECONDS)
        self._at = now
        self._rows = {known: held * decay for known, held in self._rows.items()}

    def add(self, criticality: int, rows: float) -> None:
        """So many rows of the class came."""
        self._rows[criticality] = self._rows.get(criticality, 0.0) + rows

    def rate_before(self, criticality: int) -> float:
        """Of the more critical classes."""
        return sum([rows for known, rows in self._rows.items() if known < criticality]) / ARRIVALS_SECONDS


class Forecast:
    """Says of one version's requests whether they would be late. Costs next to nothing while everybody has time.

    Who goes first matters only when time is short: the rows are sorted by it once somebody might be late, and until
    the queue is empty again.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self._backlog: Backlog | None = None
        self._arrivals = Arrivals()
        self._useful_rows = 0.0

    def late(
        self, now: float, request: Waiting, waiting: Iterable[Waiting], rows: int, loads: Collection[Load]
    ) -> float | None:
        """As `refuse`; `waiting` are the `rows` rows that wait already."""
        speed, seconds_left = _rows_per_second(loads), request.deadline - now
        self._useful_rows = min(float(request.rows), speed * max(0.0, seconds_left))
        self._arrivals.age(now)
        left_over = left_over_share(self._arrivals.rate_before(request.criticality), speed)
        if not rows or _is_surely_in_time(seconds_left * left_over, rows + request.rows, loads):
            return None
        if self._backlog is None:
            self._backlog = Backlog()
            for other in waiting:
                self._backlog.add(other)
        return refuse(now, request, self._backlog, loads, left_over)

    def joined(self, request: Waiting) -> None:
        """`request`, the last that was asked about, waits from now on.

        As many rows of it are expected again as could be computed in its time: who asks for more in vain is no reason
        to keep others out.
        """
        self._arrivals.add(request.criticality, self._useful_rows)
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


def refuse(
    now: float, request: Waiting, backlog: Backlog, loads: Collection[Load], left_over: float = 1.0
) -> float | None:
    """The seconds after which `request` could be answered, if that were too late for it or for those behind it.

    Else None. `loads` are the workers that have the version ready, of whose speed its class gets the share `left_over`.
    Nothing is refused while one of them has not told its speed, and nothing while nobody waits.
    """
    if not backlog.rows or not loads or not all(map(_is_known, loads)):
        return None
    compute, margin = min([_compute_seconds(load, request.rows) for load in loads]), MARGINS[request.criticality]
    predicted = wait_seconds(backlog.rows_before(request) / left_over, loads) + compute
    if predicted * margin > request.deadline - now:
        return predicted
    for deadline, rows in backlog.behind(request):
        seconds, together = deadline - now, rows + request.rows
        late = together > rows_taken(seconds / margin - compute, loads) * left_over
        if late and rows <= rows_taken(seconds - compute, loads) * left_over:
            return wait_seconds(together / left_over, loads) + compute
    return None


def left_over_share(taken: float, speed: float) -> float:
    """Share of the workers' `speed` that is left by others who take so much of it, both in rows a second."""
    return max(LEAST_LEFT, 1.0 - taken / speed) if speed else 1.0


def _rows_per_second(loads: Collection[Load]) -> float:
    return sum([load.speed.rows_per_second for load in loads if load.speed is not None])


def _is_known(load: Load) -> bool:
    return load.speed is not None and load.speed.rows_per_second > 0


def _compute_seconds(load: Load, rows: int) -> float:
    """Of the batch in which a request with `rows` rows will be.

    While others wait, a worker has about two batches' worth of rows for each that computes side by side, so a batch is
    about half of its share of what the worker has. Rows that take longer each than the worker needs for one, on
    average, are computed side by side.
    """
    assert load.speed is not None
    rows_per_second, fixed_us, row_us = load.speed
    side_by_side = max(1.0, rows_per_second * row_us / 1e6)
    return (fixed_us + row_us * max(rows, load.rows / (2 * side_by_side))) / 1e6


def rows_taken(seconds: float, loads: Collection[Load]) -> float:
    """Rows that the workers have taken from the queue after so long; the inverse of `wait_seconds`."""
    taken = 0.0
    for speed, rows in loads:
        if speed is not None and (own := speed.rows_per_second * seconds - rows) > 0:
            taken += own
    return taken


def wait_seconds(rows_before: float, loads: Collection[Load]) -> float:
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
