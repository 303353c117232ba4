"""Streams that lose their connection, their gateway, or its patience: the caller notices nothing, or what it must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferway.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidField,
    ModelFailed,
    SessionNotFound,
    SessionTakenOver,
    ShapeMismatch,
    Unreachable,
)
from inferway_client import Client, PredictionStream, ReconnectPolicy, StreamResult
from inferway_client.testing import FakeGateway, Trouble
from tests.unit.client.prediction_suite import number, row, y
from tests.unit.client.test_fake_gateway import ACCUMULATOR, AFFINE

QUICKLY = ReconnectPolicy(initial_backoff_seconds=0.001, max_backoff_seconds=0.001)
SOON = ReconnectPolicy(initial_backoff_seconds=0.001, max_backoff_seconds=0.001, give_up_seconds=0.2)
LOSSES = [trouble for trouble in Trouble if trouble is not Trouble.SILENCE]


def doubled(result: StreamResult) -> float:
    """What the affine model answered, turned back."""
    return (float(result.unwrap().outputs["y"][0, 0]) - 1) / 2


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """A fake gateway with a stateless and a stateful model."""
    async with FakeGateway({"affine": AFFINE, "accumulator": ACCUMULATOR}) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: FakeGateway) -> AsyncIterator[Client]:
    """Its client."""
    async with Client(gateway.target, timeout=10.0) as client:
        yield client


async def all_of(stream: PredictionStream, values: range) -> list[float]:
    """The sums after each value, in the order in which results came."""
    return [y(result) async for result in stream.map(number(value) for value in values)]


@pytest.mark.parametrize("trouble", LOSSES)
async def test_a_session_survives_each_trouble(gateway: FakeGateway, client: Client, trouble: Trouble):
    """Each item is applied once, answered once, in order, and the caller is not told of any trouble."""
    async with client.stream("accumulator", max_in_flight=4, reconnect=QUICKLY) as stream:
        gateway.streams.suffer(*[Trouble.CUT_UNAPPLIED, trouble] * 3)
        sums = await all_of(stream, range(50))
    assert sums == list(np.cumsum(range(50)))
    assert gateway.streams.applied == list(range(1, 51))
    assert not gateway.streams.troubles


@given(troubles=st.lists(st.sampled_from(LOSSES), max_size=12), window=st.integers(1, 8), seed=st.integers(0, 3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_session_survives_any_troubles(troubles: list[Trouble], window: int, seed: int):
    """As above, for every order of them; some items are bad ones, which leave the state as it was."""

    async def act() -> None:
        async with FakeGateway({"accumulator": ACCUMULATOR}) as gateway, Client(gateway.target) as client:
            bad = set(range(seed, 40, 7)) if seed else set()
            items = [{"x": np.zeros((1, 2), np.float32)} if n in bad else number(n) for n in range(40)]
            async with client.stream("accumulator", max_in_flight=window, reconnect=QUICKLY) as stream:
                gateway.streams.suffer(*troubles)
                results = [result async for result in stream.map(items)]
            assert [result.id for result in results] == list(range(40))
            assert [n for n, result in enumerate(results) if isinstance(result.error, ShapeMismatch)] == sorted(bad)
            sums = np.cumsum([0 if n in bad else n for n in range(40)])
            assert [y(result) for n, result in enumerate(results) if n not in bad] == [
                value for n, value in enumerate(sums) if n not in bad
            ]
            assert gateway.streams.applied == list(range(1, 41))

    asyncio.run(act())


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("trouble", LOSSES)
async def test_a_stateless_stream_survives_each_trouble(
    gateway: FakeGateway, client: Client, trouble: Trouble, ordered: bool
):
    """What was unanswered is sent again; every item has one result."""
    async with client.stream("affine", ordered=ordered, max_in_flight=4, reconnect=QUICKLY) as stream:
        gateway.streams.suffer(*[Trouble.CUT_UNAPPLIED, trouble] * 3)
        results = [result async for result in stream.map(row(value) for value in range(50))]
    assert sorted(result.id for result in results) == list(range(50))
    assert all(doubled(result) == result.id for result in results)
    assert not ordered or [result.id for result in results] == list(range(50))
    assert not gateway.streams.troubles


async def test_a_gateway_that_says_nothing_for_three_heartbeats_is_left(gateway: FakeGateway, client: Client):
    """A dead machine resets no connection."""
    gateway.streams.heartbeat_seconds = 0.02
    gateway.streams.suffer(Trouble.SILENCE)
    async with client.stream("accumulator", max_in_flight=2, reconnect=QUICKLY) as stream:
        assert await all_of(stream, range(10)) == list(np.cumsum(range(10)))
    assert gateway.streams.opened > 1


async def test_results_are_acknowledged_when_taken_and_the_session_ends_with_the_stream(
    gateway: FakeGateway, client: Client
):
    """A gateway keeps what its client does not have, and nothing else."""
    async with client.stream("accumulator") as stream:
        for value in range(10):
            await stream.send(number(value))
        await stream.finish()
        [session] = gateway.streams.sessions.values()
        assert y(await anext(stream)) == 0
        assert len(session.kept) >= 9
        assert [y(result) async for result in stream] == list(np.cumsum(range(10)))[1:]
    assert not session.kept
    assert session.ended


async def test_an_idle_stream_acknowledges_what_was_taken(gateway: FakeGateway, client: Client):
    """Nobody can say how long a caller takes until its next item."""
    async with client.stream("accumulator") as stream:
        await stream.send(number(1))
        await anext(stream)
        [session] = gateway.streams.sessions.values()
        async with asyncio.timeout(5.0):
            await gateway.streams.until(lambda: not session.kept)


async def test_a_session_goes_on_in_another_process(gateway: FakeGateway, client: Client):
    """What was not taken comes again, and what was applied is not applied again."""
    async with client.stream("accumulator") as stream:
        for value in range(1, 6):
            await stream.send(number(value))
        taken = [await anext(stream), await anext(stream)]
        async with asyncio.timeout(5.0):
            await gateway.streams.until(lambda: len(gateway.streams.applied) == 5)
        token = stream.resume_token
    async with (
        Client(gateway.target) as other,
        other.stream("accumulator", resume_token=token, acknowledged_item=taken[-1].id) as stream,
    ):
        assert stream.applied_item == 5
        assert await stream.send(number(6)) == 6
        await stream.finish()
        assert [(result.id, y(result)) async for result in stream] == [(3, 6), (4, 10), (5, 15), (6, 21)]
    assert gateway.streams.applied == [1, 2, 3, 4, 5, 6]


async def test_a_map_of_a_resumed_session_numbers_what_was_left_from_below(gateway: FakeGateway, client: Client):
    """The position of a batch is the id of its result, also there."""
    async with client.stream("accumulator") as stream:
        await stream.send(number(1))
        async with asyncio.timeout(5.0):
            await gateway.streams.until(lambda: gateway.streams.applied == [1])
        token = stream.resume_token
    async with client.stream("accumulator", resume_token=token) as stream:
        results = [(result.id, y(result)) async for result in stream.map([number(2)])]
    assert results == [(-1, 1), (0, 3)]


async def test_a_session_that_is_gone_is_not_begun_again(gateway: FakeGateway, client: Client):
    """A new session would answer as if nothing had been before."""
    async with client.stream("accumulator", reconnect=QUICKLY) as stream:
        await stream.send(number(1))
        await anext(stream)
        gateway.streams.sessions.clear()
        gateway.streams.suffer(Trouble.CUT_UNAPPLIED)
        await stream.send(number(2))
        with pytest.raises(SessionNotFound):
            await anext(stream)
        with pytest.raises(SessionNotFound):
            await stream.send(number(3))


async def test_whoever_resumes_last_owns_the_session(client: Client):
    """Two streams that both went on would each apply half of the items."""
    async with client.stream("accumulator", reconnect=QUICKLY) as first:
        await first.send(number(1))
        await anext(first)
        async with client.stream("accumulator", resume_token=first.resume_token, acknowledged_item=1) as second:
            await first.send(number(2))
            with pytest.raises(SessionTakenOver):
                await anext(first)
            await second.send(number(3))
            assert y(await anext(second)) == 4


async def test_without_reconnecting_a_session_ends_with_its_stream(gateway: FakeGateway, client: Client):
    """Nothing is kept for somebody who does not come back."""
    gateway.streams.suffer(Trouble.CUT_ANSWERED)
    async with client.stream("accumulator", reconnect=None) as stream:
        assert stream.resume_token == ""
        await stream.send(number(1))
        with pytest.raises(Unreachable):
            await asyncio.gather(*[anext(stream), anext(stream)])
    assert not gateway.streams.sessions


async def test_an_effect_is_not_repeated_where_the_caller_forbids_it(gateway: FakeGateway, client: Client):
    """Nobody knows whether the item was computed, so that is what its result says."""
    policy = ReconnectPolicy(initial_backoff_seconds=0.001, resend=False)
    gateway.streams.suffer(Trouble.CUT_APPLIED)
    async with client.stream("affine", reconnect=policy) as stream:
        await stream.send(row(1))
        lost = await anext(stream)
        assert isinstance(lost.error, Unreachable)
        await stream.send(row(2))
        assert doubled(await anext(stream)) == 2
    assert gateway.streams.applied == [1, 2]


async def test_an_error_that_repetition_does_not_mend_ends_the_stream(gateway: FakeGateway):
    """Wrong use is told at once."""
    async with Client(gateway.target) as client, client.stream("affine", reconnect=QUICKLY) as stream:
        gateway.fail_next(ModelFailed("no"))
        await stream.send(row(1))
        assert isinstance((await anext(stream)).error, ModelFailed)
    assert gateway.streams.opened == 1


async def test_a_gateway_that_stays_away_is_given_up():
    """There is an end to hoping, and it says what was missing."""
    async with AsyncExitStack() as away:
        async with FakeGateway({"accumulator": ACCUMULATOR}) as gateway:
            client = await away.enter_async_context(Client(gateway.target))
            stream = await away.enter_async_context(client.stream("accumulator", reconnect=SOON))
            await stream.send(number(1))
            await anext(stream)
        with pytest.raises(Unreachable):
            await anext(stream)


async def test_an_item_whose_time_is_over_without_a_gateway_says_so():
    """The caller of a stateless stream is told in time, and the stream goes on hoping."""
    async with AsyncExitStack() as away:
        async with FakeGateway({"affine": AFFINE}) as gateway:
            client = await away.enter_async_context(Client(gateway.target))
            stream = await away.enter_async_context(client.stream("affine", reconnect=QUICKLY))
        await stream.send(row(1), timeout=0.05)
        assert isinstance((await anext(stream)).error, DeadlineExceeded)


async def test_what_nobody_waits_for_any_more_needs_no_gateway():
    """All was answered, so it is no loss that the gateway has gone when the caller says that this was all."""
    async with AsyncExitStack() as away:
        async with FakeGateway({"affine": AFFINE}) as gateway:
            client = await away.enter_async_context(Client(gateway.target))
            stream = await away.enter_async_context(client.stream("affine", reconnect=QUICKLY))
            await stream.send(row(1))
            await anext(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.1)
        await stream.finish()
        async with asyncio.timeout(5.0):
            assert [result async for result in stream] == []


async def test_a_stream_that_is_left_at_once_is_closed(gateway: FakeGateway, client: Client):
    """Else it would stay open at the gateway for as long as somebody holds on to it here."""
    async with client.stream("affine") as stream:
        pass
    async with asyncio.timeout(5.0):
        await gateway.streams.until(lambda: not gateway.streams.present)
    with pytest.raises(Cancelled):
        await stream.send(row(1))


async def test_a_client_that_is_closed_does_not_pass_for_the_end_of_its_streams(gateway: FakeGateway):
    """Whoever reads would take the results so far for all that there are."""
    gateway.streams.suffer(Trouble.SILENCE)
    async with AsyncExitStack() as stack:
        async with Client(gateway.target) as client:
            stream = await stack.enter_async_context(client.stream("affine"))
            await stream.send(row(1))
            await anext(stream)
            await stream.send(row(2))
            reading = asyncio.ensure_future(anext(stream))
        async with asyncio.timeout(5.0):
            with pytest.raises(Cancelled):
                await reading
        with pytest.raises(Cancelled):
            await stream.send(row(3))


async def test_a_cancellation_that_meets_the_end_of_a_stream_is_not_lost(client: Client):
    """A task that was told to stop, or whose time is over, would go on."""
    is_leaving = asyncio.Event()

    async def act() -> None:
        async with client.stream("affine") as stream:
            await stream.send(row(1))
            await anext(stream)
            is_leaving.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(act())
    await is_leaving.wait()
    task.cancel()
    await asyncio.wait([task], timeout=5.0)
    assert task.cancelled()


async def test_a_sender_waits_no_longer_than_it_said_though_another_waits_before_it(client: Client):
    """Several tasks may send, and each has a time of its own."""
    async with client.stream("affine", max_in_flight=1) as stream:
        await stream.send(row(1))
        patient = asyncio.create_task(stream.send(row(2), timeout=60.0))
        await asyncio.sleep(0)
        async with asyncio.timeout(5.0):
            with pytest.raises(DeadlineExceeded):
                await stream.send(row(3), timeout=0.01)
            await anext(stream)
            assert await patient == 2


async def test_a_caller_may_take_its_time_over_the_results_of_a_map(client: Client):
    """The time of an item is for its answer, and begins when there is room for it."""
    async with client.stream("affine", max_in_flight=1) as stream:
        answered = []
        async for result in stream.map((row(value) for value in range(4)), timeout=0.02):
            answered.append(doubled(result))
            if len(answered) == 1:
                await asyncio.sleep(0.05)  # what it does with a result
    assert answered == [0, 1, 2, 3]


async def test_an_item_that_no_message_can_hold_is_refused_before_it_is_sent(gateway: FakeGateway):
    """It would end every call on which it was sent again, and all that travels with it."""
    async with (
        Client(gateway.target, max_message_bytes=1000) as client,
        client.stream("affine", reconnect=QUICKLY) as stream,
    ):
        with pytest.raises(InvalidField):
            await stream.send({"x": np.zeros((300, 3), np.float32)})
        await stream.send(row(1))
        assert doubled(await anext(stream)) == 1
    assert gateway.streams.opened == 1
