"""The scheduler's decisions, with time as an argument."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import pytest

from inferway.errors import Quarantined, QueueFull, WouldBeLate
from inferway_chassis.request_queue import QueueLimits
from inferway_inference.decision_log import in_words
from inferway_inference.lane import STALE_SECONDS
from inferway_inference.plan import ServingBounds
from inferway_inference.scheduler import PIPELINE_BELOW_SECONDS, Scheduler, SchedulerOptions
from inferway_inference.work import Batch, DispatchReason
from tests.unit.inference.requests import SINGLE, admitted, ignore
from tests.unit.inference.simulator import Machine


def scheduler(max_batch_rows: int = 8, **limits: Any) -> Scheduler:
    """One with small bounds."""
    return Scheduler(
        SchedulerOptions(max_batch_rows, max_batch_bytes=100, max_compute_seconds=5.0, limits=QueueLimits(**limits))
    )


def ids(batch: Batch) -> list[int]:
    return [request.id for request in batch.requests]


def test_an_idle_runner_gets_a_request_at_once():
    """Waiting for company while the runner does nothing only costs latency."""
    own = scheduler()
    own.offer(admitted(1))
    [batch] = own.decide(0.0).batches

    assert (ids(batch), batch.reason) == ([1], DispatchReason.IDLE)


def test_requests_that_come_during_compute_go_together_when_it_is_over():
    """This is all the batching there is: no timer, no guess."""
    own = scheduler()
    own.offer(admitted(1))
    [first] = own.decide(0.0).batches
    for number in (2, 3, 4):
        own.offer(admitted(number))

    assert own.decide(0.1).batches == []
    own.finished(first, 1.0, now=1.0)
    [second] = own.decide(1.0).batches
    assert ids(second) == [2, 3, 4]


def test_a_second_batch_waits_at_the_runner_while_batches_are_short():
    """The hop between the processes would otherwise cost the runner idle time after each batch."""
    own = scheduler()
    own.offer(admitted(1))
    [first] = own.decide(0.0).batches
    own.finished(first, PIPELINE_BELOW_SECONDS / 2, now=0.0)
    for number in (2, 3, 4):
        own.offer(admitted(number))
        own.decide(0.0)

    assert own.waiting_items == 1, "one computes, one waits at the runner, the third gathers company"


def test_a_batch_has_at_most_so_many_rows_and_says_when_it_was_full():
    """Rows are what costs time and memory, not requests."""
    own = scheduler(max_batch_rows=4)
    for number in range(5):
        own.offer(admitted(number, rows=3))
    [batch] = own.decide(0.0).batches

    assert (batch.rows, batch.reason) == (3, DispatchReason.FULL)


def test_a_batch_has_at_most_so_many_bytes():
    """Sixty-four rows of video would not fit into memory."""
    own = scheduler()
    for number in range(3):
        own.offer(admitted(number, byte_count=40))

    assert ids(own.decide(0.0).batches[0]) == [0, 1]


def test_an_unbatchable_signature_is_called_one_request_at_a_time():
    """Rows put together would change what the model computes."""
    own = scheduler()
    own.offer(admitted(1, signature=SINGLE))
    own.offer(admitted(2, signature=SINGLE))
    [batch] = own.decide(0.0).batches

    assert (ids(batch), batch.reason) == ([1], DispatchReason.UNBATCHED)


def test_the_lane_with_the_nearest_deadline_goes_first():
    """Otherwise a busy signature would starve a rare one."""
    own = scheduler()
    own.offer(admitted(1, key="a", deadline=9.0))
    own.offer(admitted(2, key="b", deadline=3.0))

    assert ids(own.decide(0.0).batches[0]) == [2]


def test_expired_requests_are_refused_before_compute():
    """Nobody waits for their answer any more."""
    own = scheduler()
    own.offer(admitted(1, deadline=1.0))
    own.offer(admitted(2, deadline=9.0))
    decision = own.decide(2.0)

    assert [request.id for request in decision.expired] == [1]
    assert ids(decision.batches[0]) == [2]


def test_it_asks_to_be_woken_at_the_nearest_deadline():
    """A request behind a long batch is told in time that it is too late."""
    own = scheduler()
    own.offer(admitted(1))
    own.decide(0.0)
    own.offer(admitted(2, deadline=3.0))

    assert own.decide(0.0).wake_at == 3.0


def test_a_runner_that_computes_for_too_long_is_noticed():
    """A hung model would hold its version for ever."""
    own = scheduler()
    own.offer(admitted(1))
    assert own.decide(0.0).wake_at == 5.0
    assert not own.decide(4.9).overdue
    assert own.decide(5.0).overdue


@pytest.mark.parametrize(
    ("expected", "deadlines", "overdue_at"),
    [
        (0.01, (12.0,), 12.0),
        (0.01, (0.5,), 10.0),
        (0.01, (0.5, 13.0), 13.0),
        (0.7, (1.5,), 14.0),
        (1.0, (2.0,), 20.0),
        (0.0, (0.5,), 10.0),
        (0.01, (1000.0,), 60.0),
    ],
)
def test_a_batch_that_nobody_waits_for_any_more_hangs_long_before_the_limit(
    expected: float, deadlines: tuple[float, ...], overdue_at: float
):
    """One request that never ends must not take its version away for a minute; a slow one must not be ended either."""
    own = Scheduler(SchedulerOptions(max_compute_seconds=60.0))
    own.rebound(ServingBounds(max_queue_delay_seconds=0.0))
    if expected:
        known = admitted(0, rows=len(deadlines))
        own.latency.observe(known.curve, len(deadlines), expected)
    for number, deadline in enumerate(deadlines):
        own.offer(admitted(number, deadline=deadline))
    [batch] = own.decide(0.0).batches
    assert batch.rows == len(deadlines)

    assert own.decide(0.0).wake_at == pytest.approx(overdue_at)
    assert not own.decide(overdue_at - 0.01).overdue
    assert own.decide(overdue_at + 0.01).overdue


def test_a_batch_that_waited_at_the_runner_hangs_no_sooner_for_that():
    """It is not to blame for the slow one before it."""
    own = Scheduler(SchedulerOptions(max_compute_seconds=60.0))
    own.latency.observe(admitted(0).curve, 1, PIPELINE_BELOW_SECONDS / 2)
    own.offer(admitted(1, deadline=2.0))
    [slow] = own.decide(0.0).batches
    own.offer(admitted(2, deadline=0.5))
    [_waits] = own.decide(0.0).batches
    own.finished(slow, 1.8, now=1.8)

    assert not own.decide(1.8).overdue
    assert own.decide(1.8).wake_at == pytest.approx(11.8)


def test_a_withdrawn_request_is_not_computed():
    """Its caller went away before its batch closed."""
    own = scheduler()
    request = admitted(1)
    own.offer(request)

    assert own.withdraw(request)
    assert own.idle
    assert own.decide(0.0).batches == []


def test_a_full_queue_refuses_at_the_door():
    """Bounded in requests, rows and bytes over all lanes together."""
    own = scheduler(max_items=2)
    own.offer(admitted(1, key="a"))
    own.offer(admitted(2, key="b"))
    with pytest.raises(QueueFull, match="2 requests") as caught:
        own.offer(admitted(3, key="c"))

    assert caught.value.metadata == {"model": "m", "version": "1"}


def test_a_lost_runner_tells_what_was_at_it_from_what_waited():
    """The first may have been computed, the second was not: only the second is safe to repeat whatever it does."""
    own = scheduler()
    own.offer(admitted(1))
    own.decide(0.0)
    own.offer(admitted(2))
    running, waiting = own.abandon()

    assert ([one.id for one in running], [one.id for one in waiting]) == ([1], [2])
    assert own.idle


KEY = ("serving_default", ())


def affine(rows: int, _: int = 1) -> float:
    """Ten milliseconds for any batch, one for each row."""
    return 0.010 + 0.001 * rows


def linear(rows: int, _: int = 1) -> float:
    """A model for which batching does not pay."""
    return 0.010 * rows


def experienced(machine: Machine, max_batch_rows: int = 32, capacity: int = 1) -> Scheduler:
    """One that knows its model, and saw it a moment ago."""
    own = Scheduler(SchedulerOptions(max_batch_rows), capacity)
    for rows in (1, 8, 32):
        for crowded in (False, True):
            own.latency.observe(KEY, rows, machine(rows, capacity), crowded=crowded)
    own.latency.of(KEY).seen_at = 0.0
    return own


def test_a_request_larger_than_a_batch_is_computed_in_parts():
    """It neither makes everybody wait nor breaks the bound."""
    own = scheduler(max_batch_rows=4)
    request = admitted(1, rows=9)
    own.offer(request)
    sizes = []
    while own.waiting_items:
        [batch] = own.decide(0.0).batches
        sizes.append((batch.parts[0].start, batch.rows))
        own.finished(batch, 0.01, now=0.0)

    assert sizes == [(0, 4), (4, 4), (8, 1)]
    assert len(request.parts) == 3


def test_a_failed_batch_is_halved_until_the_poison_is_alone():
    """One caller's bad input must not cost the others their answers, nor everybody a call of their own."""
    own = scheduler()
    for number in range(8):
        own.offer(admitted(number))
    calls, answered = 0, []
    while decided := own.decide(0.0).batches:
        for batch in decided:
            calls += 1
            if 5 in ids(batch):
                given_up = [request.id for request in own.failed(batch, 0.0)]
            else:
                own.finished(batch, 0.1, now=0.0)
                answered += ids(batch)

    assert given_up == [5]
    assert sorted(answered) == [0, 1, 2, 3, 4, 6, 7]
    assert calls == 7, "eight, its halves, their halves, and the last two"
    assert own.idle


def test_where_batching_pays_all_that_waits_goes_together():
    """The fixed cost is shared."""
    own = experienced(affine)
    for number in range(20):
        own.offer(admitted(number))

    assert [batch.rows for batch in own.decide(0.0).batches] == [20]


def test_where_batching_does_not_pay_callers_run_side_by_side():
    """A batch of twenty would only make nineteen wait for the last."""
    own = experienced(linear, capacity=2)
    for number in range(20):
        own.offer(admitted(number))
    batches = own.decide(0.0).batches

    assert len(batches) == 2
    assert max(batch.rows for batch in batches) <= 2


def test_a_large_request_is_cut_where_batching_does_not_pay():
    """Its rows are done sooner side by side."""
    own = experienced(linear, capacity=2)
    own.offer(admitted(1, rows=16))

    assert [batch.rows for batch in own.decide(0.0).batches] == [1, 1]


def test_a_batch_is_not_so_large_that_its_most_urgent_request_is_late():
    """Throughput is no use to a caller whose time is up."""
    own = experienced(affine)
    own.offer(admitted(0, deadline=0.020))
    for number in range(1, 20):
        own.offer(admitted(number, deadline=1.0))
    [batch] = own.decide(0.0).batches

    assert batch.reason is DispatchReason.DEADLINE
    assert 1 < batch.rows <= 9
    assert ids(batch)[0] == 0


def test_who_would_be_late_is_refused_at_the_door_and_told_when_to_come_back():
    """An answer that comes too late costs as much as one in time."""
    own = experienced(affine)
    for number in range(64):
        own.offer(admitted(number, deadline=0.5))
    own.decide(0.0)
    with pytest.raises(WouldBeLate) as caught:
        own.offer(admitted(99, deadline=0.045))

    assert caught.value.retry_after_seconds is not None
    assert caught.value.retry_after_seconds > 0
    assert 40 <= int(caught.value.metadata["predicted_wait_ms"]) < 60
    own.offer(admitted(100, deadline=0.5, criticality=1))


def test_nobody_is_refused_by_what_was_learned_long_ago():
    """If a slow moment could refuse everybody, nothing would ever tell that it is over."""
    own = experienced(affine)
    with pytest.raises(WouldBeLate):
        own.offer(admitted(1, deadline=0.005))

    own.offer(admitted(2, received_at=STALE_SECONDS + 0.1, deadline=STALE_SECONDS + 0.105))


def test_who_cannot_be_in_time_any_more_is_dropped_before_compute():
    """The time of the runner goes to those who still wait for an answer."""
    own = experienced(affine)
    own.offer(admitted(1, deadline=0.050))
    own.latency.of(KEY).seen_at = 0.045
    decision = own.decide(0.045)

    assert [request.id for request in decision.expired] == [1]
    assert decision.batches == []


def fast_arrivals(own: Scheduler) -> None:
    """A row each half millisecond, each computed at once."""
    for number in range(64):
        now = number * 0.0005
        own.offer(admitted(number, received_at=now))
    while own.waiting_items:
        for batch in own.decide(0.032).batches:
            own.finished(batch, affine(batch.rows), now=0.032)


def test_a_batch_is_held_open_while_rows_come_fast_and_share_a_fixed_cost():
    """Half a millisecond of waiting saves the next request ten."""
    own = experienced(affine)
    fast_arrivals(own)
    own.offer(admitted(100, received_at=0.0325))
    held = own.decide(0.0325)

    assert held.batches == []
    assert held.wake_at is not None
    assert 0.0325 < held.wake_at < 0.0325 + 0.010
    [batch] = own.decide(held.wake_at).batches
    assert batch.rows == 1, "the next did not come: nobody waits for it any longer"


def test_a_batch_is_never_held_open_when_that_is_forbidden():
    """`max_queue_delay` of zero means what it says."""
    own = experienced(affine)
    fast_arrivals(own)
    own.rebound(ServingBounds(max_queue_delay_seconds=0.0))
    own.offer(admitted(100, received_at=0.0325))

    assert len(own.decide(0.0325).batches) == 1


def test_slow_arrivals_are_never_waited_for():
    """An idle runner never waits without reason: at low load there is no batching at all."""
    own = experienced(affine)
    for number in range(20):
        own.offer(admitted(number, received_at=number * 0.1, deadline=1e3))
        [batch] = own.decide(number * 0.1).batches
        own.finished(batch, affine(1), now=number * 0.1 + affine(1))


def test_bounds_change_at_once_and_back():
    """The operator tries a setting, and takes it back, while the version serves."""
    own = experienced(affine)
    own.offer(admitted(1, rows=20))
    own.rebound(ServingBounds(max_batch_rows=8))
    assert [batch.rows for batch in own.decide(0.0).batches] == [8]
    assert own.max_batch_rows == 8

    own.rebound(ServingBounds())
    assert own.max_batch_rows == 32


def test_batches_are_padded_to_buckets():
    """Each size between would be compiled anew."""
    own = experienced(affine)
    own.rebound(ServingBounds(buckets=(4, 16)))
    for number in range(5):
        own.offer(admitted(number))
    [batch] = own.decide(0.0).batches

    assert (batch.rows, batch.padded_rows) == (5, 16)
    assert own.max_batch_rows == 16


def test_a_request_that_killed_the_runner_twice_is_not_computed_again():
    """The third time would be its gateway's fault, or ours."""
    own = scheduler()
    for attempt in range(2):
        own.offer(admitted(attempt, received_at=float(attempt)))
        [batch] = own.decide(float(attempt)).batches
        own.crashed(batch, attempt + 0.5)
    with pytest.raises(Quarantined):
        own.offer(admitted(3))
    own.offer(admitted(4, parameters=(("k", b"v"),)))


def test_suspects_run_alone_so_that_only_the_guilty_one_is_charged():
    """Whoever shared a batch with it would be refused for ever."""
    own = scheduler()
    for number in (1, 2):
        own.offer(admitted(number, parameters=number, key="k"))
    [batch] = own.decide(0.0).batches
    assert len(own.crashed(batch, 1.0)) == 2

    for number in (1, 2):
        own.offer(admitted(10 + number, parameters=number, key="k", received_at=2.0))
    own.offer(admitted(20, key="other", received_at=2.0))
    [alone] = own.decide(2.0).batches
    assert ids(alone) == [11]
    assert own.decide(2.1).batches == [], "nothing runs beside it that could be the cause"
    own.finished(alone, 0.1, now=2.2)
    [alone] = own.decide(2.2).batches
    own.crashed(alone, 2.3)
    with pytest.raises(Quarantined):
        own.offer(admitted(22, parameters=2, key="k", received_at=3.0))
    own.offer(admitted(21, parameters=1, key="k", received_at=3.0))


def test_a_tenant_of_four_times_the_weight_gets_four_times_the_rows():
    """Who pays for more gets more, and the others still get something."""
    own = Scheduler(SchedulerOptions(max_batch_rows=10, limits=QueueLimits(weights={"gold": 4.0})))
    for number in range(40):
        own.offer(admitted(number, tenant="gold" if number % 2 else "lead"))
    [batch] = own.decide(0.0).batches

    tenants = [request.tenant for request in batch.requests]
    assert (tenants.count("gold"), tenants.count("lead")) == (8, 2)


def test_a_suspect_that_is_cancelled_leaves_nothing_behind():
    """It waits outside of the queue, which must not count it out: its lane would be thought to hold less than none."""
    own = scheduler()
    own.offer(admitted(1))
    [batch] = own.decide(0.0).batches
    own.crashed(batch, 1.0)
    own.offer(admitted(2, received_at=2.0, parameters=2))
    [running] = own.decide(2.0).batches
    suspect = admitted(3, received_at=2.0)
    own.offer(suspect)

    assert own.withdraw(suspect)
    own.finished(running, 0.1, now=2.1)
    own.offer(admitted(4, received_at=9.0, parameters=2))
    [batch] = own.decide(9.5).batches
    assert ids(batch) == [4]
    own.finished(batch, 0.1, now=9.6)
    assert own.idle
    assert own.waiting_rows == 0


def test_a_request_that_ended_is_freed_at_once():
    """Requests and their parts know one another; pictures would pile up until the next garbage collection."""
    own = scheduler()
    reply = partial(ignore)
    held = weakref.ref(reply)
    request = admitted(1, reply=reply)
    own.offer(request)
    [batch] = own.decide(0.0).batches

    gc.disable()
    try:
        own.finished(batch, 0.1, now=0.1)
        request.end()
        del batch, request, reply
        assert held() is None
    finally:
        gc.enable()


def test_decisions_are_told_in_words():
    """`inferway why` is read by people."""
    own = experienced(affine, max_batch_rows=8)
    for number in range(12):
        own.offer(admitted(number))
    [batch] = own.decide(0.0).batches
    own.finished(batch, 0.02, now=0.02)
    own.decide(0.02)
    first, second = own.log

    assert (first.rows, first.compute_seconds, in_words(first)) == (
        8, 0.02, "full: more than 8 rows would not pay or fit; 4 rows left for the next"
    )  # fmt: skip
    assert in_words(second).startswith("idle: the model was free")


def test_a_failed_batch_is_told_as_one_that_is_over():
    """`inferway why` would say of a model that refuses its input that it hangs."""
    own = scheduler()
    own.offer(admitted(1))
    [batch] = own.decide(1.0).batches
    own.failed(batch, now=1.5)
    [told] = own.log

    assert told.compute_seconds == pytest.approx(0.5)
    assert in_words(told).endswith("it failed")
