"""Fuzz target: a stream of predictions, from its first message to its end, with a stateful model and a stateless one.

The input is a list of messages, each behind a byte that is its length. The door is real, and so is everything up to
the dispatcher, in whose place every request is answered at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import cast

from google.protobuf.message import DecodeError
from opentelemetry.trace import NoOpTracer

from inferway.datatypes import Datatype
from inferway.errors import InferwayError
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.type.v1.tensor_pb2 import Timing
from inferway_chassis.memory_gate import MemoryGate
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.doors.call import TimeLimits
from inferway_gateway.doors.prediction_stream import PredictionStream
from inferway_gateway.doors.stream_opening import StreamLimits, StreamOpener
from inferway_gateway.envelope import Caller, Envelope, Prediction
from inferway_gateway.lane import Flight
from inferway_gateway.predictor import Predictor, PredictorOptions
from inferway_gateway.routing import Arm, Endpoint, RoutingTable, Version
from inferway_gateway.sessions.sessions import Sessions
from inferway_gateway.sessions.store import MemorySessionStore
from inferway_gateway.steering import Routing
from inferway_gateway.stream_route import Pins
from inferway_gateway.tensors import Answer, Tensor
from tests.unit.gateway.builders import ECHO
from tests.unit.gateway.test_session_model import VERSION as STATEFUL

MOST_MESSAGES = 64
STATELESS = Version("models/echo/versions/1", "echo", 1, {"serving_default": ECHO})
TABLE = RoutingTable(
    "e",
    1,
    {
        "echo": Endpoint("echo", (Arm("v1", STATELESS.name, 10_000),)),
        "sum": Endpoint("sum", (Arm("v1", STATEFUL.name, 10_000),)),
    },
    {STATELESS.name: STATELESS, STATEFUL.name: STATEFUL},
    {},
)


class Echoed:
    """Every output, of the shape and the datatype that it must have."""

    timing = Timing()

    def __init__(self, envelope: Envelope) -> None:
        rows = envelope.rows
        if envelope.version is STATEFUL:
            self.outputs = [
                Tensor("next", Datatype.FP64, (rows, 1), bytes(8 * rows)),
                Tensor("y", Datatype.FP32, (rows, 1), bytes(4 * rows)),
            ]
        else:
            self.outputs = [Tensor("y", Datatype.FP32, (rows, 4), bytes(16 * rows))]


class Answering:
    """In the place of the dispatcher."""

    def __init__(self) -> None:
        self.open = 0

    def submit(self, envelope: Envelope) -> Flight:
        """Answers in the next turn of the loop."""
        loop = asyncio.get_running_loop()
        flight = Flight(envelope, loop.create_future())
        self.open += 1
        loop.call_soon(self._answer, flight)
        return flight

    def abandon(self, flight: Flight) -> None:
        """As the real one."""
        flight.result.cancel()

    def _answer(self, flight: Flight) -> None:
        self.open -= 1
        if not flight.result.done():
            flight.result.set_result(Prediction(flight.envelope, cast(Answer, Echoed(flight.envelope)), 0))


def stream_door(data: bytes) -> None:
    """One stream."""
    _loop().run_until_complete(_stream_door(list(_messages(data))))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _messages(data: bytes) -> Iterator[pb.StreamPredictRequest]:
    position = 0
    for _ in range(MOST_MESSAGES):
        if position >= len(data):
            return
        length = data[position]
        try:
            yield pb.StreamPredictRequest.FromString(data[position + 1 : position + 1 + length])
        except DecodeError:
            yield pb.StreamPredictRequest()  # as far from the order of things as can be parsed
        position += 1 + length


async def _stream_door(messages: list[pb.StreamPredictRequest]) -> None:
    loop = asyncio.get_running_loop()
    routing = Routing(Pins(lambda _: None))
    routing.swap(TABLE)
    dispatcher = Answering()
    memory = MemoryGate(1 << 30, lambda: 0.0, loop.time, lambda: None)
    predictor = Predictor(
        routing,
        cast(Dispatcher, dispatcher),
        memory,
        loop.time,
        NoOpTracer(),
        PredictorOptions("fuzz-of-streams", 1 << 26),
    )
    sessions = Sessions(MemorySessionStore(4, loop.time), 60.0, resumable=True)
    opener = StreamOpener(predictor, sessions, TimeLimits(), StreamLimits(max_in_flight=8))
    stream = PredictionStream(opener, StreamLimits(max_in_flight=8), loop.time)
    results = 0
    try:
        async with asyncio.timeout(10):
            async for response in stream.run(_sent(messages), Caller()):
                results += 1 if response.HasField("result") else len(response.results.results)
                stream.tick(loop.time())
    except InferwayError:
        ended = False
    else:
        ended = True
    while dispatcher.open:  # noqa: ASYNC110 - one turn
        await asyncio.sleep(0)

    items = sum((m.HasField("item") + len(m.items.items)) for m in messages)
    assert results <= items
    if ended and not messages[0].open.HasField("resume"):
        assert results == items
    assert not routing.pins.held


async def _sent(messages: list[pb.StreamPredictRequest]) -> AsyncIterator[pb.StreamPredictRequest]:
    for message in messages:
        yield message
        await asyncio.sleep(0)
