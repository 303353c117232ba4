"""The drives that the arrival model learns from, and its arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from examples.eta import numpy_model
from examples.eta.drives import BLOCK_KM, FEATURES, SIDE, STEP_MINUTES, Town, Traffic, record
from examples.eta.numpy_model import Weights

LEFT, MAP = FEATURES.index("left_km"), FEATURES.index("map_minutes")
MORNING = 7 * 60.0


@pytest.fixture(scope="module")
def town() -> Town:
    return Town.build()


@pytest.fixture
def traffic(town: Town) -> Traffic:
    return Traffic(town, vehicles=30, day=3, minute=MORNING)


def test_the_same_day_is_the_same_traffic(town: Town):
    """A benchmark that computes every session's state again needs the same inputs; a test needs other days."""
    same, again = (Traffic(town, 30, 3, MORNING) for _ in range(2))
    other = Traffic(town, 30, 4, MORNING)
    for _ in range(50):
        for traffic in (same, again, other):
            traffic.step()

    assert np.array_equal(same.features(), again.features())
    assert not np.array_equal(same.features(), other.features())


def test_a_vehicles_trips_do_not_hang_on_how_many_others_there_are(town: Town, traffic: Traffic):
    """Vehicles are replayed alone."""
    fewer = Traffic(town, vehicles=2, day=3, minute=MORNING)
    for each in (traffic, fewer):
        each.depart(np.array([1]))

    assert fewer.route(1).shape[0] > 1
    assert fewer.trips.tolist() == [0, 1]
    assert np.array_equal(
        np.abs(np.diff(traffic.route(1), axis=0)).sum(-1).round(6), np.full(len(traffic.route(1)) - 1, BLOCK_KM)
    )


def test_vehicles_keep_to_streets_and_lights(traffic: Traffic):
    """A map in which cars jump or drive through houses convinces nobody."""
    waited = 0
    for _ in range(100):
        before, left = traffic.position, traffic.features()[:, LEFT]
        traffic.step()
        moved = np.abs(traffic.position - before)
        waited += int(np.sum((moved.sum(-1) == 0) & ~traffic.arrived))
        on_street = np.abs(traffic.position / BLOCK_KM - np.round(traffic.position / BLOCK_KM)).min(-1)
        assert on_street.max() < 1e-9
        assert moved.max() < 0.15
        assert np.allclose(left - traffic.features()[:, LEFT], moved.sum(-1), atol=1e-5)
        assert traffic.position.min() >= 0
        assert traffic.position.max() <= (SIDE - 1) * BLOCK_KM
    assert waited > 0


def test_who_arrives_stays_until_sent_on(traffic: Traffic):
    """And begins the next trip where the last one ended."""
    for _ in range(400):
        traffic.step()
    assert traffic.arrived.all()
    assert np.allclose(traffic.features()[:, [0, 1, LEFT, MAP]], 0, atol=1e-6)
    place = traffic.position

    traffic.depart(np.arange(30))

    assert not traffic.arrived.any()
    assert np.allclose(traffic.position, place, atol=1e-5)
    assert (traffic.trips == 1).all()


def test_a_recording_counts_down_to_the_arrival(town: Town):
    """What the model learns must be what happened."""
    drives = record(town, range(2), vehicles=20, steps=100)
    steps_left = (drives.eta_minutes / STEP_MINUTES).round()

    assert drives.features.shape == (40, 100, 6)
    assert np.array_equal(steps_left > 0, drives.under_way)
    assert np.array_equal(np.diff(steps_left), -drives.under_way[:, :-1].astype(float))
    assert (steps_left[:, 0] > 100).any()  # who arrives later is not forgotten
    assert (drives.features[..., LEFT] > 0)[drives.under_way].all()
    assert np.allclose(drives.features[..., LEFT][~drives.under_way], 0, atol=1e-6)
    assert (drives.eta_minutes >= 0.8 * drives.features[..., MAP]).all()  # nobody beats the map by far


@pytest.fixture
def weights() -> Weights:
    """Of two units."""
    generator = np.random.default_rng(5)
    shapes = {"kernel": (6, 6), "recurrent_kernel": (2, 6), "bias": (2, 6), "head_kernel": (2, 1), "head_bias": (1,)}
    return {name: generator.normal(size=shape).astype("f4") for name, shape in shapes.items()} | {
        "scale": np.ones(6, np.float32)
    }


def test_the_state_of_a_row_is_its_own(weights: Weights):
    """Sessions share batches; none may leave a trace in another."""
    x = np.random.default_rng(6).normal(size=(3, 6)).astype("f4")
    state = np.random.default_rng(7).uniform(-1, 1, (3, 2)).astype("f4")
    together = numpy_model.step(weights, x, state)
    alone = [numpy_model.step(weights, x[[row]], state[[row]]) for row in range(3)]

    for side in range(2):
        assert np.allclose(together[side], np.concatenate([each[side] for each in alone]), atol=1e-6)
        assert together[side].dtype == np.float32


def test_what_came_before_counts(weights: Weights):
    """Otherwise a lost or doubled item would never show."""
    x = np.ones((1, 6), np.float32)
    once = numpy_model.step(weights, x, numpy_model.initial_state(weights, 1))
    twice = numpy_model.step(weights, x, once[1])

    told, state = numpy_model.sessions(weights, np.ones((1, 2, 6), np.float32))

    assert abs(once[0] - twice[0]).item() > 1e-3
    assert np.array_equal(told, [[once[0].item(), twice[0].item()]])
    assert np.array_equal(state, twice[1])
