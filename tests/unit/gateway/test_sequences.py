"""Sequences of gateways that share a store: whichever gets an item goes on from the state that was committed last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway.errors import (
    InferwayError,
    InvalidParameter,
    MemoryPressure,
    ModelFailed,
    SessionStoreUnavailable,
    SessionTakenOver,
)
from inferway_gateway.admission import FieldNames
from inferway_gateway.envelope import Ask, Caller, Envelope, Prediction
from inferway_gateway.lane import Flight
from inferway_gateway.predictor import Opening, Predictor
from inferway_gateway.routing import Arm, Endpoint, RoutingTable, Selector, Version
from inferway_gateway.sessions.sequence import Correlation, Turn
from inferway_gateway.sessions.sequences import SequenceLimits, Sequences
from inferway_gateway.sessions.sessions import Sessions
from inferway_gateway.sessions.store import MemorySessionStore, SessionRecord
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.state import StatePlan, StateSpec
from inferway_gateway.stream_route import Pins, StreamRoute
from inferway_gateway.tensors import Tensor

SUM = Signature(
    "serving_default",
    (TensorSpec("state", Datatype.FP32, (-1, 1)), TensorSpec("x", Datatype.FP32, (-1, 1))),
    (TensorSpec("next", Datatype.FP32, (-1, 1)), TensorSpec("y", Datatype.FP32, (-1, 1))),
)
PLAN = StatePlan(SUM, (StateSpec("state", "next", Datatype.FP32, (1,), bytes(4)),))
VERSION = Version(
    "models/sum/versions/1", "sum", 1, {"serving_default": PLAN.public}, stateful={"serving_default": PLAN}
)
NAMES = FieldNames("model_name", "parameters[signature]", "raw_input_contents[{}]", "outputs[{}].name")
IDLE_SECONDS = 60.0


def table_of(version: Version) -> RoutingTable:
    return RoutingTable(
        "e", 1, {"sum": Endpoint("sum", (Arm("v1", version.name, 10_000),))}, {version.name: version}, {}
    )


async def nothing() -> None:
    """Returns at once."""


class Store(MemorySessionStore):
    """A store that gateways share, and that can be out of reach."""

    shared = True

    def __init__(self) -> None:
        super().__init__(100, lambda: 0.0)
        self.on_commit: Callable[[], Awaitable[None]] = nothing

    async def commit(self, record: SessionRecord) -> None:
        """See SessionStore. What `on_commit` raises, it raises before anything is written."""
        await self.on_commit()
        await super().commit(record)

    @property
    def keys(self) -> set[str]:
        """Of all records."""
        return set(self._records)


class Computed(NamedTuple):
    """What a worker answers."""

    outputs: list[Tensor]
    timing: Any = None


class Model:
    """In the place of the predictor: adds at once, or later if it is told to hold."""

    def __init__(self, version: Version = VERSION) -> None:
        self.table = table_of(version)
        self.version = version
        self.now = 0.0
        self.holding = False
        self.failure: InferwayError | None = None
        """Of the next item."""
        self.flights: list[Flight] = []
        self.arrived = asyncio.Event()

    def clock(self) -> float:
        """The test's own time."""
        return self.now

    def open_route(self, opening: Opening) -> StreamRoute:
        """The only one that there is."""
        return StreamRoute(opening.selector, opening.unit, self.table, Pins(lambda _: None), opening.begun_with)

    def submit(self, ask: Ask) -> Flight:
        """Takes an item with the state before it."""
        assert ask.state is not None
        inputs = [*ask.inputs, *ask.state(PLAN, 1)]
        envelope = Envelope(
            self.version, "serving_default", inputs, (), 1, 0.0, 0.0, Caller(), "sum", "v1", 1, "p", byte_count=0
        )
        flight = Flight(envelope, asyncio.get_running_loop().create_future())
        self.flights.append(flight)
        self.arrived.set()
        if self.failure is not None:
            flight.result.set_exception(self.failure)
            self.failure = None
        elif not self.holding:
            flight.result.set_result(Prediction(envelope, cast(Any, added(inputs)), 0))
        return flight

    def abandon(self, flight: Flight) -> None:
        """Nobody waits for it any more."""
        flight.result.cancel()


def added(inputs: list[Tensor]) -> Computed:
    total = sum((np.frombuffer(tensor.raw, "<f4") for tensor in inputs), np.zeros(1, "<f4")).tobytes()
    return Computed([Tensor(name, Datatype.FP32, (1, 1), total) for name in ("next", "y")])


class Gateway:
    """One of the gateways."""

    def __init__(self, store: Store, version: Version = VERSION, max_bytes: int = 1000) -> None:
        self.model = Model(version)
        sessions = Sessions(store, 60, resumable=True, max_waiting_bytes=max_bytes)
        self.sequences = Sequences(cast(Predictor, self.model), sessions, SequenceLimits(100, IDLE_SECONDS))

    def submit(self, value: float, sequence_id: int = 5, *, start: bool = False, end: bool = False) -> Turn:
        """Puts an item in line."""
        x = Tensor("x", Datatype.FP32, (1, 1), np.float32(value).tobytes())
        ask = Ask(Selector("sum"), [x], (), "", 10.0, Caller(), NAMES)
        turn = self.sequences.submit(ask, Correlation(sequence_id, start, end))
        assert turn is not None
        return turn

    async def add(self, value: float, sequence_id: int = 5, *, start: bool = False, end: bool = False) -> float:
        """The sum that an item is answered with."""
        return await answer_of(self.submit(value, sequence_id, start=start, end=end))

    async def until_in_flight(self, count: int) -> None:
        """Returns once so many items have reached the model."""
        async with asyncio.timeout(5):
            while len(self.model.flights) < count:
                self.model.arrived.clear()
                await self.model.arrived.wait()


async def answer_of(turn: Turn) -> float:
    async with asyncio.timeout(5):
        [output] = (await turn.result).answer.outputs
    assert output.name == "y"
    return float(np.frombuffer(output.raw, "<f4")[0])


async def error_of(turn: Turn) -> InferwayError:
    with pytest.raises(InferwayError) as caught:
        await answer_of(turn)
    return caught.value


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def one(store: Store) -> Gateway:
    return Gateway(store)


@pytest.fixture
def two(store: Store) -> Gateway:
    return Gateway(store)


async def test_items_may_come_to_any_gateway(one: Gateway, two: Gateway) -> None:
    """A balancer spreads unary calls as it likes, and a gateway that has seen the sequence before is behind."""
    sums = [await one.add(1, start=True), await two.add(2), await one.add(3), await one.add(4), await two.add(5)]

    assert sums == [1, 3, 6, 10, 15]


async def test_a_sequence_that_ended_elsewhere_is_forgotten_here(one: Gateway, two: Gateway) -> None:
    """A gateway that missed the end must not go on with what it remembers."""
    await one.add(1, start=True)
    await two.add(2, end=True)

    assert isinstance(await error_of(one.submit(3)), InvalidParameter)


async def test_a_sequence_that_began_anew_elsewhere_goes_on_from_there(one: Gateway, two: Gateway) -> None:
    """What is remembered of the older one is void."""
    await one.add(1, start=True)
    await two.add(10, start=True)

    assert await one.add(1) == 11


async def test_the_record_of_a_new_sequence_is_no_older_one(one: Gateway, two: Gateway) -> None:
    """Ids come again: were epochs to begin at the same number, the owner of the older record could write the new."""
    await one.add(1, start=True)
    await two.add(0, end=True)
    await two.add(10, start=True)

    assert await one.add(1) == 11


async def test_a_start_makes_the_record_of_another_gateway_void(one: Gateway, two: Gateway, store: Store) -> None:
    """There is one sequence of an id, so there is one record of it."""
    await one.add(1, start=True)
    await two.add(2, start=True)

    assert len(store.keys) == 1
    await two.add(2, end=True)
    assert store.keys == set()


async def test_an_error_that_an_old_state_brought_about_is_not_the_last_word(one: Gateway, two: Gateway) -> None:
    """Rows that do not fit the older sequence's, for one; what is wrong with the new state as well is said then."""
    await one.add(1, start=True)
    await two.add(2)
    one.model.failure = ModelFailed("no such state")
    assert await one.add(3) == 6
    one.model.failure = ModelFailed("no such state")
    assert isinstance(await error_of(one.submit(4)), ModelFailed)
    assert await two.add(4) == 10


async def test_what_must_not_be_computed_twice_is_not(store: Store) -> None:
    """Its caller hears that somebody else has the sequence, and decides."""
    careful = replace(VERSION, idempotent=False)
    one, two = Gateway(store, careful), Gateway(store, careful)
    await one.add(1, start=True)
    await two.add(2)

    assert isinstance(await error_of(one.submit(3)), SessionTakenOver)
    assert len(one.model.flights) == 2
    assert await one.add(3) == 6


async def test_an_answer_that_was_not_committed_does_not_leave(one: Gateway, store: Store) -> None:
    """The state is what the store has: the caller may send the item again."""
    await one.add(1, start=True)
    store.on_commit = unreachable
    refused = await error_of(one.submit(2))
    store.on_commit = nothing

    assert isinstance(refused, SessionStoreUnavailable)
    assert await one.add(2) == 3


async def unreachable() -> None:
    raise SessionStoreUnavailable("nobody answers")


async def test_a_gateway_that_leaves_gives_up_what_was_in_flight(one: Gateway, two: Gateway) -> None:
    """Nobody was told of it, so the next gateway goes on from before."""
    await one.add(1, start=True)
    one.model.holding = True
    one.submit(100)
    await one.until_in_flight(2)
    await one.sequences.close()

    assert one.model.flights[-1].result.cancelled()
    assert await two.add(2) == 3


async def test_a_gateway_that_leaves_while_it_commits_gives_up_that_item(
    one: Gateway, two: Gateway, store: Store
) -> None:
    """Its answer never left, and its caller will send it again."""
    await one.add(1, start=True)
    committing = asyncio.Event()

    async def stuck() -> None:
        store.on_commit = nothing
        committing.set()
        await asyncio.Event().wait()

    store.on_commit = stuck
    one.submit(100)
    async with asyncio.timeout(5):
        await committing.wait()
    await one.sequences.close()

    assert await two.add(2) == 3


async def test_a_caller_that_leaves_while_its_item_waits_takes_only_that_along(one: Gateway) -> None:
    """Items in line are of different callers."""
    one.model.holding = True
    turns = [one.submit(1, start=True), one.submit(10), one.submit(100)]
    await one.until_in_flight(1)
    turns[1].abandon()
    one.model.holding = False
    turns[0].abandon()

    assert await answer_of(turns[2]) == 100
    assert len(one.model.flights) == 2


async def test_what_waits_is_limited_in_bytes(store: Store) -> None:
    """Items of many sequences wait for slow models outside of every queue; an answer or a cancellation makes room."""
    one = Gateway(store, max_bytes=8)
    one.model.holding = True
    turns = [one.submit(1, number, start=True) for number in (1, 2)]
    with pytest.raises(MemoryPressure):
        one.submit(1, 3, start=True)
    turns[0].abandon()
    await one.until_in_flight(1)
    turns.append(one.submit(1, 3, start=True))
    with pytest.raises(MemoryPressure):
        one.submit(1, 4, start=True)


async def test_idle_sequences_leave_nothing_behind(one: Gateway, store: Store) -> None:
    """Neither here nor in the store, nor the permission to go on."""
    await one.add(1, 1, start=True)
    one.model.now += IDLE_SECONDS / 2
    await one.add(1, 2, start=True)
    one.model.now += IDLE_SECONDS / 2
    await one.sequences.sweep()

    assert len(store.keys) == 1
    assert await one.add(1, 2) == 2
    assert isinstance(await error_of(one.submit(1, 1)), InvalidParameter)


async def test_an_item_that_comes_too_late_does_not_wait_for_a_sweep(one: Gateway) -> None:
    """What holds does not depend on when somebody tidies up."""
    await one.add(1, start=True)
    one.model.now += IDLE_SECONDS

    assert isinstance(await error_of(one.submit(1)), InvalidParameter)


class Step(NamedTuple):
    """Items of one sequence that come to one gateway at once, with their flags; or the death of that gateway."""

    gateway: int
    sequence_id: int
    items: list[tuple[float, bool, bool]]
    dies: bool


STEPS = st.lists(
    st.builds(
        Step,
        st.integers(0, 1),
        st.integers(1, 2),
        st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), max_size=4),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_every_sum_is_that_of_the_items_since_the_start(steps: list[Step]) -> None:
    """Whatever the order of starts, ends, gateways and deaths: an answer never shows another sequence's state."""
    asyncio.run(follow(steps))


async def follow(steps: list[Step]) -> None:
    store = Store()
    gateways = [Gateway(store), Gateway(store)]
    live: dict[int, float] = {}
    for place, sequence_id, items, dies in steps:
        if dies:
            gateways[place] = Gateway(store)
        turns = [gateways[place].submit(value, sequence_id, start=start, end=end) for value, start, end in items]
        for turn, (value, start, end) in zip(turns, items, strict=True):
            expected = value + (0.0 if start else live.get(sequence_id, np.nan))
            if np.isnan(expected):
                assert isinstance(await error_of(turn), InvalidParameter)
                continue
            assert await answer_of(turn) == expected
            live[sequence_id] = expected
            if end:
                del live[sequence_id]
