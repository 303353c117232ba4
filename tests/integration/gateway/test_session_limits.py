"""What one client of a session may cost the gateway and everybody else, whatever it sends or leaves out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferway.foreign.inference import grpc_service_pb2 as oip
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.registry.v1.resources_pb2 import STREAM_POLICY_MIGRATE
from tests.integration.gateway.accumulator import accumulate, accumulator, item, sum_endpoint, sum_of
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.snapshots import signature, spec, version
from tests.integration.gateway.test_sessions import (
    V1,
    V2,
    Call,
    acknowledge,
    add_version,
    error_of,
    failure_of,
    message,
    opened,
    result,
    resumed,
    summing,
    until_opened_with,
)

__all__ = ["summing"]  # a fixture


async def test_a_client_that_never_acknowledges_is_cut_off(summing: Bed) -> None:
    """Refusals are kept like answers: without an end, one client would fill the memory of the gateway and the store."""
    call, opening = await opened(summing, resumable=True, max_in_flight=4)
    bad = [pb.StreamItem(id=number) for number in range(1, 1001)]
    await call.write(pb.StreamPredictRequest(items=pb.StreamItems(items=bad)))
    failure = await failure_of(call)
    call, again = await resumed(summing, opening.session.resume_token)
    await call.done_writing()
    kept = [response.result.id async for response in _responses(call)]

    assert failure.reason == "TOO_MANY_CONCURRENT"
    assert len(kept) <= 8
    assert again.session.applied_item == (kept[-1] if kept else 0)


async def test_results_share_a_message_only_while_any_client_can_take_it(summing: Bed) -> None:
    """By default gRPC takes 4 MiB: a client that got more at once could never resume its session again."""
    call, opening = await opened(summing, resumable=True, max_results_per_message=1024)
    for item_id in range(1, 20):
        await call.write(item(item_id, rows=50_000))
    await call.done_writing()
    assert len([response async for response in _responses(call)]) > 1
    resume = pb.SessionResume(token=opening.session.resume_token)
    call, _ = await opened(summing, resumable=True, max_results_per_message=1024, resume=resume)
    await call.done_writing()
    ids = [each.id async for response in _responses(call) for each in response.results.results]

    assert ids == list(range(1, 20))


async def test_a_session_computes_nothing_while_its_client_lacks_too_many_bytes(summing: Bed) -> None:
    """What is kept for it is written with every commit; a client that is slow to acknowledge is slowed down."""
    call, _ = await opened(summing, resumable=True)
    for item_id in range(1, 26):
        await call.write(item(item_id, rows=50_000))
    for _ in range(21):
        assert (await result(call)).HasField("prediction")
    computed = len(summing.worker.received)
    await call.write(acknowledge(21))
    rest = [await result(call) for _ in range(4)]

    assert computed == 21, "4 MiB, and one more"
    assert [one.id for one in rest] == [22, 23, 24, 25]


async def test_a_first_item_of_too_many_rows_is_refused_before_its_state_is_made(summing: Bed) -> None:
    """A row may cost its sender four bytes and its state thousands: the gateway would run out of memory."""
    call, _ = await opened(summing)
    await call.write(item(1, rows=200_000))
    await call.write(item(2))

    assert error_of(await result(call)).reason == "SESSION_STATE_TOO_LARGE"
    assert sum_of(await result(call)) == 12
    assert len(summing.worker.received) == 1


async def test_what_waits_for_its_turn_in_all_sessions_is_bounded(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """Of a session one item is on its way: what is behind it must not be all that a client likes to send."""
    settings = settings_for(tmp_path, registry.target, max_held_bytes=100_000)
    async with gateway(settings, registry, worker) as bed:
        worker.compute = accumulate
        await add_version(worker, V1)
        await bed.publish(accumulator(), endpoints=[sum_endpoint()])
        await bed.until_health_is("model/sum", serving=True)
        worker.hold()
        one, _ = await opened(bed)
        await one.write(item(1, rows=10_000))
        await one.write(item(2, rows=10_000))
        await worker.until(lambda w: len(w.received) == 1)
        other, _ = await opened(bed)
        await other.write(item(1, rows=10_000))
        refused = error_of(await result(other))
        await worker.release()
        answers = [await result(one), await result(one)]
        await other.write(item(2, rows=10_000))
        after = await result(other)
        one.cancel()
        other.cancel()

    assert refused.reason == "MEMORY_PRESSURE"
    assert [sum_of(answer) for answer in (*answers, after)] == [11, 13, 12]


async def test_a_session_keeps_its_arm_when_it_is_resumed(summing: Bed) -> None:
    """A client that reconnects must not change sides in a comparison of two versions, nor lose the one that it has."""
    await add_version(summing.worker, V2)
    endpoints = [sum_endpoint({V1: 5000, V2: 5000}, STREAM_POLICY_MIGRATE)]
    await summing.publish(accumulator(1), accumulator(2), endpoints=endpoints, revision=2)
    (await until_opened_with(summing, V2)).cancel()
    call, opening = await opened(summing, resumable=True)
    answered_by = set()
    for item_id in range(1, 11):
        await call.write(item(item_id))
        prediction = (await result(call)).prediction
        answered_by.add((prediction.model_version, prediction.arm))
        call.cancel()
        call, _ = await resumed(summing, opening.session.resume_token, acknowledged=item_id)
    call.cancel()

    assert len(answered_by) == 1
    assert {name for name, _ in answered_by} == {opening.session.model_version}


@pytest.mark.parametrize("change", ["tenant", "signature"])
async def test_a_token_in_wrong_hands_does_not_disturb_its_session(summing: Bed, change: str) -> None:
    """It opens nothing there, and must not take the session from its owner either."""
    call, opening = await opened(summing, resumable=True)
    await call.write(item(1))
    await result(call)
    metadata = (("x-tenant", "other"),) if change == "tenant" else ()
    target = pb.Target(endpoint="sum", signature="serving_default" if change == "signature" else "")
    refused = await _resumed_with(summing, opening.session.resume_token, target, *metadata)
    await call.write(item(2))

    assert (await failure_of(refused)).reason == "SESSION_NOT_FOUND"
    assert sum_of(await result(call)) == 13


async def test_no_token_opens_a_sequence(summing: Bed) -> None:
    """The ids of sequences are no secrets: whoever knows one must not get at its state by the other door."""
    infer = summing.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )
    request = oip.ModelInferRequest(model_name="sum", raw_input_contents=[bytes(4)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    request.parameters["sequence_id"].int64_param = 7
    request.parameters["sequence_start"].bool_param = True
    await infer(request, timeout=5)
    parts = ("", "sum", 0, "", "", 7)
    calls = [
        await _resumed_with(summing, json.dumps(token), pb.Target(endpoint="sum", signature="serving_default"))
        for token in (parts, ("sequence", *parts))
    ]

    assert [(await failure_of(call)).reason for call in calls] == ["SESSION_NOT_FOUND"] * 2


async def test_a_stream_whose_model_begins_to_keep_state_is_asked_to_end(summing: Bed) -> None:
    """It has no session, so none of its items would be answered any more; the next stream has one."""
    third = "models/sum/versions/3"
    stateless = version(3, "sum", [signature(spec("x", (-1, 1)), outputs=[spec("y", (-1, 1))])])
    await add_version(summing.worker, third)
    await summing.publish(accumulator(), stateless, endpoints=[sum_endpoint({third: 10_000})], revision=2)
    call = await _opened_without_session(summing)
    await summing.publish(accumulator(), stateless, endpoints=[sum_endpoint({V1: 10_000})], revision=3)

    assert (await message(call)).HasField("drain")
    call.cancel()


async def _opened_without_session(bed: Bed) -> Call:
    while True:
        call, opening = await opened(bed)
        if not opening.HasField("session"):
            return call
        call.cancel()


async def _resumed_with(bed: Bed, token: str, target: pb.Target, *metadata: tuple[str, str]) -> Call:
    call: Call = bed.stub.StreamPredict(timeout=5, metadata=metadata)
    opening = pb.StreamOpen(target=target, acknowledges_results=True, resume=pb.SessionResume(token=token))
    await call.write(pb.StreamPredictRequest(open=opening))
    return call


async def _responses(call: Call) -> AsyncIterator[pb.StreamPredictResponse]:
    while isinstance(response := await call.read(), pb.StreamPredictResponse):
        yield response
