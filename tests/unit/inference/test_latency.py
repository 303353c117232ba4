"""What is learned of a version's latency."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_inference.latency import MAX_CURVES, Curve, Latency, LatencyModel, curve_key
from inferway_inference.sizing import best_sizing, padded, speed_of


def affine(rows: int) -> float:
    return 0.001 + 0.0001 * rows


def learned(*sizes: int, times: int = 5) -> Latency:
    latency = Latency()
    for rows in sizes * times:
        latency.observe(rows, affine(rows))
    return latency


def test_nothing_is_guessed_before_the_first_batch():
    """Whoever refuses or waits by a guess is wrong at the worst moment, the start."""
    latency = Latency()

    assert latency.seconds(1) is None
    assert best_sizing(latency, 1, 64) is None
    assert speed_of(LatencyModel(), 1, 64).rows_per_second == 0


def test_sizes_between_and_beyond_those_seen_are_read_off_the_curve():
    """Batches come in every size; waiting until each was seen would take for ever."""
    latency = learned(1, 8, 32)
    for rows in (1, 2, 5, 8, 20, 32, 64):
        assert latency.seconds(rows) == pytest.approx(affine(rows), rel=0.02)


def test_sizes_that_are_no_powers_of_two_teach_their_neighbours():
    """Natural batches are of any size."""
    latency = Latency()
    source = random.Random(1)
    for _ in range(500):
        rows = source.randint(1, 40)
        latency.observe(rows, affine(rows) * source.uniform(0.9, 1.1))
    for rows in (1, 3, 7, 12, 24, 40):
        assert latency.seconds(rows) == pytest.approx(affine(rows), rel=0.15)


def test_a_stall_moves_little():
    """A pause of the machine of a hundred times a batch says nothing about the next one."""
    latency = learned(1, 8, 32)
    latency.observe(8, 100 * affine(8))

    assert latency.seconds(8) == pytest.approx(affine(8), rel=0.1)


def test_a_stall_of_a_size_not_seen_before_bends_nothing_else():
    """The first batch of a size may meet a busy machine; what is known of the other sizes is not worth less by it."""
    latency, seen = Latency(), {1: 160e-6, 8: 280e-6, 32: 340e-6, 64: 350e-6}
    for rows, seconds in seen.items():
        latency.observe(rows, seconds)
    latency.observe(2, 0.0395)

    assert {rows: latency.seconds(rows) for rows in seen} == pytest.approx(seen)
    sizing = best_sizing(latency, 1, 64)
    assert sizing is not None
    assert sizing.rows == 64


def test_a_size_that_stays_slow_is_believed_against_others_soon():
    """Of sizes that contradict each other the one with few samples gives way only while it has few."""
    latency = learned(1, 8, 32, times=20)
    for _ in range(50):
        latency.observe(4, 0.050)

    assert latency.seconds(4) == pytest.approx(0.050, rel=0.1)
    assert latency.seconds(32) == pytest.approx(0.050, rel=0.1)


def test_a_stall_of_the_first_batch_beside_others_does_not_slow_all_sizes():
    """It is the only one that says how much slower batches are beside others."""
    latency = learned(1, 8, 32)
    latency.observe(8, 100 * affine(8), crowded=True)
    told = latency.seconds(32, crowded=True)

    assert told is not None
    assert told <= 4 * affine(32) * 1.001


def test_a_machine_that_became_slower_is_believed_soon():
    """Yesterday's speed says little about today's."""
    latency = learned(1, 8, 32)
    for _ in range(25):
        latency.observe(8, 3 * affine(8))

    assert latency.seconds(8) == pytest.approx(3 * affine(8), rel=0.1)


def test_a_batch_beside_others_is_learned_apart():
    """Two batches on the same cores are each slower; one curve for both would be wrong for both."""
    latency = learned(1, 8, 32)
    latency.observe(8, 2 * affine(8), crowded=True)

    assert latency.seconds(8) == pytest.approx(affine(8))
    assert latency.seconds(32, crowded=True) == pytest.approx(2 * affine(32)), "the first of a kind scales the shape"


def test_caution_grows_with_batches_that_take_longer_than_expected():
    """A deadline met on average is missed half of the time."""
    latency, source = Latency(), random.Random(1)
    for _ in range(2000):
        latency.observe(4, affine(4) * source.choice([1.0] * 9 + [1.6]))

    assert latency.caution > 1.3


def test_the_best_size_is_small_where_batching_does_not_pay():
    """Many models on a CPU: larger batches only make everybody wait."""
    latency = Latency()
    for rows, seconds in ((1, 0.010), (8, 0.1), (32, 0.64)):
        latency.observe(rows, seconds)
    sizing = best_sizing(latency, 2, 64)

    assert sizing is not None
    assert sizing.rows <= 2


def test_the_best_size_is_large_where_batching_pays():
    """The fixed cost is shared."""
    sizing = best_sizing(learned(1, 8, 32, 64), 1, 64)

    assert sizing is not None
    assert sizing.rows == 64
    assert 1 / sizing.row_seconds == pytest.approx(64 / 0.0076, rel=0.05)


def test_speed_tells_fixed_and_row_costs_apart():
    """Gateways forecast by them."""
    model = LatencyModel()
    for rows in (1, 4, 16, 64) * 5:
        model.observe(("s", ((2,),)), rows, affine(rows))
    speed = speed_of(model, 1, 64)

    assert speed.fixed_us == pytest.approx(1000, rel=0.02)
    assert speed.row_us == pytest.approx(100, rel=0.02)


def test_padding_goes_up_to_the_next_bucket():
    """A compiled shape is waiting there."""
    assert [padded(rows, (4, 16)) for rows in (1, 4, 5, 16, 17)] == [4, 4, 16, 16, 17]


def test_the_number_of_curves_is_bounded():
    """A caller who sends a new shape each time must not fill the memory."""
    model = LatencyModel()
    for width in range(3 * MAX_CURVES):
        model.observe(curve_key("s", [(1, width)]), 1, 0.001)

    assert len(list(model)) == MAX_CURVES


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(1e-6, 10.0)), min_size=1, max_size=60))
def test_latency_never_falls_with_rows_and_its_inverse_agrees(batches: list[tuple[int, float]]):
    """Whatever was seen: sizes are compared and deadlines inverted by it."""
    curve = Curve()
    for rows, seconds in batches:
        curve.observe(rows, seconds)
    told = [curve.seconds(rows) or math.nan for rows in range(1, 400)]

    assert all(0 < one <= two * (1 + 1e-9) for one, two in itertools.pairwise(told))
    for limit in (1e-6, 1e-3, 1.0, *told[::50]):
        most = curve.rows_within(limit)
        if 1 <= most < 399:
            assert told[math.floor(most) - 1] <= limit * (1 + 1e-6) < told[math.floor(most)] * (1 + 1e-5)
