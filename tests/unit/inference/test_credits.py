"""How many rows gateways may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferway_inference.credits import CreditPool, window_rows
from inferway_inference.latency import Speed


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


def test_the_window_follows_what_was_learned():
    """Two batches for each caller: more would wait in the worker, where nobody else can take it."""
    assert window_rows(Speed(rows_per_second=140), best_rows=1, max_rows=64, capacity=2) == 6
    assert window_rows(Speed(rows_per_second=2000), best_rows=32, max_rows=64, capacity=1) == 64
    assert window_rows(Speed(rows_per_second=900_000), best_rows=64, max_rows=64, capacity=1) == 128
    assert window_rows(Speed(), best_rows=64, max_rows=64, capacity=1) == 128, "nothing is known yet"


def test_a_smaller_window_takes_nothing_back():
    """What was granted is the gateway's to send; it only gets no more for a while."""
    pool = CreditPool(100)
    pool.take_due("a")
    pool.resize(10, Speed())
    pool.finished("a", 85)
    assert pool.take_due("a") == 0
    pool.finished("a", 10)
    assert pool.take_due("a") == 5
