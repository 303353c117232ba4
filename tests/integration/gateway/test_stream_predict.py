"""StreamPredict: its opening, its items, and what happens when a client breaks the rules or does not read."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from grpc import aio

from inferway.errors import ModelFailed
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.status import from_status
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1.worker_service_pb2 import Envelope
from tests.integration.gateway.conftest import Bed
from tests.integration.gateway.fake_worker import echo
from tests.integration.gateway.requests import predict_request, refusal_of, tensor

Call = aio.StreamStreamCall[pb.StreamPredictRequest, pb.StreamPredictResponse]


def row(number: int) -> bytes:
    return struct.pack("<4f", number, 0, 0, 0)


def item(number: int, **fields: Any) -> pb.StreamPredictRequest:
    inputs = fields.pop("inputs", [tensor(raw=row(number))])
    return pb.StreamPredictRequest(item=pb.StreamItem(id=number, inputs=inputs, **fields))


async def opened(bed: Bed, **fields: Any) -> tuple[Call, pb.StreamOpened]:
    """A stream to `echo` whose opening was answered."""
    call: Call = bed.stub.StreamPredict(timeout=10)
    target = fields.pop("target", pb.Target(endpoint="echo"))
    await call.write(pb.StreamPredictRequest(open=pb.StreamOpen(target=target, **fields)))
    return call, (await message(call)).opened


async def message(call: Call) -> pb.StreamPredictResponse:
    """The server's next message."""
    response = await call.read()
    assert isinstance(response, pb.StreamPredictResponse)
    return response


async def results(call: Call) -> AsyncIterator[pb.StreamResult]:
    """Results until the server ends the stream."""
    while isinstance(response := await call.read(), pb.StreamPredictResponse):
        yield response.result


async def test_every_item_is_answered_after_the_client_half_closed(bed: Bed) -> None:
    """The end of the input is not the end of the answers."""
    call, opening = await opened(bed)
    for number in range(20):
        await call.write(item(number))
    await call.done_writing()

    answers = {result.id: result.prediction.outputs[0].raw async for result in results(call)}

    assert opening.max_in_flight == 32
    assert answers == {number: row(number) for number in range(20)}


async def test_ordered_results_keep_the_order_of_the_items(bed: Bed) -> None:
    """A client that asks for order gets it even if the worker answers the other way round."""
    bed.worker.hold()
    call, _ = await opened(bed, order=pb.RESULT_ORDER_ORDERED)
    for number in range(10):
        await call.write(item(number))
    await call.done_writing()
    await bed.worker.until(lambda w: len(w.received) == 10)
    await bed.worker.release(backwards=True)

    assert [result.id async for result in results(call)] == list(range(10))


async def test_unordered_results_come_as_they_complete(bed: Bed) -> None:
    """A slow item must not hold back the others."""
    bed.worker.hold()
    call, _ = await opened(bed)
    await call.write(item(1))
    await bed.worker.until(lambda w: len(w.received) == 1)
    slow = bed.worker.take_held()
    await call.write(item(2))
    await bed.worker.until(lambda w: len(w.received) == 2)
    await bed.worker.release()
    first = (await message(call)).result
    slow()
    second = (await message(call)).result

    assert (first.id, second.id) == (2, 1)


async def test_a_bad_item_fails_alone(bed: Bed) -> None:
    """One bad row among thousands must not cost the stream."""

    def fail_on_two(envelope: Envelope) -> Sequence[Tensor]:
        if envelope.inputs[0].raw == row(2):
            raise ModelFailed("no such embedding")
        return echo(envelope)

    bed.worker.compute = fail_on_two
    call, _ = await opened(bed)
    for number in (1, 2, 4):
        await call.write(item(number))
    await call.write(item(3, inputs=[tensor("z")]))
    await call.done_writing()
    got = {result.id: result async for result in results(call)}

    assert [number for number in got if got[number].HasField("prediction")] == [1, 4]
    assert from_status(got[2].error).reason == "MODEL_FAILED"
    assert from_status(got[3].error).reason == "UNKNOWN_INPUT"


async def test_an_id_that_is_still_unanswered_is_refused(bed: Bed) -> None:
    """The client could not tell the two results apart."""
    bed.worker.hold()
    call, _ = await opened(bed)
    await call.write(item(1))
    await call.write(item(1))
    await call.done_writing()
    refused = (await message(call)).result
    await bed.worker.until(lambda w: len(w.received) == 1)
    await bed.worker.release()
    answered = (await message(call)).result

    assert from_status(refused.error).reason == "INVALID_FIELD"
    assert (answered.id, answered.HasField("prediction")) == (1, True)


async def test_items_beyond_the_limit_are_refused_one_by_one(bed: Bed) -> None:
    """The limit was announced; a client that ignores it keeps its stream."""
    bed.worker.hold()
    call, opening = await opened(bed, max_in_flight=2)
    for number in range(3):
        await call.write(item(number))
    refused = (await message(call)).result
    await bed.worker.until(lambda w: len(w.received) == 2)
    await bed.worker.release()
    await call.done_writing()

    assert opening.max_in_flight == 2
    assert (refused.id, from_status(refused.error).reason) == (2, "TOO_MANY_CONCURRENT")
    assert {result.id async for result in results(call)} == {0, 1}


async def test_an_item_has_a_deadline_of_its_own(bed: Bed) -> None:
    """Old frames of a video are worthless while new ones are not."""
    bed.worker.hold()
    call, _ = await opened(bed)
    late = item(1)
    late.item.timeout.FromMilliseconds(50)
    await call.write(late)

    result = (await message(call)).result

    assert from_status(result.error).reason == "DEADLINE_EXCEEDED"


async def test_a_stream_must_begin_with_open_and_open_once(bed: Bed) -> None:
    """Clients that confuse the order learn what was expected."""
    call: Call = bed.stub.StreamPredict(timeout=5)
    await call.write(item(1))
    first = await refusal_of(call.read())
    call, _ = await opened(bed)
    await call.write(pb.StreamPredictRequest(open=pb.StreamOpen()))
    second = await refusal_of(call.read())
    call, _ = await opened(bed)
    await call.write(pb.StreamPredictRequest())
    third = await refusal_of(call.read())

    assert (first.reason, first.metadata["expected"]) == ("STREAM_PROTOCOL", "open")
    assert (second.reason, second.metadata["expected"]) == ("STREAM_PROTOCOL", "item")
    assert third.reason == "STREAM_PROTOCOL"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"target": pb.Target(endpoint="nobody")}, "ENDPOINT_NOT_FOUND"),
        ({"target": pb.Target(endpoint="echo", version=9)}, "VERSION_NOT_FOUND"),
        ({"output_names": ["z"]}, "UNKNOWN_OUTPUT"),
        ({"max_in_flight": -1}, "INVALID_FIELD"),
        ({"order": 3}, "INVALID_FIELD"),
    ],
)
async def test_an_opening_that_cannot_work_ends_the_stream(bed: Bed, fields: dict[str, Any], reason: str) -> None:
    """Better one refusal than a thousand."""
    error = await refusal_of(opened(bed, **fields))

    assert error.reason == reason


async def test_a_stream_that_is_cut_gives_up_its_items_at_the_worker(bed: Bed) -> None:
    """A client that dies must not leave its work behind."""
    bed.worker.hold()
    call, _ = await opened(bed)
    for number in range(5):
        await call.write(item(number))
    await bed.worker.until(lambda w: len(w.received) == 5)

    call.cancel()
    await bed.worker.until(lambda w: len(w.cancelled) == 5)

    assert sorted(bed.worker.cancelled) == sorted(envelope.id for envelope in bed.worker.received)


async def test_a_client_that_does_not_read_is_not_read_either(bed: Bed) -> None:
    """Backpressure is what keeps one slow client from filling the gateway's memory."""
    big = [tensor(raw=b"\0" * 16 * 8192, shape=(8192, 4))]
    narrow = [("grpc.http2.bdp_probe", 0)]  # else its own receive window would grow until everything fits
    async with aio.insecure_channel(bed.target, narrow) as channel:
        call: Call = PredictionServiceStub(channel).StreamPredict(timeout=20)
        opening = pb.StreamOpen(target=pb.Target(endpoint="echo"), max_in_flight=4)
        await call.write(pb.StreamPredictRequest(open=opening))

        async def write_all() -> None:
            for number in range(200):
                await call.write(item(number, inputs=big))

        writing = asyncio.create_task(write_all())
        await bed.worker.until(lambda w: len(w.received) >= 4)
        for _ in range(50):
            await bed.stub.Predict(predict_request(), timeout=5)
        written = writing.done()
        writing.cancel()

    assert not written, "it is held up where it sends"
    assert len([envelope for envelope in bed.worker.received if envelope.rows > 1]) < 20


async def test_a_draining_server_tells_its_streams_and_answers_what_they_sent(bed: Bed) -> None:
    """Restarts of a gateway must not lose items."""
    bed.worker.hold()
    call, _ = await opened(bed)
    await call.write(item(1))
    await bed.worker.until(lambda w: len(w.received) == 1)
    await bed.server.drain()
    notice = await message(call)
    await bed.worker.release()
    await call.done_writing()

    assert notice.drain.grace.seconds >= 1
    assert [result.id async for result in results(call)] == [1]


async def test_a_stream_that_opens_while_the_server_drains_is_told_too(bed: Bed) -> None:
    """Whoever was asked to end comes back by the same connection, and must not be cut off untold then."""
    await bed.server.drain()
    call, _ = await opened(bed)
    notice = await call.read()
    call.cancel()

    assert isinstance(notice, pb.StreamPredictResponse)
    assert notice.HasField("drain")
