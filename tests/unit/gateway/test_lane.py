"""Lanes: credits, frames, and who holds what."""

from __future__ import annotations

from inferway_gateway.lane import (
    FRAME_SECONDS,
    MAX_FRAME_BYTES,
    MAX_LARGE_CALLS,
    MAX_LARGE_COPIES,
    MAX_UNANSWERED_FRAMES,
    Flight,
)
from inferway_gateway.workers import Worker
from tests.unit.gateway.builders import FakeCarrier, FakeLoop, envelope, lane, version

V1 = "models/echo/versions/1"


def flight(**changes: object) -> Flight:
    return Flight(envelope(**changes), FakeLoop().create_future())  # type: ignore[arg-type]


async def test_an_envelope_takes_as_many_credits_as_it_has_rows() -> None:
    """Credits are counted in rows, because that is what fills a batch."""
    one = lane()
    one.grant(V1, 3)

    one.bind(flight(rows=2), 0.0)
    has_room_for_another = one.has_room(envelope(), 0.0)
    one.bind(flight(rows=1), 0.0)

    assert has_room_for_another
    assert not one.has_room(envelope(), 0.0)


async def test_any_envelope_may_be_bound_while_a_credit_is_left() -> None:
    """Otherwise a request of more rows than the credits would wait for ever."""
    one = lane()
    one.grant(V1, 1)
    one.bind(flight(rows=100), 0.0)
    one.grant(V1, 99)

    assert not one.has_room(envelope(), 0.0)


async def test_credits_of_one_version_are_no_room_for_another() -> None:
    """A slow model must not hold a fast model's slots."""
    one = lane()
    one.grant("models/echo/versions/2", 10)

    assert not one.has_room(envelope(), 0.0)
    assert one.has_room(envelope(version(2)), 0.0)


async def test_flights_bound_before_a_write_share_one_frame() -> None:
    """A message costs far more than an envelope in it."""
    one = lane()
    one.grant(V1, 100)
    flights = [flight() for _ in range(10)]
    for each in flights:
        one.bind(each, 0.0)

    assert one.take_frame().flights == flights
    assert one.take_frame().flights == []


async def test_while_a_frame_is_unanswered_the_next_one_waits_a_moment() -> None:
    """What comes meanwhile goes as one frame, because a message costs more than what is in it."""
    one = lane()
    one.grant(V1, 100)
    first = [flight(), flight()]
    for each in first:
        one.bind(each, 0.0)
    one.take_frame()
    at_once, later = one.has_room(envelope(), 0.0), one.has_room(envelope(), FRAME_SECONDS)
    one.release(first[0].ticket)
    half_answered = one.has_room(envelope(), 0.0)
    one.release(first[1].ticket)

    assert (at_once, later, half_answered, one.has_room(envelope(), 0.0)) == (False, True, False, True)


async def test_frames_of_a_version_are_limited_however_long_they_take() -> None:
    """A slow model must not pull the whole backlog out of the gateway, where it can still go elsewhere."""
    one = lane()
    one.grant(V1, 100)
    for number in range(MAX_UNANSWERED_FRAMES):
        one.bind(flight(), number * FRAME_SECONDS)
        one.take_frame()

    assert not one.has_room(envelope(), 1000.0)


async def test_a_flight_given_up_before_it_was_written_leaves_no_trace() -> None:
    """The worker never hears of it, and its credits come back."""
    one = lane()
    one.grant(V1, 1)
    lost = flight()
    one.bind(lost, 0.0)
    one.give_up(lost)

    assert one.take_frame() == ([], [])
    assert one.has_room(envelope(), 0.0)
    assert one.worker.rows == 0


async def test_a_flight_given_up_after_it_was_written_is_cancelled_at_the_worker() -> None:
    """Its credits stay with the worker, who grants them again."""
    one = lane()
    one.grant(V1, 1)
    lost = flight()
    one.bind(lost, 0.0)
    one.take_frame()
    one.give_up(lost)

    assert one.take_frame().cancelled == [lost.ticket]
    assert one.release(lost.ticket) is None
    assert not one.has_room(envelope(), 0.0)


async def test_large_envelopes_need_no_credit_but_are_bounded_per_worker() -> None:
    """They take memory, and nothing else counts them."""
    worker = Worker("127.0.0.1:1")
    one, other = lane(worker, max_envelope_bytes=100), lane(worker, max_envelope_bytes=100)
    for _ in range(MAX_LARGE_CALLS):
        one.bind(flight(byte_count=101), 0.0)

    assert not other.has_room(envelope(byte_count=101), 0.0)
    assert one.take_frame().flights == []
    one.release(1)
    assert other.has_room(envelope(byte_count=101), 0.0)


async def test_large_copies_leave_room_for_large_requests_of_users() -> None:
    """A candidate that hangs would keep every large call of its worker, and users of other versions would wait."""
    one = lane(max_envelope_bytes=100)
    copy, users = envelope(byte_count=101), envelope(byte_count=101)
    copy.is_copy = True
    for _ in range(MAX_LARGE_COPIES):
        assert one.has_room(copy, 0.0)
        one.bind(Flight(copy, FakeLoop().create_future()), 0.0)

    assert not one.has_room(copy, 0.0)
    assert one.has_room(users, 0.0)


async def test_a_large_envelope_given_up_is_cancelled() -> None:
    """Nobody waits for its answer."""
    carrier = FakeCarrier()
    one = lane(max_envelope_bytes=100)
    one._carrier = carrier
    lost = flight(byte_count=101)
    one.bind(lost, 0.0)
    one.give_up(lost)

    assert carrier.large_cancelled == [lost]
    assert one.worker.large_calls == 0


async def test_closing_hands_back_every_flight_without_an_answer() -> None:
    """Each of them has a caller who waits."""
    one = lane()
    one.grant(V1, 10)
    flights = [flight() for _ in range(3)]
    for each in flights:
        one.bind(each, 0.0)
    one.release(flights[0].ticket)

    assert one.close() == flights[1:]
    assert (one.worker.rows, one.rows, len(one)) == (0, 0, 0)


async def test_a_frame_never_outgrows_a_message() -> None:
    """Too large a message fails the link, and with it all that was on it: on this worker, and on the next one again."""
    one = lane(max_envelope_bytes=MAX_FRAME_BYTES)
    carrier = FakeCarrier()
    one._carrier = carrier
    one.grant(V1, 100)
    flights = [flight(byte_count=size) for size in (MAX_FRAME_BYTES - 1, 1, 1, MAX_FRAME_BYTES, 1)]
    for each in flights:
        one.bind(each, 0.0)
    woken = carrier.woken
    frames = [one.take_frame().flights for _ in range(4)]

    assert frames == [flights[:2], flights[2:3], flights[3:4], flights[4:]]
    assert carrier.woken == woken + 3
    assert [each.written for each in flights] == [True] * 5


async def test_what_a_frame_left_behind_is_not_written_yet_and_its_frame_counts_until_all_is_answered() -> None:
    """What is given up before it left costs the worker nothing, and the books of frames come out even."""
    one = lane(max_envelope_bytes=MAX_FRAME_BYTES)
    one.grant(V1, 3)
    first, rest, last = (flight(byte_count=MAX_FRAME_BYTES) for _ in range(3))
    for each in (first, rest, last):
        one.bind(each, 0.0)
    one.take_frame()
    one.give_up(rest)
    one.release(first.ticket)
    while_one_is_left = one.has_room(envelope(), 0.0)
    left = one.take_frame()
    one.release(last.ticket)

    assert left == ([last], [])
    assert (while_one_is_left, one.has_room(envelope(), 0.0)) == (False, True)


async def test_a_version_that_is_loaded_again_brings_its_credits_along() -> None:
    """Those of the time before are void: else each load would add a whole window to what may be bound here."""
    one = lane()
    one.told_ready(frozenset({V1}))
    one.grant(V1, 5)
    one.told_ready(frozenset({V1}))
    kept = one.has_room(envelope(), 0.0)
    one.told_ready(frozenset())
    one.grant(V1, 5)  # for rows that the end of the version gave back
    one.told_ready(frozenset({V1}))

    assert (kept, one.has_room(envelope(), 0.0)) == (True, False)
