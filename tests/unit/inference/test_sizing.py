"""How many rows a batch should have."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from inferway_inference.latency import CurveKey, Latency
from inferway_inference.scheduler import Scheduler, SchedulerOptions
from inferway_inference.sizing import best_sizing
from tests.unit.inference.requests import admitted
from tests.unit.inference.simulator import Simulation

KEY: CurveKey = ("serving_default", ())


def slow(rows: int) -> float:
    """A model of 162 rows a second with two callers, of which a hundredth is what batches cost beside their rows."""
    return 0.020 + 0.012 * rows


@pytest.mark.parametrize(
    ("seconds", "rows"),
    [
        pytest.param(slow, 32, id="a row hardly gets cheaper"),
        pytest.param(lambda rows: 0.001 + 0.000001 * rows, 512, id="rows are nearly free"),
        pytest.param(lambda rows: 0.01 * rows, 1, id="batches do not pay"),
    ],
)
def test_each_doubling_of_a_batch_has_to_pay(seconds: Callable[[int], float], rows: int):
    """128 rows of the slow model last 1.6 s, and would make a row 3.7 % cheaper than 32 rows do in 0.4 s."""
    latency = Latency()
    for size in (1, 8, 32, 512):
        latency.observe(size, seconds(size))

    sizing = best_sizing(latency, 1, 512)
    assert sizing is not None
    assert sizing.rows == rows


def test_what_is_admitted_is_in_time_however_large_batches_may_be():
    """With room for 512 rows 3 % of what was let in expired: batches lasted as long as the longest deadline."""
    scheduler = Scheduler(SchedulerOptions(max_batch_rows=512), 2)
    for rows in (1, 8, 32):
        scheduler.latency.observe(KEY, rows, slow(rows), crowded=True)
    simulation = Simulation(scheduler, lambda rows, _: slow(rows), seed=1, noise=0.0, front_seconds=0.0)
    source, now = random.Random(1), 0.0
    for number in range(4_000):
        now += source.expovariate(5 * 162)
        deadline = now + source.choice((0.16, 0.32, 0.64, 1.6))
        simulation.arrives(admitted(number, received_at=now, deadline=deadline))
    simulation.run()

    endings = [ending.how for ending in simulation.endings.values()]
    assert endings.count("answered") > 700
    assert endings.count("expired") <= 0.005 * endings.count("answered")
