"""Fuzz targets: what a client may send, through a door and the gateway's admission, down to the worker's own checks.

The oracle is that there are two: what the gateway admits, the worker may refuse for its bytes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferway.datatypes import ITEM_BYTES, Datatype, element_count
from inferway.errors import InferwayError, InvalidBytesTensor
from inferway.foreign.inference import grpc_service_pb2 as oip
from inferway.prediction.v1 import prediction_service_pb2 as own
from inferway.worker.v1 import worker_service_pb2 as worker
from inferway_gateway.admission import Admitted, FieldNames, admit
from inferway_gateway.doors import oip_messages, prediction_messages
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.tensors import Tensor
from inferway_inference.admission import admit as worker_admit
from inferway_inference.convert import request_of
from inferway_inference.signatures import Signature as WorkerSignature
from inferway_inference.signatures import TensorSpec as WorkerTensorSpec

M = TypeVar("M", bound=Message)
Specs = Mapping[str, tuple[Datatype, tuple[int, ...] | None]]

SHAPES: Sequence[tuple[Specs, Specs]] = (
    ({"x": (Datatype.FP32, (-1, 4))}, {"y": (Datatype.FP32, (-1, 4))}),
    ({"a": (Datatype.INT64, (-1,)), "b": (Datatype.FP16, (-1, 2))}, {"y": (Datatype.FP64, (-1,))}),
    ({"text": (Datatype.BYTES, (-1,))}, {"loud": (Datatype.BYTES, (-1,)), "size": (Datatype.INT32, (-1,))}),
    ({"x": (Datatype.FP64, (3,)), "flag": (Datatype.BOOL, ())}, {"y": (Datatype.FP64, (3,))}),
    ({"any": (Datatype.UINT8, None), "bytes": (Datatype.BYTES, None)}, {"y": (Datatype.UINT8, None)}),
    ({}, {"y": (Datatype.FP32, ())}),
)
"""Inputs and outputs of the signatures that requests are checked against; the first byte of the input chooses one."""
VERSION = "models/fuzzed/versions/1"
MOST_BYTES = 1 << 16


def oip_request(data: bytes) -> None:
    """A `ModelInferRequest`."""
    message = _parsed(oip.ModelInferRequest, data[1:])
    if message is None:
        return
    try:
        oip_messages.parameters_of(message)
        oip_messages.selector_of(message.model_name, message.model_version)
        tensors, names = oip_messages.tensors_of(message)
        outputs = oip_messages.outputs_of(message.outputs)
    except InferwayError:
        return
    _admitted_alike(_choice(data), tensors, outputs, names)


def prediction_request(data: bytes) -> None:
    """A `PredictRequest`."""
    message = _parsed(own.PredictRequest, data[1:])
    if message is None:
        return
    try:
        prediction_messages.selector_of(message.target)
        prediction_messages.checked_id(message.id)
        tensors = prediction_messages.tensors_of(message.inputs)
    except InferwayError:
        return
    _admitted_alike(_choice(data), tensors, list(message.output_names), prediction_messages.FIELD_NAMES)


def link_frame(data: bytes) -> None:
    """A `LinkRequest`, as a worker reads it: from a gateway of another version, or from whoever found the port."""
    message = _parsed(worker.LinkRequest, data[1:])
    if message is None:
        return
    signature = _worker_signature(_choice(data))
    for envelope in message.envelopes.envelopes:
        request = request_of(envelope, lambda *_: None, now=0.0, default_timeout_seconds=10.0)
        try:
            worker_admit(request, {request.signature_name: signature})
        except InferwayError:
            continue
        assert request.rows == request.claimed_rows
        assert len(request.outputs) == len(set(request.outputs))


def _admitted_alike(choice: int, tensors: list[Tensor], outputs: Sequence[str], names: FieldNames) -> None:
    """A signature that has never seen these headers and one that has must say the same."""
    fresh, warm = _signature(choice), _signature(choice)
    _warm_up(warm, tensors, names)
    first, second = (_outcome(signature, tensors, outputs, names) for signature in (fresh, warm))
    assert first == second, "the way by what is remembered says something else"
    if isinstance(first, Admitted):
        assert _outcome(fresh, tensors, outputs, names) == first
        _worker_agrees(choice, first, outputs)


def _warm_up(signature: Signature, tensors: Sequence[Tensor], names: FieldNames) -> None:
    """Lets it see the same headers with as many bytes as they say, and no outputs asked for."""
    sizes = [element_count(tensor.shape) * ITEM_BYTES.get(tensor.datatype, 4) for tensor in tensors]
    if sum(sizes) <= MOST_BYTES:
        right = [tensor._replace(raw=bytes(size)) for tensor, size in zip(tensors, sizes, strict=True)]
        _outcome(signature, right, (), names)


def _outcome(
    signature: Signature, tensors: Sequence[Tensor], outputs: Sequence[str], names: FieldNames
) -> Admitted | str:
    try:
        return admit(signature, tensors, outputs, names)
    except InferwayError as refused:
        return f"{refused.reason}: {refused.message}"


def _worker_agrees(choice: int, admitted: Admitted, outputs: Sequence[str]) -> None:
    envelope = worker.Envelope(id=1, version=VERSION, rows=admitted.rows, remaining_us=1_000, output_names=outputs)
    for name, datatype, shape, raw in admitted.inputs:
        envelope.inputs.add(name=name, datatype=int(datatype), shape=shape, raw=raw)
    received = worker.Envelope.FromString(envelope.SerializeToString())
    request = request_of(received, lambda *_: None, now=0.0, default_timeout_seconds=10.0)
    try:
        worker_admit(request, {request.signature_name: _worker_signature(choice)})
    except InvalidBytesTensor:
        return
    assert request.byte_count == admitted.byte_count


def _parsed(kind: type[M], data: bytes) -> M | None:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def _choice(data: bytes) -> int:
    return int.from_bytes(data[:1], "big")


def _signature(choice: int) -> Signature:
    inputs, outputs = SHAPES[choice % len(SHAPES)]
    return Signature(
        "serving_default",
        tuple(TensorSpec(name, *inputs[name]) for name in sorted(inputs)),
        tuple(TensorSpec(name, *outputs[name]) for name in sorted(outputs)),
    )


def _worker_signature(choice: int) -> WorkerSignature:
    inputs, outputs = SHAPES[choice % len(SHAPES)]
    return WorkerSignature.of(
        "serving_default",
        [WorkerTensorSpec(name, *inputs[name]) for name in inputs],
        [WorkerTensorSpec(name, *outputs[name]) for name in outputs],
    )
