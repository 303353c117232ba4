"""Every line of bad input: a typed error that names the field, and nothing else suffers."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.status_pb2 import Status
from grpc import aio

from inferway import errors
from inferway.foreign.inference import grpc_service_pb2 as oip
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.status import from_status
from inferway.type.v1 import tensor_pb2
from tests.testbed.processes import ServiceProcess

ROW = np.ones((1, 32), "<f4").tobytes()
Input = oip.ModelInferRequest.InferInputTensor
Output = oip.ModelInferRequest.InferRequestedOutputTensor
Contents = oip.InferTensorContents


def tensor(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (1, 32), **more: Any) -> Any:
    return Input(name=name, datatype=datatype, shape=list(shape), **more)


def request(
    *inputs: Any, raw: tuple[bytes, ...] = (ROW,), model: str = "tiny", version: str = "", outputs: tuple[str, ...] = ()
) -> oip.ModelInferRequest:
    return oip.ModelInferRequest(
        model_name=model,
        model_version=version,
        inputs=inputs or (tensor(),),
        raw_input_contents=raw,
        outputs=[Output(name=name) for name in outputs],
    )


@dataclass(frozen=True)
class Case:
    """A bad request and what its caller must be told."""

    request: oip.ModelInferRequest
    error: type[errors.InferwayError]
    field: str = field(default="inputs[0]")


CASES = {
    "wrong datatype": Case(request(tensor(datatype="FP64")), errors.DatatypeMismatch),
    "unknown datatype": Case(request(tensor(datatype="FP31")), errors.DatatypeMismatch),
    "wrong shape": Case(request(tensor(shape=(1, 31))), errors.ShapeMismatch),
    "wrong rank": Case(request(tensor(shape=(32,))), errors.ShapeMismatch),
    "negative dimension": Case(request(tensor(shape=(-1, 32))), errors.ShapeMismatch),
    "100,000 dimensions": Case(request(tensor(shape=(1,) * 100_000)), errors.ShapeMismatch),
    "overflowing product": Case(request(tensor(shape=(2**62, 32))), errors.ContentsMismatch, "raw_input_contents[0]"),
    "too few bytes": Case(request(raw=(ROW[:-1],)), errors.ContentsMismatch, "raw_input_contents[0]"),
    "too many bytes": Case(request(raw=(ROW + b"x",)), errors.ContentsMismatch, "raw_input_contents[0]"),
    "too few raw contents": Case(request(raw=()), errors.ContentsMismatch),
    "too many raw contents": Case(request(raw=(ROW, ROW)), errors.ContentsMismatch, "raw_input_contents"),
    "missing input": Case(
        request(tensor("a", "INT64", (1,)), raw=(bytes(8),), model="mixed"), errors.MissingInput, "inputs"
    ),
    "extra input": Case(request(tensor(), tensor("z"), raw=(ROW, ROW)), errors.UnknownInput, "inputs[1]"),
    "doubled input": Case(request(tensor(), tensor(), raw=(ROW, ROW)), errors.DuplicateInput, "inputs[1]"),
    "unknown output": Case(request(outputs=("z",)), errors.UnknownOutput, "outputs[0]"),
    "raw and typed together": Case(request(tensor(contents=Contents(fp32_contents=[1.0] * 32))), errors.MixedContents),
    "typed contents of the wrong kind": Case(
        request(tensor(contents=Contents(int_contents=[1] * 32)), raw=()), errors.ContentsMismatch
    ),
    "typed contents of the wrong length": Case(
        request(tensor(contents=Contents(fp32_contents=[1.0] * 31)), raw=()), errors.ContentsMismatch
    ),
    "string lengths that lie": Case(
        request(tensor("text", "BYTES", (1,)), raw=(struct.pack("<I", 100) + b"short",), model="shout"),
        errors.InvalidBytesTensor,
        'inputs["text"]',
    ),
    "fewer strings than the shape says": Case(
        request(tensor("text", "BYTES", (2,)), raw=(struct.pack("<I", 1) + b"a",), model="shout"),
        errors.InvalidBytesTensor,
        "raw_input_contents[0]",
    ),
    "empty batch": Case(request(tensor(shape=(0, 32)), raw=(b"",)), errors.InvalidBatch, "inputs"),
    "rows that differ between inputs": Case(
        request(
            tensor("a", "INT64", (1,)),
            tensor("b", "FP16", (2, 2)),
            tensor("c", "BOOL", (1,)),
            raw=(bytes(8), bytes(8), bytes(1)),
            model="mixed",
        ),
        errors.InvalidBatch,
        "inputs",
    ),
    "a path as a name": Case(request(model="../../etc/passwd"), errors.InvalidName, "model_name"),
    "a name of 10 kB": Case(request(model="a" * 10_000), errors.InvalidName, "model_name"),
    "a path as a version": Case(request(version="../1"), errors.InvalidName, "model_version"),
}


NOT_FOUND = {
    "model": (request(model="nothing"), errors.EndpointNotFound, {"endpoint": "nothing"}),
    "version": (request(version="99"), errors.VersionNotFound, {"model": "tiny", "version": "99"}),
    "alias": (request(version="champion"), errors.AliasNotFound, {"model": "tiny", "alias": "champion"}),
}


@pytest.fixture
async def channel(gateway: ServiceProcess) -> AsyncIterator[aio.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with aio.insecure_channel(gateway.target, options=options) as channel:
        yield channel


def infer(channel: aio.Channel) -> Any:
    return channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=oip.ModelInferResponse.FromString,
    )


def decoded(error: aio.AioRpcError) -> errors.InferwayError:
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    return from_status(Status.FromString(details))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_bad_input_gets_a_typed_error_that_names_the_field(channel: aio.Channel, case: Case) -> None:
    """The caller learns what was wrong, where, and what to do; nobody has to read a server's log."""
    with pytest.raises(aio.AioRpcError) as failed:
        await infer(channel)(case.request, timeout=10)

    error = decoded(failed.value)
    assert type(error) is case.error
    assert any(case.field in violation.field for violation in error.violations), error.violations
    assert len(error.message) < 500


@pytest.mark.parametrize(("wanted", "kind", "metadata"), NOT_FOUND.values(), ids=NOT_FOUND)
async def test_what_does_not_exist_is_named(
    channel: aio.Channel, wanted: oip.ModelInferRequest, kind: type[errors.NotFound], metadata: dict[str, str]
) -> None:
    """A program reads from the metadata which of the names it gave is unknown."""
    with pytest.raises(aio.AioRpcError) as failed:
        await infer(channel)(wanted, timeout=10)

    error = decoded(failed.value)
    assert type(error) is kind
    assert error.metadata == metadata


async def test_bad_requests_harm_no_neighbour(channel: aio.Channel) -> None:
    """All the bad ones and a good one between each, at once."""
    call = infer(channel)
    good = [call(request(), timeout=20) for _ in CASES]
    bad = [call(case.request, timeout=20) for case in CASES.values()]
    for each in bad:
        with pytest.raises(aio.AioRpcError):
            await each

    for each in good:
        assert (await each).model_version == "1"


async def test_a_poison_row_fails_alone(channel: aio.Channel) -> None:
    """Requests that share a batch with one that makes the model fail still get their answers."""

    def row(value: float) -> oip.ModelInferRequest:
        data = np.full((1, 2), value, "<f4").tobytes()
        return request(tensor(shape=(1, 2)), raw=(data,), model="fussy")

    calls = [infer(channel)(row(5000.0 if number == 7 else number), timeout=20) for number in range(30)]
    outcomes: list[Any] = []
    for call in calls:
        try:
            outcomes.append(np.frombuffer((await call).raw_output_contents[0], "<f4").tolist())
        except aio.AioRpcError as failed:
            outcomes.append(decoded(failed))

    assert isinstance(outcomes.pop(7), errors.ModelFailed)
    assert outcomes == [[float(n)] * 2 for n in range(30) if n != 7]


async def test_malformed_protobuf_is_refused(channel: aio.Channel) -> None:
    """Bytes that are no message are the sender's fault, not ours."""
    with pytest.raises(aio.AioRpcError) as failed:
        await infer(channel)(b"\xff" * 20, timeout=10)

    assert isinstance(decoded(failed.value), errors.MalformedMessage)


async def test_a_message_over_the_limit_is_refused_by_grpc(channel: aio.Channel) -> None:
    """64 MiB is the documented bound; beyond it memory is not even allocated."""
    with pytest.raises(aio.AioRpcError) as failed:
        await infer(channel)(bytes(65 * 1024 * 1024), timeout=30)

    assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_large_request_below_the_limit_is_served(channel: aio.Channel) -> None:
    """Large tensors go another way than small ones; both arrive."""
    rows = 200_000
    data = np.zeros((rows, 32), "<f4").tobytes()
    answer = await infer(channel)(request(tensor(shape=(rows, 32)), raw=(data,)), timeout=60)

    assert list(answer.outputs[0].shape) == [rows, 1]


def item(identifier: int, width: int = 32) -> pb.StreamPredictRequest:
    made = tensor_pb2.Tensor(name="x", datatype=tensor_pb2.DATA_TYPE_FP32, shape=[1, width], raw=bytes(4 * width))
    return pb.StreamPredictRequest(item=pb.StreamItem(id=identifier, inputs=[made]))


OPEN = pb.StreamPredictRequest(open=pb.StreamOpen(target=pb.Target(endpoint="tiny")))


@pytest.mark.parametrize(
    "messages",
    [[item(1)], [OPEN, OPEN], [pb.StreamPredictRequest()], [OPEN, pb.StreamPredictRequest()]],
    ids=["item first", "opened twice", "nothing first", "nothing later"],
)
async def test_a_stream_that_breaks_the_protocol_is_ended_with_the_reason(
    channel: aio.Channel, messages: list[pb.StreamPredictRequest]
) -> None:
    """The stream cannot be understood any more, so it ends, and says why."""
    stream = PredictionServiceStub(channel).StreamPredict(iter(messages), timeout=10)
    with pytest.raises(aio.AioRpcError) as failed:
        async for _ in stream:
            pass

    assert isinstance(decoded(failed.value), errors.StreamProtocolViolated)


async def test_a_bad_item_never_ends_the_stream(channel: aio.Channel) -> None:
    """A sensor that sends one broken reading goes on streaming."""
    messages = [OPEN, item(1), item(2, width=31), item(3), item(4, width=0), item(5)]
    stream = PredictionServiceStub(channel).StreamPredict(iter(messages), timeout=20)
    results = {m.result.id: m.result async for m in stream if m.HasField("result")}

    outcomes = {identifier: result.WhichOneof("outcome") for identifier, result in results.items()}
    assert outcomes == {1: "prediction", 2: "error", 3: "prediction", 4: "error", 5: "prediction"}
    assert isinstance(from_status(results[2].error), errors.ShapeMismatch)


async def test_every_item_is_answered_after_half_close(channel: aio.Channel) -> None:
    """A client that is done sending still wants its answers."""
    messages = [OPEN, *(item(number) for number in range(1, 21))]
    stream = PredictionServiceStub(channel).StreamPredict(iter(messages), timeout=20)
    answered = sorted([m.result.id async for m in stream if m.HasField("result")])

    assert answered == list(range(1, 21))


async def test_an_expired_deadline_is_answered_as_such_and_costs_nothing_more(channel: aio.Channel) -> None:
    """DEADLINE_EXCEEDED, within a moment of the deadline."""
    with pytest.raises(aio.AioRpcError) as failed:
        await infer(channel)(request(), timeout=0.0001)

    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
