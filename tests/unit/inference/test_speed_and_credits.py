"""What is learned of a version's speed, and how many rows gateways may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_inference.credits import CreditPool
from inferway_inference.speed import SpeedModel


def test_fixed_and_row_costs_are_told_apart():
    """Deadlines and batch sizes will be computed from them."""
    model = SpeedModel()
    for rows in (1, 4, 16, 64) * 5:
        model.observe(rows, 0.001 + 0.0001 * rows)
    learned = model.learned()

    assert learned.fixed_us == pytest.approx(1000)
    assert learned.row_us == pytest.approx(100)
    assert learned.rows_per_second == pytest.approx(64 / 0.0074)


def test_the_model_follows_a_machine_whose_load_changes():
    """Yesterday's speed says little about today's."""
    model = SpeedModel()
    for seconds in (0.001, 0.01):
        for rows in (1, 2) * 300:
            model.observe(rows, seconds * rows)

    assert model.seconds(1) == pytest.approx(0.01, rel=0.01)


def test_batches_of_one_size_give_no_slope():
    """A line through one point would be a guess."""
    model = SpeedModel()
    assert model.seconds(8) is None
    for _ in range(3):
        model.observe(8, 0.004)

    assert model.seconds(8) == pytest.approx(0.004)
    assert model.learned().row_us == 0


def test_links_share_the_window_and_get_back_what_is_answered():
    """A worker never promises more rows than about two batches, however many gateways there are."""
    pool = CreditPool(100)
    assert pool.take_due("a") == 100
    assert pool.take_due("b") == 50
    pool.finished("a", 100)
    assert pool.take_due("a") == 50
    pool.leave("b")
    assert pool.take_due("a") == 50


def test_a_small_due_waits_for_company():
    """A grant is a message, and messages are what costs."""
    pool = CreditPool(100)
    pool.take_due("a")
    pool.finished("a", 24)
    assert pool.take_due("a") == 0
    pool.finished("a", 1)
    assert pool.take_due("a") == 25


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300)), max_size=60))
def test_a_link_that_has_all_its_answers_can_always_send(events: list[tuple[str, int]]):
    """Credits that trickle away would stop a gateway for good."""
    pool, credit = CreditPool(128), dict.fromkeys("abc", 0)
    for link in credit:
        credit[link] += pool.take_due(link)
    for link, rows in events:
        assert credit[link] > 0
        credit[link] -= rows
        pool.finished(link, rows)
        credit[link] += pool.take_due(link)
