"""What the gateway predicts, as stories and as laws; and that the queue itself agrees about who goes first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_chassis.request_queue import Queued, QueueLimits, RequestQueue
from inferway_gateway.forecast import (
    ARRIVALS_SECONDS,
    MARGIN,
    Backlog,
    Forecast,
    Load,
    Speed,
    refuse,
    rows_taken,
    wait_seconds,
    would_be_late,
)

NOW = 1_000.0
STEADY = Speed(rows_per_second=100.0, fixed_us=0.0, row_us=10_000.0)

SPEEDS = st.builds(Speed, st.floats(0.5, 1e6), st.floats(0, 1e5), st.floats(0, 1e5))
LOADS = st.lists(st.builds(Load, SPEEDS, st.integers(0, 1_000)), min_size=1, max_size=6)


def request(seconds: float, rows: int = 1, criticality: int = 2, tenant: str = "") -> Queued[str]:
    """A request with so much time left."""
    return Queued("", NOW + seconds, rows, 0, criticality, tenant)


REQUESTS = st.lists(
    st.builds(request, st.floats(0, 20), st.integers(1, 9), st.integers(1, 4), st.sampled_from(["", "a", "b"])),
    max_size=40,
)


def backlog_of(*requests: Queued[str]) -> Backlog:
    """With these waiting."""
    backlog = Backlog()
    for each in requests:
        backlog.add(each)
    return backlog


def test_what_would_be_late_is_refused_with_the_predicted_time():
    """A hundred rows a second, and two hundred go first: nobody who has one second is answered in time."""
    backlog = backlog_of(request(0.5, rows=200))

    assert refuse(NOW, request(1.0), backlog, [Load(STEADY, 0)]) == pytest.approx(2.01)
    assert refuse(NOW, request(2.01 * MARGIN + 0.01), backlog, [Load(STEADY, 0)]) is None


def test_rows_at_the_worker_count_as_well():
    """What is bound is computed first, in two batches; ours will be as large as one of them."""
    backlog = backlog_of(request(0.5, rows=100))

    assert refuse(NOW, request(2.0), backlog, [Load(STEADY, 100)]) == pytest.approx(2.0 + 0.5)


def test_workers_share_what_waits_as_they_become_free():
    """The second worker is busy for a second; until then the first one works alone."""
    assert wait_seconds(300, [Load(STEADY, 0), Load(STEADY, 100)]) == pytest.approx(2.0)
    assert wait_seconds(50, [Load(STEADY, 0), Load(STEADY, 100)]) == pytest.approx(0.5)
    assert wait_seconds(0, [Load(STEADY, 20), Load(STEADY, 100)]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "loads",
    [
        [],
        [Load(None, 0)],
        [Load(STEADY, 0), Load(None, 0)],
        [Load(Speed(0.0, 0.0, 0.0), 0)],
    ],
    ids=["nobody ready", "nothing told", "one has told nothing", "told that it does not know"],
)
def test_nothing_is_refused_from_an_empty_guess(loads: list[Load]):
    """A worker that has just come up must get traffic to learn from."""
    assert refuse(NOW, request(0.001), backlog_of(request(0.5, rows=10_000)), loads) is None


def test_nothing_is_refused_while_nobody_waits():
    """Then a worker has room, or has it in a moment; the worker itself knows better."""
    assert refuse(NOW, request(0.001), Backlog(), [Load(STEADY, 10_000)]) is None


def test_an_urgent_request_is_not_refused_for_those_it_overtakes():
    """The queue serves the nearest deadline first: what has time does not stand before what has none."""
    backlog = backlog_of(request(10.0, rows=500))

    assert refuse(NOW, request(0.5), backlog, [Load(STEADY, 0)]) is None
    assert refuse(NOW, request(0.5, criticality=1, tenant="a"), backlog, [Load(STEADY, 0)]) is None
    assert refuse(NOW, request(11.0, criticality=3, tenant="a"), backlog, [Load(STEADY, 0)]) is None
    assert refuse(NOW, request(5.0, criticality=3, tenant="a"), backlog, [Load(STEADY, 0)]) == pytest.approx(5.01)


def test_who_was_admitted_is_not_overtaken_out_of_time():
    """A promise that the next arrival may break is none."""
    admitted = backlog_of(request(2.0, rows=170))

    assert refuse(NOW, request(0.5, rows=5), admitted, [Load(STEADY, 0)]) is None
    assert refuse(NOW, request(0.5, rows=20), admitted, [Load(STEADY, 0)]) == pytest.approx(2.1)


def test_who_is_late_anyway_does_not_keep_others_out():
    """The worker became slow, and what was promised cannot be kept: that is no reason to do nothing else."""
    doomed = backlog_of(request(2.0, rows=500))

    assert refuse(NOW, request(0.5, rows=20), doomed, [Load(STEADY, 0)]) is None


def test_a_quiet_tenant_is_not_refused_for_a_loud_one():
    """Tenants take turns, so a flood of one is no wait for another."""
    backlog = backlog_of(request(0.1, rows=1_000, tenant="loud"), request(0.1, rows=3, tenant="quiet"))

    assert refuse(NOW, request(1.0, tenant="loud"), backlog, [Load(STEADY, 0)]) is not None
    assert refuse(NOW, request(1.0, tenant="quiet"), backlog, [Load(STEADY, 0)]) is None


def has_room(forecast: Forecast, now: float = NOW) -> bool:
    """Whether what can be shed is let in behind ten rows, if it has a second."""
    ours = Queued("", now + 1.0, criticality=4)
    return forecast.late(now, ours, [request(0.2, rows=10)], 10, [Load(STEADY, 0)]) is None


def test_who_was_let_in_is_expected_to_be_followed_by_more_for_a_while():
    """What can be shed leaves room for what matters, and gets it back when nobody comes for it."""
    forecast, critical = Forecast(), request(1.0, rows=90, criticality=1)
    assert forecast.late(NOW, critical, (), 0, [Load(STEADY, 0)]) is None
    forecast.joined(critical)

    assert not has_room(forecast)
    assert has_room(forecast, NOW + 10 * ARRIVALS_SECONDS)


def test_who_was_refused_keeps_nobody_out():
    """One who asks for a million rows at once would otherwise shut out all that are less critical, for seconds."""
    forecast, greedy = Forecast(), request(0.003, rows=1_000_000, criticality=1)
    assert forecast.late(NOW, greedy, [request(0.2, rows=10)], 10, [Load(STEADY, 0)]) is not None

    assert has_room(forecast)


def test_what_cannot_be_computed_in_its_time_is_not_expected_again():
    """It is let in while nobody waits, but workers that have told their speed will never compute it."""
    forecast, greedy = Forecast(), request(0.003, rows=1_000_000, criticality=1)
    assert forecast.late(NOW, greedy, (), 0, [Load(STEADY, 0)]) is None
    forecast.joined(greedy)
    forecast.left(greedy)

    assert has_room(forecast)


def test_the_refusal_says_how_long_and_when_to_come_back():
    """Clients back off by it."""
    error = would_be_late("digits", 3, predicted_seconds=2.0, seconds_left=1.0)

    assert error.metadata == {"model": "digits", "version": "3", "predicted_wait_ms": "2000"}
    assert error.retry_after_seconds == pytest.approx(2.0 * MARGIN - 1.0)
    assert would_be_late("digits", 3, 1e9, 1.0).retry_after_seconds == 5.0


@given(st.integers(0, 10_000), LOADS)
def test_the_wait_is_over_when_the_workers_have_taken_what_goes_first(rows: int, loads: list[Load]):
    """The definition of the fluid, checked without the way in which it is solved."""
    wait = wait_seconds(rows, loads)

    assert rows_taken(wait, loads) == pytest.approx(rows, rel=1e-6, abs=1e-3)


@given(st.integers(0, 10_000), LOADS, st.builds(Load, SPEEDS, st.integers(0, 1_000)))
def test_more_work_waits_longer_and_more_workers_never(rows: int, loads: list[Load], more: Load):
    """Whatever else is wrong with a prediction, it must move in the right direction."""
    wait = wait_seconds(rows, loads)

    assert wait_seconds(rows + 1, loads) >= wait
    assert wait_seconds(rows, [*loads, more]) <= wait + 1e-6


@given(REQUESTS, st.data())
def test_who_leaves_is_forgotten(requests: list[Queued[str]], data: st.DataObject):
    """A count that drifts would one day refuse everything, or nothing."""
    backlog = backlog_of(*requests)
    left = data.draw(st.permutations(requests))
    half = len(left) // 2
    for each in left[:half]:
        backlog.remove(each)

    last = request(100.0, criticality=5)
    assert backlog.rows == backlog.rows_before(last) == sum(each.rows for each in left[half:])
    for each in left[half:]:
        backlog.remove(each)
    assert backlog.rows == backlog.rows_before(last) == 0


@given(REQUESTS, st.floats(0, 20), st.integers(1, 4))
def test_of_one_tenant_the_queue_takes_first_what_was_counted(
    requests: list[Queued[str]], seconds: float, criticality: int
):
    """Prediction and queue are two pieces of code; they must not disagree beyond the width of a bin."""
    queue: RequestQueue[str] = RequestQueue(QueueLimits())
    backlog, ours = Backlog(), request(seconds, criticality=criticality)
    for each in requests:
        each.tenant = ""
        backlog.add(each)
        queue.offer(each)
    queue.offer(ours)

    before = list(iter(queue.take, ours))
    close = [each for each in requests if abs(each.deadline - ours.deadline) <= 0.009]
    taken = sum(each.rows for each in before if each is not None)
    assert abs(backlog.rows_before(ours) - taken) <= sum(each.rows for each in close)
