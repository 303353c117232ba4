"""Messages of `inferway.prediction.v1` to asks, and predictions to messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from inferway.datatypes import Datatype
from inferway.errors import ContentsMismatch, InvalidField
from inferway.names import check_alias
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.type.v1 import tensor_pb2
from inferway_gateway.admission import FieldNames, checked_shape, unknown_datatype
from inferway_gateway.contents import pack
from inferway_gateway.envelope import Prediction
from inferway_gateway.routing import Selector, clipped
from inferway_gateway.tensors import OutputTensor, Tensor

FIELD_NAMES = FieldNames(
    endpoint="target.endpoint", signature="target.signature", contents="inputs[{}].raw", output="output_names[{}]"
)
MAX_ID_BYTES = 256
_PREFIX = "DATA_TYPE_"
_DATATYPES = {int(datatype): datatype for datatype in Datatype}
_TYPED_FIELDS: Mapping[Datatype, str] = {
    Datatype.BOOL: "bools",
    **dict.fromkeys((Datatype.INT8, Datatype.INT16, Datatype.INT32, Datatype.INT64), "ints"),
    **dict.fromkeys((Datatype.UINT8, Datatype.UINT16, Datatype.UINT32, Datatype.UINT64), "uints"),
    Datatype.FP32: "floats",
    Datatype.FP64: "doubles",
    Datatype.BYTES: "byte_strings",
}


def selector_of(target: pb.Target) -> Selector:
    """Raises InvalidField, InvalidName."""
    if target.HasField("version"):
        if target.version < 1:
            raise InvalidField.at("target.version", f"{target.version} is no version; they are numbered from 1")
        return Selector(target.endpoint, number=target.version, signature=target.signature)
    if target.HasField("alias"):
        alias = check_alias(target.alias, "target.alias")
        return Selector(target.endpoint, alias=alias, signature=target.signature)
    return Selector(target.endpoint, signature=target.signature)


def checked_id(request_id: str) -> str:
    """Raises InvalidField."""
    if len(request_id) > MAX_ID_BYTES or len(request_id.encode()) > MAX_ID_BYTES:
        raise InvalidField.at("id", f"is longer than {MAX_ID_BYTES} bytes")
    return request_id


def tensors_of(inputs: Iterable[tensor_pb2.Tensor]) -> list[Tensor]:
    """Raises DatatypeMismatch, ShapeMismatch, ContentsMismatch, InvalidField."""
    return [_tensor(source, index) for index, source in enumerate(inputs)]


def timeout_of(timeout: Duration) -> float:
    """Seconds; raises InvalidField."""
    seconds: float = timeout.seconds + timeout.nanos / 1e9
    if seconds <= 0:
        raise InvalidField.at("item.timeout", "must be positive")
    return seconds


def _tensor(source: tensor_pb2.Tensor, index: int) -> Tensor:
    datatype = _DATATYPES.get(source.datatype)
    if datatype is None:
        raise unknown_datatype(str(source.datatype), index, source.name, _PREFIX)
    shape = checked_shape(source.shape, index, source.name)
    kind = source.WhichOneof("contents")
    if kind == "raw":
        return Tensor(source.name, datatype, shape, source.raw)
    if kind is None:
        raise ContentsMismatch.at(
            f"inputs[{index}]", "has no contents", input=clipped(source.name), expected="raw", actual=""
        )
    return Tensor(source.name, datatype, shape, _packed(source, datatype, shape, kind, index))


def _packed(source: tensor_pb2.Tensor, datatype: Datatype, shape: Sequence[int], kind: str, index: int) -> bytes:
    expected = _TYPED_FIELDS.get(datatype, "raw")
    if kind != expected:
        raise ContentsMismatch.at(
            f"inputs[{index}].{kind}",
            f"cannot hold {datatype.name}; use {expected}" + (" or raw" if expected != "raw" else ""),
            input=clipped(source.name),
            expected=expected,
            actual=kind,
        )
    values: Sequence[Any] = getattr(source, kind).values
    return pack(datatype, values, shape, f"inputs[{index}].{kind}", source.name)


def to_response(request_id: str, prediction: Prediction, *, timing: bool) -> pb.PredictResponse:
    """The answer of `Predict`."""
    envelope = prediction.envelope
    response = pb.PredictResponse(
        id=request_id, model_version=envelope.version.name, prediction_id=envelope.prediction_id
    )
    _fill(response, prediction, timing=timing)
    return response


def to_stream_prediction(prediction: Prediction, target: pb.StreamPrediction, *, timing: bool) -> None:
    """Writes the answer to an item into the empty message `target`."""
    target.model_version = prediction.envelope.version.name
    target.prediction_id = prediction.envelope.prediction_id
    _fill(target, prediction, timing=timing)


def _fill(target: pb.PredictResponse | pb.StreamPrediction, prediction: Prediction, *, timing: bool) -> None:
    target.arm = prediction.envelope.arm
    for output in ordered(prediction):
        target.outputs.add(
            name=output.name,
            datatype=output.datatype,
            shape=output.shape,
            raw=output.raw,
        )
    if timing:
        worker = prediction.answer.timing
        target.timing.gateway_queue_us = prediction.gateway_queue_us
        target.timing.worker_wait_us = worker.worker_wait_us
        target.timing.compute_us = worker.compute_us
        target.timing.batch_rows = worker.batch_rows
        target.timing.dispatch_reason = worker.dispatch_reason  # type: ignore[assignment]


def ordered(prediction: Prediction) -> Iterator[OutputTensor]:
    """The outputs in the order asked for, else that of the worker, which is by name."""
    wanted = prediction.envelope.outputs
    if len(wanted) < 2:  # noqa: PLR2004 - one has one order
        return iter(prediction.answer.outputs)
    by_name = {output.name: output for output in prediction.answer.outputs}
    return (by_name[name] for name in wanted)
