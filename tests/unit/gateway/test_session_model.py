"""Sessions against a model of their client, with losses between any two steps.

The client sends numbers, and each answer is the sum of all of them so far. Streams are lost, gateways die with all
that they had in memory, workers die with items, ghosts of old streams go on: whatever happens, the client gets the
answer of each item, in order, and every answer is the sum of exactly the items before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferway.datatypes import Datatype
from inferway.errors import InferwayError, ModelFailed, SessionTakenOver, WorkerLost
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.type.v1.tensor_pb2 import DATA_TYPE_FP32
from inferway.type.v1.tensor_pb2 import Tensor as TensorMessage
from inferway_gateway.doors.call import TimeLimits
from inferway_gateway.doors.session_items import Carried, SessionItems
from inferway_gateway.doors.stream_items import StreamOptions
from inferway_gateway.envelope import Ask, Caller, Envelope, Prediction
from inferway_gateway.lane import Flight
from inferway_gateway.predictor import Predictor
from inferway_gateway.routing import Arm, Endpoint, RoutingTable, Selector, Version
from inferway_gateway.sessions.sessions import Sessions
from inferway_gateway.sessions.store import MemorySessionStore, SessionRecord
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.state import StatePlan, StateSpec
from inferway_gateway.stream_route import Pins, StreamRoute
from inferway_gateway.tensors import Tensor

SUM = Signature(
    "serving_default",
    (TensorSpec("state", Datatype.FP64, (-1, 1)), TensorSpec("x", Datatype.FP32, (-1, 1))),
    (TensorSpec("next", Datatype.FP64, (-1, 1)), TensorSpec("y", Datatype.FP32, (-1, 1))),
)
PLAN = StatePlan(SUM, (StateSpec("state", "next", Datatype.FP64, (1,), np.float64(0).tobytes()),))
VERSION = Version(
    "models/sum/versions/1", "sum", 1, {"serving_default": PLAN.public}, stateful={"serving_default": PLAN}
)
TABLE = RoutingTable("e", 1, {"sum": Endpoint("sum", (Arm("v1", VERSION.name, 10_000),))}, {VERSION.name: VERSION}, {})
KEY = "session"
WINDOW = 4


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers go off when the test moves the clock."""

    now = 0.0

    def time(self) -> float:
        """The test's clock."""
        return self.now


class Workers:
    """In the place of the predictor: holds every item until the test says what becomes of it."""

    table = TABLE

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.clock = loop.time
        self.flights = deque[tuple[Ask, Flight]]()

    def submit(self, ask: Ask) -> Flight:
        """Takes an item with the state before it."""
        assert ask.state is not None
        inputs = [*ask.inputs, *ask.state(PLAN, 1)]
        envelope = Envelope(
            VERSION, "serving_default", inputs, (), 1, 0.0, 0.0, Caller(), "sum", "v1", 1, "p", byte_count=0
        )
        flight = Flight(envelope, self._loop.create_future())
        self.flights.append((ask, flight))
        return flight

    def abandon(self, flight: Flight) -> None:
        """Nobody waits for it any more; a worker may answer it all the same."""
        flight.result.cancel()

    def answer(self) -> None:
        """The oldest item is computed."""
        _, flight = self.flights.popleft()
        if not flight.result.done():
            flight.result.set_result(Prediction(flight.envelope, cast(Any, Computed(flight.envelope.inputs)), 0))

    def fail(self, error: InferwayError) -> None:
        """The oldest item is not computed, or nobody knows."""
        _, flight = self.flights.popleft()
        if not flight.result.done():
            flight.result.set_exception(error)


class Computed:
    """What a worker answers."""

    timing = TensorMessage()

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        raw = {tensor.name: tensor.raw for tensor in inputs}
        total = np.frombuffer(raw["state"], "<f8") + np.frombuffer(raw["x"], "<f4")
        self.outputs = [
            Tensor("next", Datatype.FP64, (1, 1), total.astype("<f8").tobytes()),
            Tensor("y", Datatype.FP32, (1, 1), total.astype("<f4").tobytes()),
        ]


class Stream:
    """One stream on one gateway: what it carries, and what of it is on the wire."""

    def __init__(self, items: SessionItems) -> None:
        self.items = items
        self.taking: AsyncIterator[list[pb.StreamResult]] = items.take()
        self.wire = deque[pb.StreamResult]()
        self.received = 0


class SessionMachine(RuleBasedStateMachine):
    """Client, gateways, workers and store, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.store = MemorySessionStore(10, self.loop.time)
        self.workers = Workers(self.loop)
        self.sent: list[float] = []
        """The client's items: number i has id i + 1."""
        self.answers: list[float | None] = []
        """What the client got, in order; None for an error."""
        self.acknowledged = 0
        self.ghosts: list[Stream] = []
        record = SessionRecord(KEY, "sum", VERSION.name, "")
        self.run(self.store.create(record))
        self.stream = self.carried(record)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def settle(self) -> None:
        """Lets every callback that is due run."""
        for _ in range(5):
            self.run(asyncio.sleep(0))

    def carried(self, record: SessionRecord) -> Stream:
        """A stream on a gateway of its own, which knows only what the store has."""

        async def build() -> SessionItems:
            opening = pb.StreamOpen(acknowledges_results=True)
            opening.resume.acknowledged_item = self.acknowledged
            options = StreamOptions(opening, Selector("sum"), Caller(), TimeLimits(), WINDOW)
            route = StreamRoute(Selector("sum"), "u", TABLE, Pins(lambda _: None), record.version)
            sessions = Sessions(self.store, 60.0, resumable=True)
            return SessionItems(options, Carried(record, "token"), route, cast(Predictor, self.workers), sessions)

        return Stream(self.run(build()))

    @property
    def in_flight(self) -> int:
        return len(self.sent) - self.acknowledged

    @precondition(lambda self: self.in_flight < WINDOW)
    @rule(values=st.lists(st.integers(1, 99), min_size=1, max_size=WINDOW))
    def the_client_sends_items(self, values: list[int]) -> None:
        for value in values[: WINDOW - self.in_flight]:
            self.sent.append(float(value))
            self.write(len(self.sent))

    def write(self, item_id: int) -> None:
        raw = np.float32(self.sent[item_id - 1]).tobytes()
        tensor = TensorMessage(name="x", datatype=DATA_TYPE_FP32, shape=[1, 1], raw=raw)

        async def start() -> None:
            self.stream.items.start(pb.StreamItem(id=item_id, inputs=[tensor]))

        self.run(start())
        self.settle()

    @precondition(lambda self: self.workers.flights)
    @rule(count=st.integers(1, WINDOW))
    def workers_answer(self, count: int) -> None:
        for _ in range(count):
            if self.workers.flights:
                self.workers.answer()
                self.settle()

    @precondition(lambda self: self.workers.flights)
    @rule(error=st.sampled_from([WorkerLost("gone"), ModelFailed("no", cause="test")]), seconds=st.sampled_from([0, 1]))
    def an_item_fails(self, error: InferwayError, seconds: float) -> None:
        self.workers.fail(error)
        self.settle()
        self.time_goes_by(seconds)

    def time_goes_by(self, seconds: float) -> None:
        self.loop.now += seconds
        self.settle()

    @rule()
    def the_gateway_writes(self) -> None:
        self.write_out(self.stream)

    def write_out(self, stream: Stream) -> None:
        """What can be written is: commits, and puts on the wire."""

        async def take() -> list[pb.StreamResult]:
            async with asyncio.timeout(0):
                return await anext(stream.taking)

        stream.items.nudge()
        for result in self.run(take()):
            stream.items.sending(1)
            stream.wire.append(result)

    @precondition(lambda self: self.stream.wire)
    @rule(count=st.integers(1, WINDOW))
    def the_client_reads(self, count: int) -> None:
        for _ in range(min(count, len(self.stream.wire))):
            self.read()

    def read(self) -> None:
        result = self.stream.wire.popleft()
        self.stream.received += 1
        value = None if result.HasField("error") else self.value_of(result)
        if result.id <= len(self.answers):
            assert self.answers[result.id - 1] == value, "an item had two answers"
        else:
            assert result.id == len(self.answers) + 1, "an answer was lost, or came out of order"
            self.answers.append(value)

    def the_client_reads_all(self) -> None:
        while self.stream.wire:
            self.read()

    @staticmethod
    def value_of(result: pb.StreamResult) -> float:
        [output] = result.prediction.outputs
        return float(np.frombuffer(output.raw, "<f4")[0])

    @precondition(lambda self: self.stream.received)
    @rule()
    def the_client_acknowledges(self) -> None:
        self.stream.items.acknowledge(pb.StreamAcknowledge(results=self.stream.received))
        self.acknowledged = len(self.answers)

    @precondition(lambda self: self.sent)
    @rule(loss=st.sampled_from(["connection", "gateway", "client"]), again=st.integers(0, 2))
    def the_stream_is_lost(self, loss: str, again: int) -> None:
        """With the connection, the gateway sees it; with the gateway, nobody does; or the client alone moved on.

        `again`: so many items are sent again although their answers are known.
        """
        if loss == "connection":
            self.run(self.stream.items.close())
        elif loss == "client":
            self.ghosts.append(self.stream)
        self.resume(again)

    @precondition(lambda self: self.ghosts)
    @rule(closes=st.booleans())
    def a_ghost_writes(self, closes: bool) -> None:
        """It may find out only now that it was left behind. It must change nothing."""
        ghost = self.ghosts.pop()
        before = self.store._records[KEY]
        if closes:
            self.run(ghost.items.close())
        else:
            with contextlib.suppress(SessionTakenOver, StopAsyncIteration):
                self.write_out(ghost)
        assert self.store._records[KEY] is before

    def resume(self, again: int) -> None:
        """A new stream, on another gateway; the client sends again what that does not know."""
        record = self.run(self.store.claim(KEY))
        assert record.applied >= len(self.answers), "an answer was sent that the store did not have"
        self.stream = self.carried(record)
        for item_id in range(max(1, record.applied + 1 - again), len(self.sent) + 1):
            self.write(item_id)

    @invariant()
    def every_answer_is_the_sum_of_the_items_before_it(self) -> None:
        total = 0.0
        for value, answer in zip(self.sent, self.answers, strict=False):
            if answer is not None:
                total += value
                assert answer == total

    def teardown(self) -> None:
        """Whatever happened, a client that stays gets every answer."""
        for _ in range(4 * len(self.sent) + 4):
            while self.workers.flights:
                self.workers.answer()
                self.settle()
            self.time_goes_by(1.0)
            self.write_out(self.stream)
            self.the_client_reads_all()
        self.every_answer_is_the_sum_of_the_items_before_it()
        assert len(self.answers) == len(self.sent)
        asyncio.set_event_loop(None)
        self.loop.close()


TestSessions = SessionMachine.TestCase
TestSessions.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
