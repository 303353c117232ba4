"""The queue that gateways and workers share: order, fairness, bounds."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.errors import QueueFull
from inferway_chassis.request_queue import MAX_IDLE_TENANTS, Queued, QueueLimits, RequestQueue

ITEMS = st.builds(
    Queued,
    payload=st.just(None),
    deadline=st.floats(0, 100),
    rows=st.integers(1, 10),
    byte_count=st.integers(0, 100),
    criticality=st.integers(1, 4),
    tenant=st.sampled_from(["a", "b", "c"]),
)


def test_a_more_critical_request_is_taken_first() -> None:
    """A health monitor's call must not wait behind a batch job's."""
    queue = RequestQueue[str](QueueLimits())
    queue.offer(Queued("batch", deadline=1, criticality=4))
    queue.offer(Queued("monitor", deadline=9, criticality=1))

    assert [item.payload for item in queue.drain()] == ["monitor", "batch"]


def test_within_a_tenant_the_nearest_deadline_is_taken_first() -> None:
    """First come first served would make the urgent one late for nothing."""
    queue = RequestQueue[str](QueueLimits())
    for payload, deadline in (("late", 9.0), ("soon", 1.0), ("middle", 5.0)):
        queue.offer(Queued(payload, deadline=deadline))

    assert [item.payload for item in queue.drain()] == ["soon", "middle", "late"]


def test_a_flood_of_one_tenant_does_not_hold_up_another() -> None:
    """Fairness is per row, not per arrival."""
    queue = RequestQueue[int](QueueLimits())
    for number in range(100):
        queue.offer(Queued(number, deadline=number, tenant="flood"))
    for number in range(10):
        queue.offer(Queued(number, deadline=number, tenant="calm"))

    first_twenty = Counter(item.tenant for _, item in zip(range(20), queue.drain(), strict=False))

    assert first_twenty == {"flood": 10, "calm": 10}


def test_a_tenant_of_four_times_the_weight_gets_four_times_the_rows() -> None:
    """Who pays for more gets more, and the others still get something."""
    queue = RequestQueue[int](QueueLimits(weights={"gold": 4.0}))
    for number in range(40):
        queue.offer(Queued(number, deadline=number, tenant="gold" if number % 2 else "other"))

    first_ten = Counter(item.tenant for _, item in zip(range(10), queue.drain(), strict=False))

    assert first_ten == {"gold": 8, "other": 2}


def test_a_tenant_gains_nothing_by_leaving_and_coming_back() -> None:
    """A tenant that sends one request at a time would otherwise be served before everybody, every time."""
    queue = RequestQueue[int](QueueLimits())
    for number in range(20):
        queue.offer(Queued(number, deadline=0, tenant="steady"))
    served = Counter[str]()
    for _ in range(20):
        queue.offer(Queued(0, deadline=0, tenant="hopping"))
        for _ in range(2):
            item = queue.take()
            served[item.tenant if item else "none"] += 1

    assert served["steady"] >= 19


def test_a_full_queue_refuses_and_names_the_bound() -> None:
    """The caller must learn which limit it met; memory must not grow."""
    queue = RequestQueue[int](QueueLimits(max_items=2, max_rows=100))
    queue.offer(Queued(1, deadline=1))
    queue.offer(Queued(2, deadline=1))

    with pytest.raises(QueueFull, match="requests") as refused:
        queue.offer(Queued(3, deadline=1))

    assert refused.value.metadata["bound"] == "requests"
    assert len(queue) == 2


def test_a_removed_request_is_never_taken_and_frees_its_room() -> None:
    """A caller that went away must cost nothing."""
    queue = RequestQueue[int](QueueLimits(max_items=1))
    item = Queued(1, deadline=1)
    queue.offer(item)

    assert queue.remove(item)
    assert not queue.remove(item)
    queue.offer(Queued(2, deadline=2))
    assert [taken.payload for taken in queue.drain()] == [2]


def test_a_million_cancels_leave_no_trace() -> None:
    """Cancelled entries deep in a heap would otherwise be a leak."""
    queue = RequestQueue[int](QueueLimits())
    queue.offer(Queued(0, deadline=0.0))
    for number in range(10_000):
        item = Queued(number, deadline=1.0)
        queue.offer(item)
        queue.remove(item)

    held = sum(len(tenant.waiting) for group in queue._classes.values() for tenant in group.tenants.values())
    assert held < 200


class Watched(Queued[int]):
    """Counts how often any of them was looked at."""

    looks = 0

    @property
    def gone(self) -> bool:
        """As of any other."""
        Watched.looks += 1
        return self._gone

    @gone.setter
    def gone(self, gone: bool) -> None:
        self._gone = gone


def names_held(queue: RequestQueue[int]) -> int:
    """Tenants of which the queue keeps anything."""
    return sum(len(group.turns) + len(group.tenants) + len(group.idle) for group in queue._classes.values())


def test_names_of_tenants_do_not_pile_up_while_the_queue_is_never_empty() -> None:
    """One name for each user, or for each request of somebody who means harm, would be a leak."""
    queue = RequestQueue[int](QueueLimits())
    queue.offer(Queued(0, deadline=0, tenant="steady"))
    for number in range(10 * MAX_IDLE_TENANTS):
        queue.offer(Queued(number, deadline=0, tenant=str(number)))
        queue.take()

    assert len(queue) == 1
    assert names_held(queue) <= MAX_IDLE_TENANTS + 2


@pytest.mark.parametrize("end", ["expired", "removed"])
def test_names_of_tenants_do_not_pile_up_while_nothing_is_taken(end: str) -> None:
    """All workers hang: callers come and go, and nobody looks for the next request."""
    queue = RequestQueue[int](QueueLimits())
    queue.offer(Queued(0, deadline=10**6, tenant="steady"))
    for number in range(10 * MAX_IDLE_TENANTS):
        item = Queued(number, deadline=number, tenant=str(number))
        queue.offer(item)
        assert queue.expire(number) if end == "expired" else queue.remove(item)

    assert len(queue) == 1
    assert names_held(queue) <= 3 * MAX_IDLE_TENANTS


def test_taking_from_a_thousand_tenants_looks_at_few() -> None:
    """With all of them looked at each time, a flood of names would cost the square of its size."""
    queue = RequestQueue[int](QueueLimits())
    for number in range(1000):
        queue.offer(Watched(number, deadline=0, tenant=str(number)))
    Watched.looks = 0
    for _ in range(100):
        assert queue.peek() is queue.take()

    assert Watched.looks < 1000


def test_who_took_most_is_remembered_though_many_names_come_by() -> None:
    """Otherwise a tenant could wash off what it owes by sending one request under each of a hundred names."""
    queue = RequestQueue[str](QueueLimits())
    queue.offer(Queued("heavy", deadline=0, rows=1000, tenant="heavy"))
    for _ in range(20):
        queue.offer(Queued("steady", deadline=0, tenant="steady"))
    assert queue.take() is not None
    for number in range(3 * MAX_IDLE_TENANTS):
        queue.offer(Queued("passing", deadline=0, tenant=str(number)))
        queue.take()
    queue.offer(Queued("heavy", deadline=0, tenant="heavy"))

    assert [item.payload for item in queue.drain()][-1] == "heavy"


@given(st.lists(st.one_of(ITEMS, st.sampled_from(["take", "remove"]), st.floats(0, 100)), max_size=200))
def test_whatever_happens_the_next_one_is_of_the_most_critical_class_that_waits(
    steps: list[Queued[None] | str | float],
) -> None:
    """Tenants come and go in any order; none may be lost, or block the others, on the way."""
    queue, waiting = RequestQueue[None](QueueLimits()), dict[int, Queued[None]]()
    for step in steps:
        if isinstance(step, Queued):
            step.gone = False
            if waiting.setdefault(id(step), step) is step and all(step is not item for item in queue):
                queue.offer(step)
        elif isinstance(step, float):
            for expired in queue.expire(step):
                assert waiting.pop(id(expired)).deadline <= step
        elif waiting and step == "remove":
            assert queue.remove(waiting.pop(min(waiting)))
        elif (taken := queue.take()) is not None:
            assert taken.criticality == min(item.criticality for item in waiting.values())
            del waiting[id(taken)]
        assert queue.items == len(waiting)
    assert {id(item) for item in queue.drain()} == set(waiting)


@given(st.lists(ITEMS, max_size=60), st.floats(0, 100))
def test_nothing_is_lost_doubled_or_miscounted(items: list[Queued[None]], now: float) -> None:
    """What goes in comes out once: expired, or in order."""
    queue = RequestQueue[None](QueueLimits())
    for item in items:
        item.gone = False
        queue.offer(item)
    expired = queue.expire(now)
    taken = list(queue.drain())

    assert all(item.deadline <= now for item in expired)
    assert all(item.deadline > now for item in taken)
    assert sorted(map(id, expired + taken)) == sorted(map(id, items))
    assert [item.criticality for item in taken] == sorted(item.criticality for item in taken)
    assert (queue.items, queue.rows, queue.byte_count) == (0, 0, 0)
