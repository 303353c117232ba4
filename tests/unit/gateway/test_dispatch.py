"""Binding, waiting, retrying and ending: each flight's result is set exactly once, whatever happens."""

from __future__ import annotations

from typing import Any

import pytest

from inferway.errors import (
    DeadlineExceeded,
    InferwayError,
    MalformedMessage,
    ModelFailed,
    NoWorker,
    Quarantined,
    QueueFull,
    RunnerCrashed,
    VersionLoadFailed,
    VersionNotReady,
    VersionNotServed,
    VersionUnloaded,
    WorkerLost,
    WouldBeLate,
)
from inferway_gateway.dispatch import REPEAT_SECONDS
from inferway_gateway.forecast import Speed
from inferway_gateway.routing import Arm, Endpoint, RoutingTable
from inferway_gateway.workers import LoadState, Standing, Worker, why_not
from tests.unit.gateway.bench import V1, Bench
from tests.unit.gateway.builders import envelope, version


async def test_a_request_is_bound_at_once_when_there_is_room() -> None:
    """An idle system must not queue."""
    bench = Bench()
    one = bench.open_lane()

    flight = bench.dispatcher.submit(envelope())
    bench.answer(flight)

    assert (await flight.result).gateway_queue_us == 0
    assert len(one) == 0
    assert bench.codes() == {"OK": 1}


async def test_a_request_waits_until_somebody_grants_credit() -> None:
    """Late binding: whoever is free first gets it."""
    bench = Bench()
    one = bench.open_lane(rows=0)
    flight = bench.dispatcher.submit(envelope())
    waiting = flight.lane is None
    bench.now = 0.5
    bench.dispatcher.grant(one, V1, 1)
    bench.answer(flight)

    assert waiting
    assert (await flight.result).gateway_queue_us == 500_000


async def test_the_backlog_is_served_by_criticality() -> None:
    """What matters most waits least."""
    bench = Bench()
    one = bench.open_lane(rows=0)
    later = bench.dispatcher.submit(envelope(criticality=4))
    sooner = bench.dispatcher.submit(envelope(criticality=1))
    bench.dispatcher.grant(one, V1, 1)

    assert (sooner.lane, later.lane) == (one, None)


async def test_what_cannot_be_answered_in_time_is_refused_at_once_and_says_when_to_come_back() -> None:
    """A refusal now is worth more to a caller than the deadline's error later, and costs the worker nothing."""
    bench = Bench()
    one = bench.open_lane(rows=0)
    for _ in range(5):
        bench.dispatcher.submit(envelope(deadline=0.4))
    one.worker.speeds[V1] = Speed(rows_per_second=10.0, fixed_us=0.0, row_us=100_000.0)

    with pytest.raises(WouldBeLate) as caught:
        bench.dispatcher.submit(envelope(deadline=0.5))
    patient = bench.dispatcher.submit(envelope(deadline=1.0))

    assert caught.value.metadata["model"] == "echo"
    assert caught.value.retry_after_seconds is not None
    assert bench.codes() == {"RESOURCE_EXHAUSTED": 1}
    assert not patient.result.done()


async def test_nobody_is_refused_by_what_left_the_queue() -> None:
    """The forecast counts who waits now, not who once did."""
    bench = Bench()
    one = bench.open_lane(rows=0)
    waiting = [bench.dispatcher.submit(envelope(deadline=0.4)) for _ in range(10)]
    one.worker.speeds[V1] = Speed(rows_per_second=10.0, fixed_us=0.0, row_us=100_000.0)
    with pytest.raises(WouldBeLate):
        bench.dispatcher.submit(envelope(deadline=0.5))
    for flight in waiting:
        bench.dispatcher.abandon(flight)

    assert not bench.dispatcher.submit(envelope(deadline=0.5)).result.done()


async def test_a_full_queue_refuses_and_names_the_version() -> None:
    """A bounded queue is the gateway's own protection."""
    bench = Bench(max_items=1)
    bench.open_lane(rows=0)
    bench.dispatcher.submit(envelope())

    with pytest.raises(QueueFull) as caught:
        bench.dispatcher.submit(envelope())

    assert caught.value.metadata == {"model": "echo", "version": "1"}
    assert bench.codes() == {"RESOURCE_EXHAUSTED": 1}


@pytest.mark.parametrize(
    ("of", "kind"),
    [
        (version(2), VersionNotReady),
        (version(1, unloaded=True), VersionUnloaded),
        (version(3, wanted=False), VersionNotServed),
    ],
)
async def test_what_nobody_has_ready_is_refused_at_once(of: Any, kind: type[InferwayError]) -> None:
    """New requests never wait for a load of what was not ready before."""
    bench = Bench()
    bench.open_lane()

    with pytest.raises(kind):
        bench.dispatcher.submit(envelope(of))


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (LoadState.READY, NoWorker),
        (LoadState.LOADING, VersionNotReady),
        (LoadState.FAILED, VersionLoadFailed),
        (LoadState.DRAINING, VersionNotServed),
        (LoadState.UNLOADED, VersionNotServed),
    ],
)
async def test_a_version_that_is_kept_for_streams_only_is_spoken_of_like_any_other(
    state: LoadState, kind: type[InferwayError]
) -> None:
    """Its runner crashed, or its link is down: the streams that go on with it are told to wait, not that it is gone."""
    worker = Worker("127.0.0.1:1", standings={V1: Standing(state)}, links_up=1)

    assert type(why_not(version(1, wanted=False), [worker, Worker("127.0.0.1:2", links_up=1)])) is kind


def test_who_waits_for_a_version_that_is_tried_again_learns_why_it_failed() -> None:
    """Being loaded sounds as if all were well."""
    standing = Standing(LoadState.LOADING, "its process was killed by SIGABRT")
    worker = Worker("127.0.0.1:1", standings={V1: standing}, links_up=1)

    error = why_not(version(1), [worker])

    assert isinstance(error, VersionNotReady)
    assert str(error).endswith("is being loaded again, after: its process was killed by SIGABRT")


async def test_the_worker_with_fewer_rows_is_chosen() -> None:
    """Rows are the measure of work."""
    bench = Bench()
    busy, idle = bench.open_lane(), bench.open_lane()
    bench.dispatcher.submit(envelope(rows=5))
    flights = [bench.dispatcher.submit(envelope()) for _ in range(5)]

    assert {flight.lane for flight in flights} == {idle}
    assert len(busy) == 1


async def test_links_of_one_worker_fill_one_frame_before_another_is_begun() -> None:
    """Two half frames cost twice as much as a whole one."""
    bench = Bench()
    worker = Worker("127.0.0.1:1")
    lanes = [bench.open_lane(worker=worker), bench.open_lane(worker=worker)]
    flights = [bench.dispatcher.submit(envelope()) for _ in range(4)]

    assert len({id(flight.lane) for flight in flights}) == 1
    assert sorted(map(len, lanes)) == [0, 4]


async def test_a_lost_flight_is_bound_to_another_worker_at_once() -> None:
    """The caller need not know."""
    bench = Bench()
    first = bench.open_lane()
    flight = bench.dispatcher.submit(envelope())
    first.take_frame()
    second = bench.open_lane()
    bench.dispatcher.lost(first)

    assert (flight.lane, flight.attempt) == (second, 2)


async def test_a_flight_that_was_never_written_moves_without_counting_as_an_attempt() -> None:
    """No worker has seen it, so nothing can happen twice."""
    bench = Bench()
    first = bench.open_lane()
    flight = bench.dispatcher.submit(envelope(version(idempotent=False)))
    second = bench.open_lane()
    bench.dispatcher.lost(first)

    assert (flight.lane, flight.attempt) == (second, 1)


async def test_callers_are_told_not_to_repeat_what_may_have_taken_effect() -> None:
    """What the gateway must not do twice, a client that retries must not either."""
    bench = Bench()
    lane = bench.open_lane()
    flight = bench.dispatcher.submit(envelope(version(idempotent=False)))
    lane.take_frame()
    bench.dispatcher.lost(lane)

    with pytest.raises(WorkerLost) as caught:
        await flight.result
    assert not caught.value.retryable


async def test_a_flight_is_not_retried_for_ever() -> None:
    """Three workers lost in a row are enough."""
    bench = Bench()
    flight = None
    for _ in range(3):
        one = bench.open_lane()
        flight = flight or bench.dispatcher.submit(envelope())
        if flight.lane is None:
            bench.loop.timers[-1].fire()  # the pause before the third attempt
        one.take_frame()
        bench.dispatcher.lost(one)
    assert flight is not None

    with pytest.raises(InferwayError) as caught:
        await flight.result

    assert (caught.value.reason, flight.attempt) == ("WORKER_LOST", 3)


async def test_retries_stop_when_the_budget_is_spent() -> None:
    """Retries must never make an outage worse."""
    bench = Bench()
    one = bench.open_lane()
    flights = [bench.dispatcher.submit(envelope()) for _ in range(50)]
    one.take_frame()
    bench.dispatcher.lost(one)

    failed = [flight for flight in flights if flight.result.done()]

    assert len(failed) == 10
    assert all(isinstance(flight.result.exception(), InferwayError) for flight in failed)


async def test_a_crash_of_the_runner_is_retried_once_even_if_nobody_is_ready_yet() -> None:
    """The version comes back within seconds; the request waits in the queue meanwhile."""
    bench = Bench()
    one = bench.open_lane()
    flight = bench.dispatcher.submit(envelope())
    one.take_frame()
    bench.dispatcher.set_ready(one, [])
    bench.fail(flight, RunnerCrashed("gone"))
    waiting = flight.lane is None and not flight.result.done()
    bench.dispatcher.set_ready(one, [V1])
    bench.fail(flight, RunnerCrashed("gone again"))

    assert waiting
    assert isinstance(flight.result.exception(), Quarantined)


async def test_a_failed_request_that_nobody_takes_on_ends_with_what_failed_it() -> None:
    """Its caller is told within seconds that a retry may help, not at the deadline that there was not enough time."""
    bench = Bench()
    one = bench.open_lane()
    flight = bench.dispatcher.submit(envelope(deadline=60.0))
    one.take_frame()
    bench.dispatcher.lost(one)
    timer = bench.loop.timers[-1]
    waiting = not flight.result.done()
    timer.fire()

    assert waiting
    assert timer.delay == REPEAT_SECONDS
    assert isinstance(flight.result.exception(), WorkerLost)
    assert bench.codes() == {"UNAVAILABLE": 1}


async def test_a_new_request_waits_for_a_version_that_was_ready_a_moment_ago() -> None:
    """A worker that is started again is back before anybody has to be told that it was away."""
    bench = Bench()
    bench.dispatcher.lost(bench.open_lane())
    bench.now = 1.0
    flight = bench.dispatcher.submit(envelope(deadline=60.0))
    patience = bench.loop.timers[-1].delay
    lane = bench.open_lane()

    assert patience == REPEAT_SECONDS - 1.0
    assert flight.lane is lane


async def test_a_new_request_is_told_why_its_version_did_not_come_back() -> None:
    """Waiting has an end, and after it nobody waits any more."""
    bench = Bench()
    bench.dispatcher.lost(bench.open_lane())
    flight = bench.dispatcher.submit(envelope(deadline=60.0))
    bench.now = REPEAT_SECONDS
    bench.loop.timers[-1].fire()

    assert isinstance(flight.result.exception(), VersionNotReady)
    with pytest.raises(VersionNotReady):
        bench.dispatcher.submit(envelope(deadline=60.0))


async def test_a_failed_request_for_which_a_worker_is_ready_again_has_until_its_deadline() -> None:
    """Only waiting for nobody is pointless; waiting for a busy worker is not."""
    bench = Bench()
    one = bench.open_lane()
    flight = bench.dispatcher.submit(envelope(deadline=60.0))
    one.take_frame()
    bench.dispatcher.lost(one)
    bench.open_lane(rows=0)
    bench.now = REPEAT_SECONDS
    bench.loop.timers[-1].fire()
    waiting = not flight.result.done()
    bench.loop.timers[-1].fire()

    assert waiting
    assert bench.loop.timers[-1].delay == 60.0 - REPEAT_SECONDS
    assert isinstance(flight.result.exception(), DeadlineExceeded)


async def test_what_waits_for_a_busy_worker_that_goes_away_is_told_so_in_time() -> None:
    """At its deadline its caller would have given up, and learn nothing of why."""
    bench = Bench()
    lane = bench.open_lane(rows=0)
    flight = bench.dispatcher.submit(envelope(deadline=60.0))
    bench.dispatcher.lost(lane)
    timer = bench.loop.timers[-1]
    waiting = not flight.result.done()
    timer.fire()

    assert waiting
    assert timer.delay == REPEAT_SECONDS
    assert isinstance(flight.result.exception(), VersionNotReady)


async def test_patience_does_not_begin_anew_with_every_worker_that_comes_and_goes() -> None:
    """A version that is ready for moments only would keep its callers until their deadlines."""
    bench = Bench()
    bench.dispatcher.lost(bench.open_lane())
    flight = bench.dispatcher.submit(envelope(deadline=60.0))
    bench.dispatcher.lost(bench.open_lane(rows=0))
    bench.now = REPEAT_SECONDS - 1
    bench.dispatcher.lost(bench.open_lane(rows=0))

    assert not flight.result.done()
    assert bench.loop.timers[-1].delay == 1.0


async def test_an_error_of_the_request_is_final() -> None:
    """Repeating it would only fail again."""
    bench = Bench()
    bench.open_lane()
    for error in (ModelFailed("x"), MalformedMessage("y")):
        flight = bench.dispatcher.submit(envelope())
        bench.fail(flight, error)

        assert flight.result.exception() is error


async def test_a_version_refused_by_its_worker_is_not_bound_there_until_the_next_hello() -> None:
    """Otherwise three attempts are gone in a millisecond."""
    bench = Bench()
    one = bench.open_lane()
    flight = bench.dispatcher.submit(envelope())
    bench.fail(flight, VersionNotReady("not yet"))
    newer = bench.dispatcher.submit(envelope())
    waiting = flight.lane is None and newer.lane is None
    bench.dispatcher.set_ready(one, [V1])

    assert waiting
    assert (flight.lane, newer.lane) == (one, one)


async def test_the_deadline_ends_a_flight_wherever_it_is() -> None:
    """A caller never waits longer than it said."""
    bench = Bench()
    one = bench.open_lane(rows=1)
    bound, queued = bench.dispatcher.submit(envelope()), bench.dispatcher.submit(envelope())
    one.take_frame()
    for timer in bench.loop.timers:
        timer.fire()

    stages = [flight.result.exception().metadata["stage"] for flight in (bound, queued)]  # type: ignore[union-attr]
    assert stages == ["worker", "queue"]
    assert one.take_frame().cancelled == [bound.ticket]


async def test_an_abandoned_flight_frees_its_place() -> None:
    """A caller that went away must not cost those who stay."""
    bench = Bench(max_items=1)
    one = bench.open_lane(rows=0)
    gone = bench.dispatcher.submit(envelope())
    bench.dispatcher.abandon(gone)
    stays = bench.dispatcher.submit(envelope())
    bench.dispatcher.grant(one, V1, 1)

    assert gone.result.cancelled()
    assert stays.lane is one
    assert bench.codes() == {"CANCELLED": 1}


async def test_what_waits_for_a_withdrawn_version_is_refused() -> None:
    """It would wait for its deadline for nothing."""
    bench = Bench()
    bench.open_lane(rows=0)
    flight = bench.dispatcher.submit(envelope())
    bench.dispatcher.apply(RoutingTable("e", 2, {}, {V1: version(unloaded=True)}, {}))

    assert isinstance(flight.result.exception(), VersionUnloaded)


async def test_an_unsent_flight_that_finds_no_room_ends_with_no_worker() -> None:
    """UNAVAILABLE says that a retry may help; QUEUE_FULL would blame the caller's own traffic."""
    bench = Bench(max_items=1)
    one = bench.open_lane(rows=1)
    bound, queued = bench.dispatcher.submit(envelope()), bench.dispatcher.submit(envelope())
    bench.dispatcher.lost(one)

    assert isinstance(bound.result.exception(), NoWorker)
    assert not queued.result.done()


async def test_a_deleted_version_leaves_no_counts() -> None:
    """A gateway runs for months while models come and go, and exports all that it remembers."""
    bench = Bench()
    one = bench.open_lane()
    bench.answer(bench.dispatcher.submit(envelope()))
    known = Endpoint("echo", (Arm("v1", V1, 10_000),))
    bench.dispatcher.apply(RoutingTable("e", 2, {"echo": known}, {V1: version()}, {}))
    kept = dict(bench.outcomes.arms)
    bench.dispatcher.apply(RoutingTable("e", 3, {}, {}, {}))
    bench.dispatcher.set_ready(one, [])

    assert kept
    assert bench.outcomes.arms == {}
    assert bench.dispatcher.pools() == []


async def test_an_answer_that_nobody_reads_keeps_no_inputs() -> None:
    """The memory gate has given their bytes back, so a stream whose client stops reading must not hold them."""
    bench = Bench()
    bench.open_lane()
    flight = bench.dispatcher.submit(envelope())
    bench.answer(flight)

    assert (await flight.result).envelope.inputs == ()


@pytest.mark.parametrize(("seconds_left", "code"), [(0.004, "DEADLINE_EXCEEDED"), (1.0, "CANCELLED")])
async def test_a_call_that_ends_at_its_deadline_has_expired_whoever_ended_it(seconds_left: float, code: str) -> None:
    """The transport's timer is quicker than ours, and calls that away. It is the worker that let the time pass."""
    bench = Bench()
    bench.open_lane()
    flight = bench.dispatcher.submit(envelope(deadline=10.0))
    bench.now = 10.0 - seconds_left
    bench.dispatcher.abandon(flight)

    assert bench.codes() == {code: 1}
