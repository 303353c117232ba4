"""Every kind of bad input gets its own typed error that names the field, and harms nobody else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from grpc import StatusCode, aio

from inferway.foreign.inference import grpc_service_pb2 as oip
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.type.v1.tensor_pb2 import (
    DATA_TYPE_FP16,
    DATA_TYPE_FP32,
    DATA_TYPE_INT8,
    DATA_TYPE_INT32,
    FloatArray,
    Int64Array,
    Tensor,
)
from tests.integration.gateway.conftest import Bed
from tests.integration.gateway.requests import ROW, predict_request, refusal_of, tensor
from tests.integration.gateway.snapshots import FP16, INT8, signature, spec, version

PREDICT: dict[str, tuple[pb.PredictRequest, str, str]] = {
    "unknown endpoint": (predict_request("nobody"), "ENDPOINT_NOT_FOUND", ""),
    "no endpoint": (predict_request(""), "INVALID_NAME", "target.endpoint"),
    "name with ..": (predict_request("../../etc/passwd"), "INVALID_NAME", "target.endpoint"),
    "name of 10 kB": (predict_request("a" * 10_000), "INVALID_NAME", "target.endpoint"),
    "unknown version": (predict_request(target=pb.Target(endpoint="echo", version=9)), "VERSION_NOT_FOUND", ""),
    "version 0": (predict_request(target=pb.Target(endpoint="echo", version=0)), "INVALID_FIELD", "target.version"),
    "unknown alias": (predict_request(target=pb.Target(endpoint="echo", alias="best")), "ALIAS_NOT_FOUND", ""),
    "hostile alias": (predict_request(target=pb.Target(endpoint="echo", alias="../x")), "INVALID_NAME", "target.alias"),
    "unknown signature": (
        predict_request(target=pb.Target(endpoint="echo", signature="train")),
        "UNKNOWN_SIGNATURE",
        "target.signature",
    ),
    "missing input": (predict_request(inputs=[]), "MISSING_INPUT", "inputs"),
    "extra input": (predict_request(inputs=[tensor(), tensor("z")]), "UNKNOWN_INPUT", "inputs[1].name"),
    "doubled input": (predict_request(inputs=[tensor(), tensor()]), "DUPLICATE_INPUT", "inputs[1].name"),
    "unknown output": (predict_request(output_names=["z"]), "UNKNOWN_OUTPUT", "output_names[0]"),
    "doubled output": (predict_request(output_names=["y", "y"]), "INVALID_FIELD", "output_names[1]"),
    "wrong datatype": (
        predict_request(inputs=[tensor(datatype=DATA_TYPE_INT32)]),
        "DATATYPE_MISMATCH",
        "inputs[0].datatype",
    ),
    "datatype from the future": (
        predict_request(inputs=[tensor(datatype=99)]),
        "DATATYPE_MISMATCH",
        "inputs[0].datatype",
    ),
    "no datatype": (predict_request(inputs=[tensor(datatype=0)]), "DATATYPE_MISMATCH", "inputs[0].datatype"),
    "wrong rank": (predict_request(inputs=[tensor(shape=(4,))]), "SHAPE_MISMATCH", "inputs[0].shape"),
    "wrong size": (predict_request(inputs=[tensor(shape=(1, 5))]), "SHAPE_MISMATCH", "inputs[0].shape"),
    "negative dimension": (predict_request(inputs=[tensor(shape=(-1, 4))]), "SHAPE_MISMATCH", "inputs[0].shape"),
    "100,000 dimensions": (predict_request(inputs=[tensor(shape=(1,) * 100_000)]), "SHAPE_MISMATCH", "inputs[0].shape"),
    "overflowing product": (predict_request(inputs=[tensor(shape=(2**62, 4))]), "CONTENTS_MISMATCH", "inputs[0].raw"),
    "too few bytes": (predict_request(inputs=[tensor(raw=ROW[:-1])]), "CONTENTS_MISMATCH", "inputs[0].raw"),
    "too many bytes": (predict_request(inputs=[tensor(raw=ROW + b"0")]), "CONTENTS_MISMATCH", "inputs[0].raw"),
    "no contents": (
        predict_request(inputs=[Tensor(name="x", datatype=DATA_TYPE_FP32, shape=[1, 4])]),
        "CONTENTS_MISMATCH",
        "inputs[0]",
    ),
    "too few elements": (
        predict_request(
            inputs=[Tensor(name="x", datatype=DATA_TYPE_FP32, shape=[1, 4], floats=FloatArray(values=[1.0]))]
        ),
        "CONTENTS_MISMATCH",
        "inputs[0].floats",
    ),
    "contents of another type": (
        predict_request(
            inputs=[Tensor(name="x", datatype=DATA_TYPE_FP32, shape=[1, 4], ints=Int64Array(values=[1, 2, 3, 4]))]
        ),
        "CONTENTS_MISMATCH",
        "inputs[0].ints",
    ),
    "empty batch": (predict_request(inputs=[tensor(raw=b"", shape=(0, 4))]), "INVALID_BATCH", "inputs"),
    "long id": (predict_request(id="a" * 257), "INVALID_FIELD", "id"),
}


@pytest.mark.parametrize("case", PREDICT)
async def test_our_door_names_what_is_wrong(bed: Bed, case: str) -> None:
    """A caller must be able to repair the request from the answer alone."""
    request, reason, field = PREDICT[case]

    error = await refusal_of(bed.stub.Predict(request, timeout=5))

    assert error.reason == reason
    assert [violation.field for violation in error.violations] == ([field] if field else [])
    assert ("input" in error.metadata) == field.startswith("inputs")
    assert len(error.message) < 500
    assert bed.worker.received == []


def infer_request(change: Callable[[oip.ModelInferRequest], Any] = lambda _: None) -> oip.ModelInferRequest:
    """A good request of the Open Inference Protocol, but for `change`."""
    request = oip.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(ROW)
    change(request)
    return request


def typed(field: str, values: list[Any], datatype: str = "FP32") -> Callable[[oip.ModelInferRequest], None]:
    def change(request: oip.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        request.inputs[0].datatype = datatype
        getattr(request.inputs[0].contents, field).extend(values)

    return change


def parameter(name: str, **value: Any) -> Callable[[oip.ModelInferRequest], None]:
    def change(request: oip.ModelInferRequest) -> None:
        request.parameters[name].CopyFrom(oip.InferParameter(**value))

    return change


INFER: dict[str, tuple[Callable[[oip.ModelInferRequest], Any], str, str]] = {
    "raw and typed": (
        lambda r: r.inputs[0].contents.fp32_contents.extend([1.0]),
        "MIXED_CONTENTS",
        "inputs[0].contents",
    ),
    "too few raw entries": (
        lambda r: r.inputs.add(name="y", datatype="FP32"),
        "CONTENTS_MISMATCH",
        "raw_input_contents",
    ),
    "too few raw bytes": (
        lambda r: r.raw_input_contents.__setitem__(0, b""),
        "CONTENTS_MISMATCH",
        "raw_input_contents[0]",
    ),
    "no datatype of that name": (
        lambda r: setattr(r.inputs[0], "datatype", "FLOAT"),
        "DATATYPE_MISMATCH",
        "inputs[0].datatype",
    ),
    "typed field of another type": (
        typed("int_contents", [1, 2, 3, 4]),
        "CONTENTS_MISMATCH",
        "inputs[0].contents.int_contents",
    ),
    "typed FP16": (typed("fp32_contents", [1.0], "FP16"), "CONTENTS_MISMATCH", "inputs[0].contents"),
    "too many typed elements": (
        typed("fp32_contents", [1.0] * 5),
        "CONTENTS_MISMATCH",
        "inputs[0].contents.fp32_contents",
    ),
    "version that is neither number nor alias": (
        lambda r: setattr(r, "model_version", "0"),
        "INVALID_NAME",
        "model_version",
    ),
    "unknown output": (lambda r: r.outputs.add(name="z"), "UNKNOWN_OUTPUT", "outputs[0].name"),
    "unknown signature": (parameter("signature", string_param="z"), "UNKNOWN_SIGNATURE", "parameters[signature]"),
    "timeout that is text": (parameter("timeout", string_param="1"), "INVALID_PARAMETER", "parameters[timeout]"),
    "negative timeout": (parameter("timeout", int64_param=-1), "INVALID_PARAMETER", "parameters[timeout]"),
    "timing that is a number": (
        parameter("inferway_timing", int64_param=1),
        "INVALID_PARAMETER",
        "parameters[inferway_timing]",
    ),
    "sequence that is a flag": (
        parameter("sequence_id", bool_param=True),
        "INVALID_PARAMETER",
        "parameters[sequence_id]",
    ),
    "sequence with a long name": (
        parameter("sequence_id", string_param="s" * 129),
        "INVALID_PARAMETER",
        "parameters[sequence_id]",
    ),
    "start of a sequence that is a number": (
        parameter("sequence_start", int64_param=1),
        "INVALID_PARAMETER",
        "parameters[sequence_start]",
    ),
    "shared memory": (
        lambda r: r.inputs[0].parameters["shared_memory_region"].CopyFrom(oip.InferParameter(string_param="r")),
        "NOT_SUPPORTED",
        "",
    ),
    "classification": (
        lambda r: r.outputs.add(name="y").parameters["classification"].CopyFrom(oip.InferParameter(int64_param=3)),
        "NOT_SUPPORTED",
        "",
    ),
}


@pytest.mark.parametrize("case", INFER)
async def test_the_open_inference_door_names_what_is_wrong(bed: Bed, case: str) -> None:
    """The same checks in the words of the other protocol."""
    change, reason, field = INFER[case]

    error = await refusal_of(infer(bed, infer_request(change)))

    assert error.reason == reason
    assert [violation.field for violation in error.violations] == ([field] if field else [])
    assert ("input" in error.metadata) == field.startswith(("inputs", "raw_input_contents["))
    assert bed.worker.received == []


def infer(bed: Bed, request: oip.ModelInferRequest) -> aio.UnaryUnaryCall[Any, oip.ModelInferResponse]:
    """Calls ModelInfer on its public path."""
    method = bed.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )
    return method(request, timeout=5)


async def test_metadata_repeats_names_as_they_were_given(bed: Bed) -> None:
    """Programs compare them with what they sent; only messages put quotes around them, and both are bounded."""
    unknown = await refusal_of(bed.stub.Predict(predict_request(inputs=[tensor("z'")]), timeout=5))
    endless = await refusal_of(bed.stub.Predict(predict_request(inputs=[tensor("z" * 10_000)]), timeout=5))

    assert unknown.metadata["input"] == "z'"
    assert len(endless.metadata["input"]) < 300


async def test_each_protocol_lists_the_datatypes_by_its_own_names(bed: Bed) -> None:
    """What the message offers can be pasted into the request."""
    ours = await refusal_of(bed.stub.Predict(predict_request(inputs=[tensor(datatype=99)]), timeout=5))
    open_inference = await refusal_of(infer(bed, infer_request(lambda r: setattr(r.inputs[0], "datatype", "FLOAT"))))

    assert (ours.metadata["actual"], open_inference.metadata["actual"]) == ("99", "FLOAT")
    assert "DATA_TYPE_FP32" in ours.message
    assert " FP32" in open_inference.message


async def test_a_typed_element_that_does_not_fit_is_named_by_its_index(bed: Bed) -> None:
    """INT8 travels as int32, so the range is ours to check."""
    await bed.publish(version(1, signatures=[signature(spec("n", datatype=INT8))]), revision=2)
    await bed.until_signature_has("n")
    source = Tensor(name="n", datatype=DATA_TYPE_INT8, shape=[1, 4], ints=Int64Array(values=[1, 2, 128, 4]))

    error = await refusal_of(bed.stub.Predict(predict_request(inputs=[source]), timeout=5))

    assert error.reason == "INVALID_FIELD"
    assert "element 2 is 128" in error.message


async def test_inputs_with_different_numbers_of_rows_are_refused(bed: Bed) -> None:
    """Rows of a batch belong together."""
    await bed.publish(version(1, signatures=[signature(spec("a"), spec("b"))]), revision=2)
    await bed.until_signature_has("b")

    error = await refusal_of(
        bed.stub.Predict(predict_request(inputs=[tensor("a"), tensor("b", ROW + ROW, (2, 4))]), timeout=5)
    )

    assert error.reason == "INVALID_BATCH"


async def test_typed_contents_reach_the_worker_as_raw_bytes(bed: Bed) -> None:
    """The worker knows one form only."""
    response = await infer(bed, infer_request(typed("fp32_contents", [1, 2, 3, 4])))

    assert response.raw_output_contents[0] == ROW
    assert bed.worker.received[0].inputs[0].raw == ROW


async def test_half_precision_travels_raw(bed: Bed) -> None:
    """FP16 has no typed form in either protocol."""
    await bed.publish(version(1, signatures=[signature(spec("h", datatype=FP16))]), revision=2)
    await bed.until_signature_has("h")
    half = struct.pack("<4e", 1, 2, 3, 4)

    response = await bed.stub.Predict(predict_request(inputs=[tensor("h", half, datatype=DATA_TYPE_FP16)]), timeout=5)

    assert response.outputs[0].raw == half


def raw_call(bed: Bed, path: str) -> aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """A method that takes whatever bytes it is given."""
    method: aio.UnaryUnaryMultiCallable[bytes, bytes] = bed.channel.unary_unary(
        f"/{path}", request_serializer=bytes, response_deserializer=bytes
    )
    return method


async def test_bytes_that_are_no_message_are_refused_as_malformed(bed: Bed) -> None:
    """What fuzzers and confused clients send."""
    for path in ("inferway.prediction.v1.PredictionService/Predict", "inference.GRPCInferenceService/ModelInfer"):
        error = await refusal_of(raw_call(bed, path)(b"\xff\xff\xff", timeout=5))

        assert error.reason == "MALFORMED_MESSAGE"


async def test_a_message_over_the_limit_is_refused_by_grpc_and_the_next_call_works(bed: Bed) -> None:
    """The limit of a message is the transport's, and so is the answer."""
    with pytest.raises(aio.AioRpcError) as caught:
        await raw_call(bed, "inference.GRPCInferenceService/ModelInfer")(b"0" * (65 << 20), timeout=10)

    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    assert (await bed.stub.Predict(predict_request(), timeout=5)).outputs


async def test_headers_are_checked_like_fields(bed: Bed) -> None:
    """A criticality that does not exist must not silently become the default."""
    error = await refusal_of(bed.stub.Predict(predict_request(), timeout=5, metadata=[("x-criticality", "urgent")]))

    assert error.reason == "INVALID_PARAMETER"
