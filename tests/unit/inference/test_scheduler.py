"""The scheduler's decisions, with time as an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.errors import QueueFull
from inferway_chassis.request_queue import QueueLimits
from inferway_inference.scheduler import PIPELINE_BELOW_SECONDS, Scheduler, SchedulerOptions
from inferway_inference.work import Batch, DispatchReason, Request
from tests.unit.inference.requests import SINGLE, admitted


def scheduler(max_batch_rows: int = 8, **limits: int) -> Scheduler:
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
    own.finished(first, compute_seconds=1.0)
    [second] = own.decide(1.0).batches
    assert ids(second) == [2, 3, 4]


def test_a_second_batch_waits_at_the_runner_while_batches_are_short():
    """The hop between the processes would otherwise cost the runner idle time after each batch."""
    own = scheduler()
    own.offer(admitted(1))
    [first] = own.decide(0.0).batches
    own.finished(first, compute_seconds=PIPELINE_BELOW_SECONDS / 2)
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


def test_a_request_larger_than_a_batch_runs_alone():
    """It must run somehow, and nobody should wait with it."""
    own = scheduler(max_batch_rows=4)
    own.offer(admitted(1, rows=9))
    own.offer(admitted(2, rows=1))
    [batch] = own.decide(0.0).batches

    assert ids(batch) == [1]


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


def test_a_withdrawn_request_is_not_computed():
    """Its caller went away before its batch closed."""
    own = scheduler()
    request = admitted(1)
    own.offer(request)

    assert own.withdraw(request)
    assert own.idle
    assert own.decide(0.0).batches == []


def test_a_failed_batch_is_taken_apart_so_that_the_poison_fails_alone():
    """One caller's bad input must not cost the others their answers."""
    own = scheduler()
    own.offer(admitted(0))
    [first] = own.decide(0.0).batches
    for number in (1, 2, 3):
        own.offer(admitted(number))
    own.finished(first, 1.0)
    [batch] = own.decide(0.0).batches
    assert own.failed(batch) == []

    alone = []
    while decided := own.decide(0.0).batches:
        alone += [ids(one) for one in decided]
        given_up = own.failed(decided[0])
        assert given_up == decided[0].requests, "what fails alone fails for good"
    assert alone == [[1], [2], [3]]
    assert own.idle


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


@dataclass
class Fleet:
    """Everything that happened to the requests of a run."""

    own: Scheduler
    now: float = 0.0
    requests: dict[int, Request] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    running: list[Batch] = field(default_factory=list)

    def end(self, request: Request, how: str) -> None:
        assert request.id not in self.ended, f"{request.id} ended twice"
        self.ended[request.id] = how

    def decide(self) -> None:
        decision = self.own.decide(self.now)
        for request in decision.expired:
            assert request.deadline <= self.now
            self.end(request, "expired")
        for batch in decision.batches:
            assert len({request.key for request in batch.requests}) == 1, "keys never mix"
            assert batch.rows <= self.own.options.max_batch_rows or len(batch.requests) == 1
            self.running.append(batch)
        assert len(self.running) <= 2


EVENTS = st.one_of(
    st.tuples(st.just("offer"), st.integers(1, 5), st.sampled_from("abc"), st.floats(0.1, 20.0)),
    st.tuples(st.just("withdraw"), st.integers(0, 40)),
    st.tuples(st.just("finish"), st.floats(0.0001, 1.0)),
    st.tuples(st.just("fail")),
    st.tuples(st.just("wait"), st.floats(0.0, 5.0)),
)


@given(st.lists(EVENTS, max_size=80))
def test_no_request_is_lost_mixed_or_answered_twice(events: list[tuple[Any, ...]]):
    """Whatever happens in whatever order: the promise that everything else stands on."""
    fleet = Fleet(scheduler(max_batch_rows=6, max_items=10, max_rows=25))
    for number, event in enumerate(events):
        HAPPENS[event[0]](fleet, number, *event[1:])
        fleet.decide()
        assert fleet.own.waiting_items <= 10
    while fleet.running:
        _finish(fleet, -1, 0.5)
        fleet.decide()

    assert fleet.ended.keys() == fleet.requests.keys()
    assert (fleet.own.waiting_items, fleet.own.waiting_rows, fleet.own.waiting_bytes) == (0, 0, 0)
    assert fleet.own.idle


def _offer(fleet: Fleet, number: int, rows: int, key: str, seconds: float) -> None:
    request = admitted(number, rows=rows, key=key, deadline=fleet.now + seconds, byte_count=rows)
    fleet.requests[number] = request
    try:
        fleet.own.offer(request)
    except QueueFull:
        fleet.end(request, "refused")


def _withdraw(fleet: Fleet, _: int, request_id: int) -> None:
    request = fleet.requests.get(request_id)
    if request is not None and fleet.own.withdraw(request):
        fleet.end(request, "withdrawn")


def _finish(fleet: Fleet, _: int, seconds: float) -> None:
    if fleet.running:
        batch = fleet.running.pop(0)
        fleet.own.finished(batch, seconds)
        for request in batch.requests:
            fleet.end(request, "answered")


def _fail(fleet: Fleet, _: int) -> None:
    if fleet.running:
        for request in fleet.own.failed(fleet.running.pop(0)):
            fleet.end(request, "failed")


def _wait(fleet: Fleet, _: int, seconds: float) -> None:
    fleet.now += seconds


HAPPENS: dict[str, Callable[..., None]] = {
    "offer": _offer,
    "withdraw": _withdraw,
    "finish": _finish,
    "fail": _fail,
    "wait": _wait,
}
