"""Streams of a stateful model: each item is applied once, in order, whatever dies between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from inferway.errors import InferwayError, ModelFailed
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.registry.v1.resources_pb2 import STREAM_POLICY_MIGRATE
from inferway.status import from_status
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1.worker_service_pb2 import LOAD_STATE_READY, Envelope
from tests.integration.gateway.accumulator import accumulate, accumulator, item, number, sum_endpoint, sum_of
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.requests import predict_request, refusal_of, tensor

Call = aio.StreamStreamCall[pb.StreamPredictRequest, pb.StreamPredictResponse]
V1, V2 = "models/sum/versions/1", "models/sum/versions/2"


@pytest.fixture
async def summing(bed: Bed) -> Bed:
    """A gateway whose worker has version 1 of `sum`."""
    bed.worker.compute = accumulate
    await add_version(bed.worker, V1)
    await bed.publish(accumulator(), endpoints=[sum_endpoint()])
    await bed.until_health_is("model/sum", serving=True)
    return bed


async def add_version(worker: FakeWorker, name: str) -> None:
    await worker.set_state(name, LOAD_STATE_READY)
    await worker.grant(name)


async def opened(bed: Bed, *, resumable: bool = False, **fields: Any) -> tuple[Call, pb.StreamOpened]:
    """A stream to `sum` whose opening was answered."""
    call: Call = bed.stub.StreamPredict(timeout=20)
    target = pb.Target(endpoint="sum")
    opening = pb.StreamOpen(target=target, acknowledges_results=resumable, **fields)
    await call.write(pb.StreamPredictRequest(open=opening))
    return call, (await message(call)).opened


async def resumed(bed: Bed, token: str, acknowledged: int = 0) -> tuple[Call, pb.StreamOpened]:
    """A stream that goes on with the session of `token`."""
    resume = pb.SessionResume(token=token, acknowledged_item=acknowledged)
    return await opened(bed, resumable=True, resume=resume)


async def message(call: Call) -> pb.StreamPredictResponse:
    response = await call.read()
    assert isinstance(response, pb.StreamPredictResponse)
    return response


async def result(call: Call) -> pb.StreamResult:
    return (await message(call)).result


def acknowledge(results: int, *, ends_session: bool = False) -> pb.StreamPredictRequest:
    said = pb.StreamAcknowledge(results=results, ends_session=ends_session)
    return pb.StreamPredictRequest(acknowledge=said)


def error_of(found: pb.StreamResult) -> InferwayError:
    assert found.HasField("error")
    return from_status(found.error)


async def failure_of(call: Call) -> InferwayError:
    """The typed error that the stream ends with."""

    async def read_on() -> None:
        while isinstance(await call.read(), pb.StreamPredictResponse):
            pass

    return await refusal_of(read_on())


async def test_the_state_goes_from_item_to_item_and_callers_do_not_see_it(summing: Bed) -> None:
    """That is what a stateful model is for."""
    call, opening = await opened(summing)
    for item_id in range(1, 6):
        await call.write(item(item_id))
    await call.done_writing()
    answers = [await result(call) for _ in range(5)]

    assert [(a.id, sum_of(a)) for a in answers] == [(1, 11), (2, 13), (3, 16), (4, 20), (5, 25)]
    assert opening.session.resume_token == ""
    assert opening.session.model_version == V1


async def test_items_of_different_sessions_are_out_together(summing: Bed) -> None:
    """Sessions must not cost the batches: each has one item in flight, and they go side by side."""
    summing.worker.hold()
    calls = [(await opened(summing))[0] for _ in range(4)]
    for value, call in enumerate(calls):
        await call.write(item(1, value))
        await call.write(item(2, value))
    await summing.worker.until(lambda w: len(w.received) == 4)
    await summing.worker.release()
    answers = [[sum_of(await result(call)), sum_of(await result(call))] for call in calls]

    assert answers == [[10 + value, 10 + 2 * value] for value in range(4)]


async def test_a_bad_item_fails_alone_and_leaves_the_state_as_it_was(summing: Bed) -> None:
    """One wrong input must not cost the history of a session."""
    call, _ = await opened(summing)
    await call.write(item(1))
    await call.write(pb.StreamPredictRequest(item=pb.StreamItem(id=2, inputs=[tensor()])))
    await call.write(item(3))
    first, second, third = [await result(call) for _ in range(3)]

    assert sum_of(first) == 11
    assert error_of(second).reason == "SHAPE_MISMATCH"
    assert sum_of(third) == 14


async def test_a_failing_model_leaves_the_state_as_it_was(summing: Bed) -> None:
    """An item that was not answered was not applied."""

    def fail_on_two(envelope: Envelope) -> Sequence[Tensor]:
        if number(2).raw in [t.raw for t in envelope.inputs]:
            raise ModelFailed("no", cause="test")
        return accumulate(envelope)

    summing.worker.compute = fail_on_two
    call, _ = await opened(summing)
    for item_id in (1, 2, 3):
        await call.write(item(item_id))
    first, second, third = [await result(call) for _ in range(3)]

    assert (sum_of(first), error_of(second).reason, sum_of(third)) == (11, "MODEL_FAILED", 14)


async def test_a_state_of_another_shape_than_published_fails_the_item(summing: Bed) -> None:
    """A model that breaks its own contract must not poison the session."""

    def narrow(envelope: Envelope) -> Sequence[Tensor]:
        return [Tensor(name=t.name, datatype=t.datatype, shape=[1, 1], raw=t.raw[:4]) for t in accumulate(envelope)]

    summing.worker.compute = narrow
    call, _ = await opened(summing)
    await call.write(item(1))
    refused = error_of(await result(call))
    summing.worker.compute = accumulate
    await call.write(item(2))

    assert refused.reason == "MODEL_FAILED"
    assert sum_of(await result(call)) == 12


async def test_the_first_item_fixes_the_rows_of_a_session(summing: Bed) -> None:
    """Each row has a state of its own; there is none for a further row."""
    call, _ = await opened(summing)
    await call.write(item(1, rows=3))
    await call.write(item(2, rows=2))
    await call.write(item(3, rows=3))
    first, second, third = [await result(call) for _ in range(3)]

    assert list(first.prediction.outputs[0].shape) == [3, 1]
    assert error_of(second).reason == "INVALID_BATCH"
    assert sum_of(third) == 14


async def test_ids_of_a_session_increase(summing: Bed) -> None:
    """An id that comes twice on one stream is the client's mistake and is told so, out of turn of nobody."""
    call, _ = await opened(summing)
    for item_id in (5, 5, 6, 0):
        await call.write(item(item_id))
    first, second, third, zero = [await result(call) for _ in range(4)]

    assert sum_of(first) == 15
    assert error_of(second).violations[0].field == "item.id"
    assert sum_of(third) == 21
    assert error_of(zero).violations[0].field == "item.id"


async def test_a_unary_call_to_a_stateful_model_says_what_to_do(summing: Bed) -> None:
    """Without a session the answer would be one of no history."""
    refused = await refusal_of(summing.stub.Predict(predict_request("sum", inputs=[number(1)]), timeout=5))

    assert refused.reason == "SESSION_REQUIRED"
    assert "StreamPredict" in refused.message


async def test_state_inputs_cannot_be_sent(summing: Bed) -> None:
    """To callers they do not exist."""
    call, _ = await opened(summing)
    state = Tensor(name="state", datatype=tensor().datatype, shape=[1, 2], raw=bytes(8))
    await call.write(pb.StreamPredictRequest(item=pb.StreamItem(id=1, inputs=[number(1), state])))

    assert error_of(await result(call)).reason == "UNKNOWN_INPUT"


async def test_outputs_may_be_chosen_beside_the_state(summing: Bed) -> None:
    """The state comes back although nobody asked for it."""
    call, _ = await opened(summing, output_names=["y"])
    await call.write(item(1))
    await call.write(item(2))

    assert [sum_of(await result(call)), sum_of(await result(call))] == [11, 13]


async def test_a_resumed_session_goes_on_where_it_was(summing: Bed) -> None:
    """The connection was lost after two answers: the third item is applied to their state."""
    call, opening = await opened(summing, resumable=True)
    await call.write(item(1))
    await call.write(item(2))
    await result(call)
    await result(call)
    call.cancel()
    call, again = await resumed(summing, opening.session.resume_token, acknowledged=2)
    await call.write(item(3))

    assert again.session.applied_item == 2
    assert sum_of(await result(call)) == 16


async def test_results_that_were_not_acknowledged_come_again(summing: Bed) -> None:
    """A result can be lost on its way: it is not computed twice, and it is not lost."""
    call, opening = await opened(summing, resumable=True)
    for item_id in (1, 2, 3):
        await call.write(item(item_id))
    for _ in range(3):
        await result(call)
    await call.write(acknowledge(1))
    call.cancel()
    call, _ = await resumed(summing, opening.session.resume_token, acknowledged=1)
    again = [await result(call), await result(call)]

    assert [(a.id, sum_of(a)) for a in again] == [(2, 13), (3, 16)]
    assert len(summing.worker.received) == 3


async def test_items_that_are_sent_again_are_applied_once(summing: Bed) -> None:
    """A client that does not know what arrived sends all of it."""
    call, opening = await opened(summing, resumable=True)
    await call.write(item(1))
    await result(call)
    call.cancel()
    call, _ = await resumed(summing, opening.session.resume_token)
    for item_id in (1, 2):
        await call.write(item(item_id))
    first, second = await result(call), await result(call)

    assert [(first.id, sum_of(first)), (second.id, sum_of(second))] == [(1, 11), (2, 13)]


async def test_what_was_in_flight_when_the_stream_was_lost_was_not_applied(summing: Bed) -> None:
    """Its client sends it again, and it counts once."""
    summing.worker.hold()
    call, opening = await opened(summing, resumable=True)
    await call.write(item(1))
    await summing.worker.until(lambda w: len(w.received) == 1)
    call.cancel()
    await summing.worker.until(lambda w: len(w.cancelled) == 1)
    await summing.worker.release()
    call, again = await resumed(summing, opening.session.resume_token)
    await call.write(item(1))

    assert again.session.applied_item == 0
    assert sum_of(await result(call)) == 11


async def test_whoever_resumes_a_session_last_has_it(summing: Bed) -> None:
    """Two clients, or one and its ghost, must never both move the state."""
    first, opening = await opened(summing, resumable=True)
    await first.write(item(1))
    await result(first)
    second, _ = await resumed(summing, opening.session.resume_token)

    assert (await failure_of(first)).reason == "SESSION_TAKEN_OVER"
    assert sum_of(await result(second)) == 11
    await second.write(item(2))
    assert sum_of(await result(second)) == 13


async def test_a_gateway_that_is_not_alone_promises_no_return(
    registry: FakeRegistry, worker: FakeWorker, tmp_path: Path
) -> None:
    """Its client would come back to another one, which knows nothing of the session."""
    worker.compute = accumulate
    await add_version(worker, V1)
    settings = settings_for(tmp_path, registry.target, share_port=True)
    async with gateway(settings, registry, worker) as bed:
        await bed.publish(accumulator(), endpoints=[sum_endpoint()])
        await bed.until_health_is("model/sum", serving=True)
        call, opening = await opened(bed, resumable=True)
        await call.write(item(1))
        answer = await result(call)
        call.cancel()

    assert sum_of(answer) == 11
    assert (opening.session.resume_token, opening.session.model_version) == ("", V1)


@pytest.mark.parametrize("token", ["", "no such token", "x" * 100_000])
async def test_an_unknown_token_opens_nothing(summing: Bed, token: str) -> None:
    """A client must learn that its session is gone, and not go on with a fresh state."""
    resume = pb.SessionResume(token=token)
    call: Call = summing.stub.StreamPredict(timeout=5)
    opening = pb.StreamOpen(target=pb.Target(endpoint="sum"), acknowledges_results=True, resume=resume)
    await call.write(pb.StreamPredictRequest(open=opening))

    assert (await failure_of(call)).reason == "SESSION_NOT_FOUND"


async def test_a_token_opens_its_session_to_no_other_tenant(summing: Bed) -> None:
    """Whoever got hold of a token by chance has not got the session."""
    call, opening = await opened(summing, resumable=True)
    resume = pb.SessionResume(token=opening.session.resume_token)
    call = summing.stub.StreamPredict(timeout=5, metadata=(("x-tenant", "other"),))
    opening_again = pb.StreamOpen(target=pb.Target(endpoint="sum"), acknowledges_results=True, resume=resume)
    await call.write(pb.StreamPredictRequest(open=opening_again))

    assert (await failure_of(call)).reason == "SESSION_NOT_FOUND"


async def test_a_session_that_its_client_ends_is_forgotten_with_its_stream(summing: Bed) -> None:
    """Nobody will come back for it, so it must not take memory until its grace is over."""
    call, opening = await opened(summing, resumable=True)
    await call.write(item(1))
    await result(call)
    await call.write(acknowledge(1, ends_session=True))
    await call.done_writing()
    assert await call.read() is aio.EOF
    call, _ = await opened(summing)
    resume = pb.SessionResume(token=opening.session.resume_token)
    again: Call = summing.stub.StreamPredict(timeout=5)
    target = pb.Target(endpoint="sum")
    await again.write(
        pb.StreamPredictRequest(open=pb.StreamOpen(target=target, acknowledges_results=True, resume=resume))
    )

    assert (await failure_of(again)).reason == "SESSION_NOT_FOUND"


async def test_a_session_of_which_all_was_acknowledged_may_still_be_resumed(summing: Bed) -> None:
    """A stream that was cut off looks like one that was half-closed, and one that drains is half-closed."""
    call, opening = await opened(summing, resumable=True)
    await call.write(item(1))
    await result(call)
    await call.write(acknowledge(1))
    await call.done_writing()
    assert await call.read() is aio.EOF
    _, again = await resumed(summing, opening.session.resume_token, acknowledged=1)

    assert again.session.applied_item == 1


async def test_acknowledging_results_that_were_not_sent_breaks_the_stream(summing: Bed) -> None:
    """A client that counts wrong would lose results without knowing."""
    call, _ = await opened(summing, resumable=True)
    await call.write(acknowledge(1))

    assert (await failure_of(call)).reason == "STREAM_PROTOCOL"


async def test_unacknowledged_results_count_as_in_flight(summing: Bed) -> None:
    """What the server keeps for a client is bounded by what it was promised."""
    call, opening = await opened(summing, resumable=True, max_in_flight=2)
    for item_id in (1, 2):
        await call.write(item(item_id))
        await result(call)
    await call.write(item(3))
    refused = error_of(await result(call))
    await call.write(acknowledge(3))
    await call.write(item(4))

    assert opening.max_in_flight == 2
    assert refused.reason == "TOO_MANY_CONCURRENT"
    assert sum_of(await result(call)) == 17


async def test_a_session_goes_on_at_another_worker(summing: Bed) -> None:
    """The worker that held an item is gone: it is applied at the next one, to the same state, once."""
    call, _ = await opened(summing)
    await call.write(item(1))
    await result(call)
    other = FakeWorker("w1", [V1])
    other.compute = accumulate
    await other.start()
    summing.worker.hold()
    await call.write(item(2))
    await summing.worker.until(lambda w: len(w.received) == 2)
    await summing.publish(accumulator(), endpoints=[sum_endpoint()], workers=[summing.worker, other], revision=2)
    await other.until(lambda w: w.links > 0)
    await summing.worker.stop()
    second = await result(call)
    await call.write(item(3))
    third = await result(call)
    call.cancel()
    await other.stop()

    assert (sum_of(second), sum_of(third)) == (13, 16)


async def test_a_session_waits_for_a_worker_to_come_back(summing: Bed) -> None:
    """The only worker is away for a moment: an item with time left is late, not lost."""
    call, _ = await opened(summing)
    await call.write(item(1))
    await result(call)
    await summing.worker.stop()
    await call.write(item(2))
    again = FakeWorker("w0", [V1])
    again.compute = accumulate
    await again.start(int(summing.worker.address.rpartition(":")[2]))
    second = await result(call)
    call.cancel()
    await again.stop()

    assert sum_of(second) == 13


async def test_a_session_finishes_on_its_version_and_workers_are_told_to_keep_it(summing: Bed) -> None:
    """A deploy must not throw away the state of sessions that are under way."""
    call, _ = await opened(summing)
    await call.write(item(1))
    await result(call)
    await add_version(summing.worker, V2)
    endpoints = [sum_endpoint({V2: 10_000})]
    await summing.publish(accumulator(1, wanted=False), accumulator(2), endpoints=endpoints, revision=2)
    await summing.worker.until(lambda w: [V1] in w.holds)
    await call.write(item(2))
    second = await result(call)
    fresh, opening = await opened(summing)
    call.cancel()
    fresh.cancel()
    await summing.worker.until(lambda w: w.holds[-1] == [])

    assert (second.prediction.model_version, sum_of(second)) == (V1, 13)
    assert opening.session.model_version == V2


async def test_a_session_migrates_if_the_endpoint_says_so_and_the_state_fits(summing: Bed) -> None:
    """The next item is answered by the new version, from the state that the old one left; none by both."""
    call, _ = await opened(summing)
    await call.write(item(1))
    first = await result(call)
    await add_version(summing.worker, V2)
    endpoints = [sum_endpoint({V2: 10_000}, STREAM_POLICY_MIGRATE)]
    await summing.publish(accumulator(1, wanted=False), accumulator(2), endpoints=endpoints, revision=2)
    fresh = await until_opened_with(summing, V2)
    await call.write(item(2))
    second = await result(call)
    call.cancel()
    fresh.cancel()

    assert (first.prediction.model_version, second.prediction.model_version) == (V1, V2)
    assert sum_of(second) == 13


async def test_a_session_does_not_migrate_to_another_kind_of_state(summing: Bed) -> None:
    """A state of another shape means something else: the session finishes where it began."""
    call, _ = await opened(summing)
    await call.write(item(1))
    await result(call)
    await add_version(summing.worker, V2)
    endpoints = [sum_endpoint({V2: 10_000}, STREAM_POLICY_MIGRATE)]
    versions = [accumulator(1, wanted=False), accumulator(2, state_width=1)]
    await summing.publish(*versions, endpoints=endpoints, revision=2)
    fresh = await until_opened_with(summing, V2)
    await call.write(item(2))
    second = await result(call)
    call.cancel()
    fresh.cancel()

    assert (second.prediction.model_version, sum_of(second)) == (V1, 13)


async def test_a_session_whose_version_was_deleted_says_so(summing: Bed) -> None:
    """Going on with a fresh state would be an answer of no history that looks like one."""
    call, _ = await opened(summing)
    await call.write(item(1))
    await result(call)
    await add_version(summing.worker, V2)
    await summing.publish(accumulator(2, state_width=1), endpoints=[sum_endpoint({V2: 10_000})], revision=2)
    fresh = await until_opened_with(summing, V2)
    await call.write(item(2))
    fresh.cancel()

    assert (await failure_or_error(call)).reason == "SESSION_VERSION_GONE"


async def until_opened_with(bed: Bed, version: str) -> Call:
    """A stream opened once the gateway routes new ones to `version`."""
    async with asyncio.timeout(5):
        while True:
            call, opening = await opened(bed)
            if opening.session.model_version == version:
                return call
            call.cancel()


async def failure_or_error(call: Call) -> InferwayError:
    """The error of the next item, or that of the stream, whichever comes first."""
    try:
        return error_of(await result(call))
    except aio.AioRpcError:
        return await failure_of(call)
