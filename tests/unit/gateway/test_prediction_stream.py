"""What a stream says by time alone, whatever happens in it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import pytest

from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway_gateway.doors.prediction_stream import TURN_ITEMS, PredictionStream
from inferway_gateway.doors.stream_items import StreamItems
from inferway_gateway.doors.stream_opening import OpenStream, StreamLimits, StreamOpener
from inferway_gateway.envelope import Caller

LIMITS = StreamLimits(heartbeat_seconds=5, idle_seconds=20, max_age_seconds=0)


class Items:
    """An inside that gives what the test puts into it."""

    def __init__(self) -> None:
        self.results = asyncio.Queue[list[pb.StreamResult]]()
        self.started: list[int] = []

    def start(self, item: pb.StreamItem) -> None:
        self.started.append(item.id)

    async def room(self) -> None:
        pass

    async def take(self) -> AsyncIterator[list[pb.StreamResult]]:
        while True:
            yield await self.results.get()

    def sending(self, count: int) -> None:
        assert count > 0

    def nudge(self) -> None:
        self.results.put_nowait([])

    def refresh(self, now: float) -> bool:
        return now < 0

    def end(self, failure: BaseException | None = None) -> None:
        assert failure is None

    async def close(self) -> None:
        pass


class Opener:
    """Opens every stream with the same inside."""

    def __init__(self, items: Items) -> None:
        self._items = items

    async def open(self, requests: AsyncIterator[pb.StreamPredictRequest], caller: Caller) -> OpenStream:
        del requests, caller
        return OpenStream(cast(StreamItems, self._items), pb.StreamPredictResponse(opened=pb.StreamOpened()), 0)


class Bench:
    """A stream of which time passes by hand."""

    def __init__(self, requests: AsyncIterator[pb.StreamPredictRequest] | None = None) -> None:
        self.now = 100.0
        self.items = Items()
        self.stream = PredictionStream(cast(StreamOpener, Opener(self.items)), LIMITS, lambda: self.now)
        self._responses: AsyncGenerator[pb.StreamPredictResponse] = self.stream.run(requests or _nothing(), Caller())

    async def next(self) -> str | None:
        """The kind of the next message."""
        async with asyncio.timeout(5):
            return (await anext(self._responses)).WhichOneof("message")

    async def close(self) -> None:
        await self._responses.aclose()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A stream that has told its client that it is open."""
    bench = Bench()
    assert await bench.next() == "opened"
    yield bench
    await bench.close()


async def test_a_stream_that_says_nothing_beats_though_things_become_known(bench: Bench) -> None:
    """Results that wait for an older one are not heard: a client that hears nothing gives the stream up."""
    reading = asyncio.create_task(bench.next())
    for _ in range(5):
        bench.now += 1
        bench.items.nudge()
        await asyncio.sleep(0)
        bench.stream.tick(bench.now)

    assert await reading == "heartbeat"


async def test_heartbeats_keep_no_stream_busy(bench: Bench) -> None:
    """An idle stream is asked to end, so that its client costs nothing until it comes back."""
    told = []
    for _ in range(5):
        reading = asyncio.create_task(bench.next())
        await asyncio.sleep(0)
        bench.now += LIMITS.heartbeat_seconds
        bench.stream.tick(bench.now)
        told.append(await reading)

    assert told == ["heartbeat"] * 4 + ["drain"]


async def test_results_keep_a_stream_busy(bench: Bench) -> None:
    """A client that only listens for long is not idle."""
    told = []
    for _ in range(6):
        bench.now += LIMITS.idle_seconds / 2
        bench.items.results.put_nowait([pb.StreamResult(id=1)])
        told.append(await bench.next())
        reading = asyncio.create_task(bench.next())
        await asyncio.sleep(0)
        bench.now += LIMITS.heartbeat_seconds
        bench.stream.tick(bench.now)
        told.append(await reading)

    assert told == ["result", "heartbeat"] * 6


async def test_many_items_in_a_message_let_others_have_turns() -> None:
    """Those that a resumed session knows are ignored at once: a million of them would stop the process for seconds."""
    many = pb.StreamPredictRequest(items=pb.StreamItems(items=[pb.StreamItem(id=1)] * 10 * TURN_ITEMS))
    bench = Bench(_only(many))
    await bench.next()
    turns = 0
    while len(bench.items.started) < 10 * TURN_ITEMS:
        turns += 1
        await asyncio.sleep(0)
    await bench.close()

    assert turns >= 10


async def _only(request: pb.StreamPredictRequest) -> AsyncIterator[pb.StreamPredictRequest]:
    yield request
    await asyncio.Event().wait()


async def _nothing() -> AsyncIterator[pb.StreamPredictRequest]:
    await asyncio.Event().wait()
    yield pb.StreamPredictRequest()
