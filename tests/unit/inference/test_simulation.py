"""The scheduler in virtual time, over many schedules: what must hold whatever happens.

A few hundred schedules run with the other tests, always the same ones. `make simulate` runs thousands of new ones.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferway_chassis.request_queue import QueueLimits
from inferway_inference.plan import ServingBounds
from inferway_inference.scheduler import Scheduler, SchedulerOptions
from inferway_inference.work import Request
from tests.unit.inference.requests import SINGLE, admitted
from tests.unit.inference.simulator import Machine, Simulation

SCHEDULES = int(os.environ.get("INFERWAY_SIMULATED_SCHEDULES", "0"))
simulated = settings(
    max_examples=SCHEDULES or 200,
    derandomize=not SCHEDULES,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
KEY = ("serving_default", ())
LIMITS = QueueLimits(max_items=60, max_rows=200, max_bytes=4000)


@dataclass(frozen=True)
class Arrival:
    """A request to come, and what will happen to it."""

    gap: float
    rows: int
    patience: float
    kind: str
    """Requests of different kinds never share a batch; `single` are computed one by one."""
    tenant: str
    criticality: int
    fate: str
    cancelled_after: float | None


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        gap=st.sampled_from([0.0, 0.0, 0.0003, 0.004, 0.05, 1.5]),
        rows=st.sampled_from([1, 1, 1, 2, 5, 30]),
        patience=st.sampled_from([0.004, 0.03, 0.2, 5.0]),
        kind=st.sampled_from(["a", "a", "b", "single"]),
        tenant=st.sampled_from(["", "", "t"]),
        criticality=st.sampled_from([1, 2, 2, 3]),
        fate=st.sampled_from([""] * 12 + ["poison", "deadly"]),
        cancelled_after=st.sampled_from([None, None, None, 0.0, 0.002, 0.02]),
    ),
    max_size=60,
)
MACHINES = st.builds(
    lambda fixed, row, beside: lambda rows, at_once: (fixed + row * rows) * (beside if at_once > 1 else 1.0),
    st.sampled_from([0.0001, 0.002, 0.02]),
    st.sampled_from([0.00001, 0.001, 0.01]),
    st.sampled_from([1.0, 1.4, 2.5]),
)
BOUNDS = st.sampled_from(
    [
        ServingBounds(),
        ServingBounds(max_batch_rows=3),
        ServingBounds(buckets=(2, 4, 12)),
        ServingBounds(max_queue_delay_seconds=0.0),
        ServingBounds(max_queue_delay_seconds=0.003),
    ]
)


def request_of(number: int, now: float, arrival: Arrival) -> Request:
    single = arrival.kind == "single"
    extra = {"signature": SINGLE} if single else {}
    return admitted(
        number,
        rows=1 if single else arrival.rows,
        received_at=now,
        deadline=now + arrival.patience,
        key=arrival.kind,
        parameters=number,
        tenant=arrival.tenant,
        criticality=arrival.criticality,
        byte_count=10,
        **extra,
    )


def prepared(simulation: Simulation, arrivals: list[Arrival]) -> None:
    now = 0.0
    for number, arrival in enumerate(arrivals):
        now += arrival.gap
        request = request_of(number, now, arrival)
        simulation.arrives(request)
        if arrival.fate == "poison":
            simulation.poison.add(number)
        if arrival.fate == "deadly":
            simulation.deadly.add(number)
        if arrival.cancelled_after is not None:
            simulation.cancels(request, now + arrival.cancelled_after)


@simulated
@given(ARRIVALS, MACHINES, st.integers(1, 3), st.lists(st.tuples(st.floats(0, 0.5), BOUNDS), max_size=3))
def test_every_request_ends_once_with_its_own_rows(
    arrivals: list[Arrival], machine: Machine, capacity: int, changes: list[tuple[float, ServingBounds]]
):
    """No answer to the wrong caller, none twice, none lost: the promise that everything else stands on."""
    own = Scheduler(SchedulerOptions(max_batch_rows=8, max_batch_bytes=100, limits=LIMITS), capacity)
    simulation = Simulation(own, machine, seed=len(arrivals), noise=0.3)
    prepared(simulation, arrivals)
    for when, bounds in changes:
        simulation.at(when, own.rebound, bounds)
    simulation.run()

    assert simulation.endings.keys() == set(range(len(arrivals)))
    for number, ending in simulation.endings.items():
        request = simulation.requests[number]
        if ending.how == "answered":
            covered = [row for start, count in sorted(ending.rows) for row in range(start, start + count)]
            assert covered == list(range(request.rows)), "each row once, and in order"
        if ending.how == "failed":
            assert number in simulation.poison
        assert ending.how != "expired" or ending.at >= request.received_at
    assert own.idle
    assert (own.waiting_items, own.waiting_rows, own.waiting_bytes) == (0, 0, 0)


@simulated
@given(ARRIVALS, MACHINES, st.integers(1, 3), BOUNDS)
def test_bounds_hold_and_kinds_never_mix(
    arrivals: list[Arrival], machine: Machine, capacity: int, bounds: ServingBounds
):
    """Rows are memory; and a batch of two kinds would be computed by the parameters of one."""
    own = Scheduler(SchedulerOptions(max_batch_rows=8, limits=LIMITS), capacity)
    own.rebound(bounds)
    simulation = Simulation(own, machine, noise=0.3)
    most_waiting = [0]
    simulation.observe = lambda: most_waiting.append(own.waiting_items)
    prepared(simulation, arrivals)
    simulation.run()

    for batch in simulation.batches:
        assert len({request.key for request in batch.requests}) == 1
        assert batch.rows <= own.max_batch_rows or (len(batch.parts) == 1 and len(batch.requests[0].parts) == 1)
        assert batch.padded_rows == batch.rows or batch.padded_rows in bounds.buckets
        assert batch.signature.batchable or len(batch.parts) == 1
    assert max(most_waiting) <= LIMITS.max_items + 30, "a request in parts is let in as a whole"
    assert simulation.most_at_once <= capacity + 1


@simulated
@given(ARRIVALS, MACHINES, st.integers(1, 2))
def test_nothing_is_computed_that_had_expired_or_was_cancelled(
    arrivals: list[Arrival], machine: Machine, capacity: int
):
    """The time of the runner goes to those who still wait."""
    simulation = Simulation(Scheduler(SchedulerOptions(max_batch_rows=8), capacity), machine)
    prepared(simulation, arrivals)
    simulation.run()

    for batch in simulation.batches:
        for part in batch.parts:
            ending = simulation.endings[part.payload.id]
            assert part.deadline > batch.dispatched_at
            assert ending.how not in ("cancelled", "expired") or ending.at >= batch.dispatched_at


@settings(simulated, max_examples=SCHEDULES // 20 or 10)
@given(st.integers(0, 10_000), st.sampled_from([0.6, 1.0, 2.0, 5.0]), st.integers(1, 2))
def test_who_is_let_in_is_answered_in_time(seed: int, load: float, capacity: int):
    """Under any overload: the queue refuses at the door instead of making everybody late.

    In a third of a second, a few batches in a row that are slow by chance can make a twentieth late.
    """
    simulation, good, admitted_count = loaded(seed, load, capacity)

    assert good >= 0.92 * admitted_count
    assert good / simulation.now >= 0.5 * min(load, 1.0) * capacity * 32 / 0.026


def loaded(seed: int, load: float, capacity: int) -> tuple[Simulation, int, int]:
    """A third of a second of single rows at `load` times what the model can do."""

    def machine(rows: int, _: int) -> float:
        return 0.010 + 0.0005 * rows

    own = Scheduler(SchedulerOptions(max_batch_rows=32), capacity)
    for rows in (1, 8, 32):
        for crowded in (False, True):
            own.latency.observe(("serving_default", ()), rows, machine(rows, 1), crowded=crowded)
    simulation = Simulation(own, machine, seed, noise=0.05)
    now, source = 0.0, random.Random(seed)
    for number in range(int(load * capacity * 400)):
        now += source.expovariate(load * capacity * 32 / 0.026)
        simulation.arrives(admitted(number, received_at=now, deadline=now + source.choice([0.08, 0.15, 0.3])))
    simulation.run()
    let_in = [number for number, ending in simulation.endings.items() if ending.how in ("answered", "expired")]
    good = sum(
        simulation.endings[number].how == "answered"
        and simulation.endings[number].at <= simulation.requests[number].deadline
        for number in let_in
    )
    simulation.now = now
    return simulation, good, len(let_in)


@pytest.mark.parametrize("poisoned", range(16))
def test_whichever_request_is_poison_it_fails_alone(poisoned: int):
    """Bisection must find it wherever it sits, at the cost of a few batches."""
    simulation = Simulation(Scheduler(SchedulerOptions(max_batch_rows=16)), lambda rows, _: 0.01 + 0.001 * rows)
    for number in range(17):
        simulation.arrives(admitted(number, received_at=0.0 if number == 16 else 0.001, deadline=5.0))
    simulation.poison.add(poisoned)
    simulation.run()

    assert [number for number, ending in simulation.endings.items() if ending.how != "answered"] == [poisoned]
    assert len(simulation.batches) <= 12


def test_tenants_share_the_runner_whoever_sends_more():
    """A busy tenant must not take a quiet one's share."""
    simulation = Simulation(Scheduler(SchedulerOptions(max_batch_rows=4)), lambda rows, _: 0.01 + 0.001 * rows)
    for number in range(100):
        simulation.arrives(admitted(number, deadline=10.0, tenant="busy" if number < 90 else "quiet"))
    simulation.run()

    quiet = [ending.at for number, ending in simulation.endings.items() if number >= 90]
    everybody = sorted(ending.at for ending in simulation.endings.values())
    assert max(quiet) <= everybody[30], "ten requests of a half share are done among the first thirty"


def test_the_critical_are_served_while_the_rest_waits():
    """Sheddable traffic gives way."""
    simulation = Simulation(Scheduler(SchedulerOptions(max_batch_rows=4)), lambda rows, _: 0.01 + 0.001 * rows)
    for number in range(40):
        simulation.arrives(admitted(number, deadline=10.0, criticality=3))
    simulation.arrives(admitted(40, received_at=0.001, deadline=10.0, criticality=1))
    simulation.run()

    assert simulation.endings[40].at <= sorted(ending.at for ending in simulation.endings.values())[9]


def machine_of_digits(rows: int, _: int) -> float:
    """A small model: 64 rows take hardly longer than one."""
    return 0.00016 + 0.000003 * rows


SIZES = (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("slow", [(2,), (64,), SIZES[1:], SIZES])
def test_throughput_is_back_soon_after_a_busy_moment_was_learned(slow: tuple[int, ...]):
    """Sizes that are thought slow would never be computed, and so never be known to be fast again."""
    own = Scheduler(SchedulerOptions(max_batch_rows=64))
    for rows in SIZES * 10:
        own.latency.observe(KEY, rows, machine_of_digits(rows, 1))
    for rows in slow * 40:
        own.latency.observe(KEY, rows, 0.040)
    simulation = Simulation(own, machine_of_digits, noise=0.05, front_seconds=0.0)
    for number in range(30_000):
        simulation.arrives(admitted(number, received_at=number * 4e-6, deadline=60.0))
    simulation.run()

    late = simulation.batches[250:-2]
    assert len(late) > 100
    rows, seconds = sum([batch.rows for batch in late]), sum([machine_of_digits(batch.rows, 1) for batch in late])
    assert rows / seconds >= 0.95 * 64 / machine_of_digits(64, 1)


def test_trials_of_other_sizes_take_little_time_and_make_nobody_late():
    """Where a neighbour of the best size is ten times as slow, trying it must not cost more than it could teach."""

    def cliff(rows: int, _: int) -> float:
        return 0.002 + 0.0005 * rows if rows <= 8 else 0.1

    own = Scheduler(SchedulerOptions(max_batch_rows=16))
    for rows in (1, 8, 16) * 10:
        own.latency.observe(KEY, rows, cliff(rows, 1))
    simulation = Simulation(own, cliff, noise=0.02, front_seconds=0.0)
    for number in range(8000):
        now, hurried = number / 2000, number % 3 == 0
        simulation.arrives(admitted(number, received_at=now, deadline=now + (0.05 if hurried else 60)))
    simulation.run()

    tried = sum(cliff(batch.rows, 1) for batch in simulation.batches if batch.rows > 8)
    assert 0 < tried <= 0.06 * simulation.now
    let_in = [number for number, ending in simulation.endings.items() if ending.how in ("answered", "expired")]
    late = [number for number in let_in if simulation.endings[number].at > simulation.requests[number].deadline]
    assert len(late) <= 0.01 * len(let_in)
