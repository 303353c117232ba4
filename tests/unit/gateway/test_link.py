"""The gateway's end of a link, against a peer that says what a test tells it to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import StatusCode, aio

from inferway.errors import InvalidField, WorkerLost
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_gateway.convert import write_envelope
from inferway_gateway.lane import Flight
from inferway_gateway.link import MAX_HELD_VERSIONS, Large, Link, LinkOptions, _error_of
from inferway_gateway.workers import Worker
from tests.unit.gateway.bench import V1, Bench
from tests.unit.gateway.builders import FakeLoop, envelope


class ScriptedCall:
    """Hands out what it was given, then waits for ever. Writes fail once `breaks` is set."""

    def __init__(self, *messages: pb.LinkResponse) -> None:
        self._messages = list(messages)
        self.written: list[pb.LinkRequest] = []
        self.has_written = asyncio.Event()
        self.all_read = asyncio.Event()
        self.breaks = False
        self.cancelled = False

    async def read(self) -> pb.LinkResponse:
        """The next message."""
        if self._messages:
            return self._messages.pop(0)
        self.all_read.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody ends the wait")

    async def write(self, message: pb.LinkRequest) -> None:
        """Goes nowhere."""
        if self.breaks:
            raise ValueError("this cannot be written")
        self.written.append(message)
        self.has_written.set()

    async def holds(self, count: int) -> list[list[str]]:
        """What was said of versions that streams need, once it was said so often."""
        async with asyncio.timeout(5):
            while len(holds := [list(one.hold.versions) for one in self.written if one.HasField("hold")]) < count:
                self.has_written.clear()
                await self.has_written.wait()
        return holds

    def cancel(self) -> None:
        """The link is over."""
        self.cancelled = True


class Stub:
    """Offers one call."""

    def __init__(self, call: ScriptedCall) -> None:
        self.call = call

    def Link(self) -> ScriptedCall:
        """The call."""
        return self.call


def hello(state: pb.LoadState.ValueType = pb.LOAD_STATE_READY, *capabilities: str) -> pb.LinkResponse:
    """A worker that has version 1 in that state."""
    versions = [pb.VersionStatus(version=V1, state=state)]
    return pb.LinkResponse(hello=pb.WorkerHello(protocol_version=1, versions=versions, capabilities=capabilities))


def granted(rows: int) -> pb.LinkResponse:
    """Credits."""
    return pb.LinkResponse(credits=pb.CreditGrant(version=V1, rows=rows))


def link_to(worker: Worker, bench: Bench) -> Link:
    """A link that was not dialled yet."""
    large = Large("127.0.0.1:1", bench.dispatcher, lambda: bench.now, 1 << 20)
    return Link(worker, bench.dispatcher, lambda: bench.now, LinkOptions("g"), large)


def life(link: Link, call: ScriptedCall) -> asyncio.Task[None]:
    """One life of `link`, over `call`."""
    stub: Any = Stub(call)
    return asyncio.ensure_future(link._live(stub))


def held(bench: Bench, worker: Worker, call: ScriptedCall) -> asyncio.Task[None]:
    """A link over `call`."""
    return life(link_to(worker, bench), call)


async def ended(link: asyncio.Task[None]) -> None:
    """Cuts it."""
    link.cancel()
    await asyncio.wait([link], timeout=5)


async def test_a_link_that_cannot_write_any_more_is_lost() -> None:
    """Else it would take in requests, and none of them would ever leave the process."""
    bench, worker = Bench(), Worker("127.0.0.1:1")
    bench.dispatcher.workers.append(worker)
    call = ScriptedCall(hello(), granted(10))
    link = held(bench, worker, call)
    await asyncio.wait_for(call.all_read.wait(), 5)
    call.breaks = True
    flight = bench.dispatcher.submit(envelope())
    with pytest.raises(ValueError, match="cannot be written"):
        await asyncio.wait_for(link, 5)

    assert (flight.lane, worker.links_up, call.cancelled) == (None, 0, True)


async def test_whatever_ends_a_link_another_one_is_made() -> None:
    """A worker without a link is lost to this gateway until one of the two is restarted."""
    bench, worker = Bench(), Worker("127.0.0.1:1")
    made_again = asyncio.Event()

    class Breaking(Link):
        lives = 0

        async def _live(self, stub: object) -> None:
            self.lives += 1
            if self.lives > 1:
                made_again.set()
            raise ValueError("nobody thought of this")

    large = Large("127.0.0.1:1", bench.dispatcher, lambda: bench.now, 1 << 20)
    link = Breaking(worker, bench.dispatcher, lambda: bench.now, LinkOptions("g"), large)
    running = asyncio.ensure_future(link.run(lambda: None))
    await asyncio.wait_for(made_again.wait(), 5)
    running.cancel()
    await asyncio.wait([running], timeout=5)

    assert running.cancelled()


async def test_a_version_loaded_again_on_the_same_link_has_one_window() -> None:
    """A worker that loads again grants anew; added to what is left of before, the sum would grow with every load."""
    bench, worker = Bench(), Worker("127.0.0.1:1")
    bench.dispatcher.workers.append(worker)
    call = ScriptedCall(hello(), granted(4), hello(pb.LOAD_STATE_LOADING), hello(), granted(4))
    link = held(bench, worker, call)
    await asyncio.wait_for(call.all_read.wait(), 5)
    bound = [bench.dispatcher.submit(envelope()).lane is not None for _ in range(5)]
    link.cancel()
    await asyncio.wait([link], timeout=5)

    assert bound == [True] * 4 + [False]


async def test_a_worker_that_was_silent_speaks_again_when_it_introduces_itself() -> None:
    """Who is marked silent is not noticed to fall silent once more."""
    bench, worker = Bench(), Worker("127.0.0.1:1", is_silent=True)
    call = ScriptedCall(hello())
    link = held(bench, worker, call)
    await asyncio.wait_for(call.all_read.wait(), 5)
    link.cancel()
    await asyncio.wait([link], timeout=5)

    assert not worker.is_silent


async def test_what_streams_need_is_told_once_for_each_change_and_again_on_each_new_link() -> None:
    """A worker that is told too little unloads under a stream; what a lost link said is void soon."""
    bench, worker = Bench(), Worker("127.0.0.1:1")
    link = link_to(worker, bench)
    first, second = (ScriptedCall(hello(pb.LOAD_STATE_READY, "hold")) for _ in range(2))
    link.hold(frozenset({"models/m/versions/2", V1}))
    alive = life(link, first)
    await first.holds(1)
    link.hold(frozenset({V1, "models/m/versions/2"}))
    link.hold(frozenset({V1}))
    await first.holds(2)
    link.hold(frozenset())
    told_first = await first.holds(3)
    link.hold(frozenset({V1}))
    await first.holds(4)
    await ended(alive)
    alive = life(link, second)
    told_second = await second.holds(1)
    await ended(alive)

    assert told_first == [[V1, "models/m/versions/2"], [V1], []]
    assert told_second == [[V1]]
    assert second.written[0].HasField("hello")


async def test_nothing_is_said_of_versions_where_there_is_nothing_to_say_or_nobody_to_understand() -> None:
    """A worker of before ends a link on which something is said that it does not know."""
    bench = Bench()
    for capabilities, needed in (((), frozenset({V1})), (("hold",), frozenset[str]())):
        worker = Worker("127.0.0.1:1")
        bench.dispatcher.workers.append(worker)
        link, call = link_to(worker, bench), ScriptedCall(hello(pb.LOAD_STATE_READY, *capabilities), granted(1))
        link.hold(needed)
        alive = life(link, call)
        await asyncio.wait_for(call.all_read.wait(), 5)
        bench.dispatcher.submit(envelope())
        async with asyncio.timeout(5):
            while len(call.written) < 2:
                call.has_written.clear()
                await call.has_written.wait()
        await ended(alive)

        assert [message.WhichOneof("message") for message in call.written] == ["hello", "envelopes"]


async def test_no_more_versions_are_named_than_a_worker_takes() -> None:
    """It would end the link, and with it what all others have there."""
    bench, worker = Bench(), Worker("127.0.0.1:1")
    link, call = link_to(worker, bench), ScriptedCall(hello(pb.LOAD_STATE_READY, "hold"))
    link.hold(frozenset(f"models/m/versions/{number}" for number in range(MAX_HELD_VERSIONS + 1)))
    alive = life(link, call)
    [told] = await call.holds(1)
    await ended(alive)

    assert len(told) == MAX_HELD_VERSIONS


async def test_a_message_of_a_newer_worker_is_passed_over() -> None:
    """Gateways and workers are updated one after the other."""
    bench, worker = Bench(), Worker("127.0.0.1:1")
    bench.dispatcher.workers.append(worker)
    unknown = pb.LinkResponse.FromString(b"\xf2\x07\x00")  # field 126
    call = ScriptedCall(hello(), unknown, pb.LinkResponse(), granted(1))
    alive = held(bench, worker, call)
    await asyncio.wait_for(call.all_read.wait(), 5)
    flight = bench.dispatcher.submit(envelope())
    bound = flight.lane is not None
    await ended(alive)

    assert bound


async def test_time_that_is_as_good_as_over_is_not_told_as_no_deadline() -> None:
    """To a worker 0 means unset, and it would grant such a request its default of many seconds."""
    flight = Flight(envelope(deadline=1.0), FakeLoop().create_future())
    message = pb.Envelope()
    write_envelope(message, flight, now=0.9999)

    assert message.remaining_us == 1


@pytest.mark.parametrize(
    ("code", "kind"), [(StatusCode.RESOURCE_EXHAUSTED, InvalidField), (StatusCode.UNAVAILABLE, WorkerLost)]
)
def test_a_message_too_large_for_grpc_is_no_lost_worker(code: StatusCode, kind: type) -> None:
    """It would be repeated on worker after worker, and held against each."""
    error = aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details="Sent message larger than max")

    assert type(_error_of(error)) is kind
