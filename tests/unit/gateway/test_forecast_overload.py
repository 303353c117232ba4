"""The forecast at work: a gateway's queue before one worker, simulated on a clock of its own, far beyond capacity."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest

from inferway_chassis.request_queue import Queued, QueueLimits, RequestQueue
from inferway_gateway.forecast import Forecast, Load, Speed

BATCH_ROWS = 32
WINDOW_ROWS = 2 * BATCH_ROWS
FIXED, ROW = 0.001, 0.0001
SECONDS = 1.0
CAPACITY = BATCH_ROWS / (FIXED + ROW * BATCH_ROWS)
SPEED = Speed(CAPACITY, FIXED * 1e6, ROW * 1e6)


@dataclass(slots=True)
class Simulation:
    """Requests of one row in, answers by the clock out."""

    queue: RequestQueue[float] = field(default_factory=lambda: RequestQueue(QueueLimits(max_items=100_000)))
    forecast: Forecast = field(default_factory=Forecast)
    bound: deque[Queued[float]] = field(default_factory=deque)
    computing: list[Queued[float]] = field(default_factory=list)
    done_at: float = float("inf")
    refused: Counter[int] = field(default_factory=Counter)
    """By class, as the other two."""
    in_time: Counter[int] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)

    def run(self, arrivals: list[Queued[float]]) -> None:
        """Until everything that arrived is answered, refused or expired."""
        for request in arrivals:
            while self.done_at <= request.payload:
                self._finish()
            self._arrive(request)
        while self.computing:
            self._finish()

    def _arrive(self, request: Queued[float]) -> None:
        now, loads = request.payload, [Load(SPEED, self._rows_out())]
        if not self.queue and self._rows_out() < WINDOW_ROWS:
            self._bind(request, now)
        elif self.forecast.late(now, request, self.queue, self.queue.rows, loads) is not None:
            self.refused[request.criticality] += 1
        else:
            self.queue.offer(request)
            self.forecast.joined(request)

    def _rows_out(self) -> int:
        return len(self.bound) + len(self.computing)

    def _bind(self, request: Queued[float], now: float) -> None:
        self.bound.append(request)
        if not self.computing:
            self._compute(now)

    def _compute(self, now: float) -> None:
        self.computing = [self.bound.popleft() for _ in range(min(BATCH_ROWS, len(self.bound)))]
        self.done_at = now + FIXED + ROW * len(self.computing) if self.computing else float("inf")

    def _finish(self) -> None:
        now = self.done_at
        for request in self.computing:
            (self.in_time if request.deadline >= now else self.late)[request.criticality] += 1
        self.computing = []
        for expired in self.queue.expire(now):
            self.forecast.left(expired)
            self.late[expired.criticality] += 1
        while self.queue and self._rows_out() < WINDOW_ROWS:
            taken = self.queue.take()
            assert taken is not None
            self.forecast.left(taken)
            self.bound.append(taken)
        self._compute(now)


def simulated(
    load: float, deadlines: tuple[float, ...], classes: tuple[int, ...] = (2,), seconds: float = SECONDS
) -> Simulation:
    """What became of Poisson arrivals at so many times the capacity, each with one of the deadlines and classes."""
    chance, now, arrivals = random.Random(7), 0.0, []
    while now < seconds:
        now += chance.expovariate(load * CAPACITY)
        arrivals.append(Queued(now, now + chance.choice(deadlines), criticality=chance.choice(classes)))
    simulation = Simulation()
    simulation.run(arrivals)
    return simulation


@pytest.mark.parametrize("deadlines", [(0.03, 0.1, 0.5), (0.02, 0.05)], ids=["mixed", "tight"])
@pytest.mark.parametrize("load", [1.2, 5.0])
def test_beyond_capacity_all_of_it_is_used_and_what_is_admitted_is_in_time(load: float, deadlines: tuple[float, ...]):
    """An early refusal lets the caller go elsewhere; a late answer has cost the capacity and is worth nothing."""
    end = simulated(load, deadlines)

    assert end.late.total() < 0.005 * end.in_time.total()
    assert end.in_time.total() > 0.97 * CAPACITY * SECONDS
    assert end.refused.total() > 0.9 * (load - 1.0) * CAPACITY * SECONDS - CAPACITY * max(deadlines)


def test_below_capacity_nobody_is_refused():
    """The forecast must not cost a single answer while there is room for all."""
    calm = simulated(0.5, (0.03, 0.1, 0.5))

    assert (calm.refused.total(), calm.late.total()) == (0, 0)


def test_what_can_be_shed_makes_room_for_what_matters_and_hears_of_it_at_once():
    """To keep a request until its deadline and then drop it is the worst refusal: the caller cannot go elsewhere."""
    end = simulated(1.8, (0.05, 0.1), classes=(2, 4, 4), seconds=3.0)

    assert end.refused[2] + end.late[2] < 0.001 * end.in_time[2]
    assert end.late[4] < 0.05 * end.refused[4]
    assert end.in_time.total() > 0.9 * CAPACITY * 3.0
