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
from inferway_gateway.link import Large, Link, LinkOptions, _error_of
from inferway_gateway.workers import Worker
from tests.unit.gateway.bench import V1, Bench
from tests.unit.gateway.builders import FakeLoop, envelope


class ScriptedCall:
    """Hands out what it was given, then waits for ever. Writes fail once `breaks` is set."""

    def __init__(self, *messages: pb.LinkResponse) -> None:
        self._messages = list(messages)
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


def hello(state: pb.LoadState.ValueType = pb.LOAD_STATE_READY) -> pb.LinkResponse:
    """A worker that has version 1 in that state."""
    return pb.LinkResponse(
        hello=pb.WorkerHello(protocol_version=1, versions=[pb.VersionStatus(version=V1, state=state)])
    )


def granted(rows: int) -> pb.LinkResponse:
    """Credits."""
    return pb.LinkResponse(credits=pb.CreditGrant(version=V1, rows=rows))


def held(bench: Bench, worker: Worker, call: ScriptedCall) -> asyncio.Task[None]:
    """A link over `call`."""
    large = Large("127.0.0.1:1", bench.dispatcher, lambda: bench.now, 1 << 20)
    link = Link(worker, bench.dispatcher, lambda: bench.now, LinkOptions("g"), large)
    stub: Any = Stub(call)
    return asyncio.ensure_future(link._hold(stub))


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

        async def _hold(self, stub: object) -> None:
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
