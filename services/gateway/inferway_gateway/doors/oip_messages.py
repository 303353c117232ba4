"""Inference messages of the Open Inference Protocol to asks, and predictions to messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from inferway.datatypes import Datatype
from inferway.errors import ContentsMismatch, InvalidParameter, MixedContents, NotSupported
from inferway.foreign.inference import grpc_service_pb2 as pb
from inferway.names import check_alias
from inferway.type.v1 import tensor_pb2
from inferway_gateway.admission import FieldNames, checked_shape, unknown_datatype
from inferway_gateway.contents import pack
from inferway_gateway.doors.prediction_messages import checked_id, ordered
from inferway_gateway.envelope import Prediction
from inferway_gateway.routing import Selector, clipped
from inferway_gateway.sessions.sequence import Correlation
from inferway_gateway.tensors import Tensor

_RAW_NAMES = FieldNames("model_name", "parameters[signature]", "raw_input_contents[{}]", "outputs[{}].name")
_TYPED_NAMES = _RAW_NAMES._replace(contents="inputs[{}].contents")
_DATATYPES = {datatype.name: datatype for datatype in Datatype}
_DATATYPE_NAMES = {int(datatype): datatype.name for datatype in Datatype}
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_TYPED_FIELDS: Mapping[Datatype, str] = {
    Datatype.BOOL: "bool_contents",
    **dict.fromkeys((Datatype.INT8, Datatype.INT16, Datatype.INT32), "int_contents"),
    Datatype.INT64: "int64_contents",
    **dict.fromkeys((Datatype.UINT8, Datatype.UINT16, Datatype.UINT32), "uint_contents"),
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}
_INTEGER = ("int64_param", "uint64_param")
_PARAMETER_KINDS: Mapping[str, Sequence[str]] = {
    "signature": ("string_param",),
    "timeout": _INTEGER,
    "priority": _INTEGER,
    "sequence_id": (*_INTEGER, "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "binary_data_output": ("bool_param",),
    "triton_enable_empty_final_response": ("bool_param",),
    "inferway_timing": ("bool_param",),
    "inferway_affinity_key": ("string_param",),
}
"""Parameters of a request that mean something here, and the types they may have; others are let through unread."""
_MAX_ID_CHARACTERS = 128
"""Of a string `sequence_id`, as in Triton."""
_MOST_CRITICAL, _LEAST_CRITICAL = 1, 4
_DISPATCH_REASONS: Mapping[int, str] = {
    tensor_pb2.DISPATCH_REASON_FULL: "full",
    tensor_pb2.DISPATCH_REASON_IDLE: "idle",
    tensor_pb2.DISPATCH_REASON_DEADLINE: "deadline",
    tensor_pb2.DISPATCH_REASON_DELAY_BOUND: "delay bound",
    tensor_pb2.DISPATCH_REASON_UNBATCHED: "unbatched",
}
"""Why a batch was closed, in the words of `inferway why` and of the Python client."""


class InferParameters(NamedTuple):
    """The parameters of a request, read."""

    signature: str = ""
    timeout_seconds: float | None = None
    criticality: int | None = None
    affinity_key: str = ""
    timing: bool = False
    empty_final_response: bool = False
    correlation: Correlation | None = None
    """None outside of sequences."""


_NO_PARAMETERS = InferParameters()


def selector_of(model_name: str, model_version: str, signature: str = "") -> Selector:
    """Raises InvalidName."""
    if not model_version:
        return Selector(model_name, signature=signature)
    if _NUMBER.fullmatch(model_version):
        return Selector(model_name, number=int(model_version), signature=signature)
    return Selector(model_name, alias=check_alias(model_version, "model_version"), signature=signature)


def parameters_of(request: pb.ModelInferRequest) -> InferParameters:
    """Raises InvalidParameter."""
    checked_id(request.id)
    if not request.parameters:
        return _NO_PARAMETERS
    values = {name: _value(name, parameter) for name, parameter in request.parameters.items()}
    timeout_us, priority = values.get("timeout"), values.get("priority")
    return InferParameters(
        signature=values.get("signature", ""),
        timeout_seconds=_positive("timeout", timeout_us) / 1e6 if timeout_us else None,
        criticality=min(_positive("priority", priority), _LEAST_CRITICAL) if priority else None,
        affinity_key=values.get("inferway_affinity_key", ""),
        timing=values.get("inferway_timing", False),
        empty_final_response=values.get("triton_enable_empty_final_response", False),
        correlation=_correlation(values) if values.get("sequence_id") else None,
    )


def _correlation(values: Mapping[str, Any]) -> Correlation:
    sequence_id = values["sequence_id"]
    if isinstance(sequence_id, int):
        sequence_id %= 1 << 64  # whichever integer parameter it came in, Triton takes it for a uint64
    elif len(sequence_id) > _MAX_ID_CHARACTERS:
        raise InvalidParameter.at(
            "parameters[sequence_id]",
            f"has {len(sequence_id)} characters; at most {_MAX_ID_CHARACTERS} are permitted",
            parameter="sequence_id",
        )
    return Correlation(sequence_id, values.get("sequence_start", False), values.get("sequence_end", False))


def _value(name: str, parameter: pb.InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    expected = _PARAMETER_KINDS.get(name)
    if expected is not None and kind not in expected:
        raise InvalidParameter.at(
            f"parameters[{name}]", f"has {kind or 'no value'}; expected {' or '.join(expected)}", parameter=name
        )
    return getattr(parameter, kind) if kind else None


def _positive(name: str, value: int) -> int:
    if value < _MOST_CRITICAL:
        raise InvalidParameter.at(f"parameters[{name}]", f"{value} is not permitted; 1 or more is", parameter=name)
    return value


def tensors_of(request: pb.ModelInferRequest) -> tuple[list[Tensor], FieldNames]:
    """The inputs, and how error messages name their parts.

    Raises DatatypeMismatch, ShapeMismatch, ContentsMismatch, MixedContents, InvalidField, NotSupported.
    """
    raw = request.raw_input_contents
    if not raw:
        return [_typed(source, index) for index, source in enumerate(request.inputs)], _TYPED_NAMES
    if len(raw) != len(request.inputs):
        raise ContentsMismatch.at(
            "raw_input_contents",
            f"has {len(raw)} entries for {len(request.inputs)} inputs; there must be one for each",
            expected=len(request.inputs),
            actual=len(raw),
        )
    pairs = zip(request.inputs, raw, strict=True)
    return [_raw(source, contents, index) for index, (source, contents) in enumerate(pairs)], _RAW_NAMES


def _raw(source: pb.ModelInferRequest.InferInputTensor, contents: bytes, index: int) -> Tensor:
    if source.HasField("contents"):
        raise MixedContents.at(
            f"inputs[{index}].contents",
            "must not be set together with raw_input_contents: choose one form",
            input=clipped(source.name),
        )
    datatype, shape = _header(source, index)
    return Tensor(source.name, datatype, shape, contents)


def _typed(source: pb.ModelInferRequest.InferInputTensor, index: int) -> Tensor:
    datatype, shape = _header(source, index)
    expected = _TYPED_FIELDS.get(datatype)
    field = f"inputs[{index}].contents"
    if expected is None:
        raise ContentsMismatch.at(
            field,
            f"there is no typed form of {datatype.name}; use raw_input_contents",
            input=clipped(source.name),
            expected="raw_input_contents",
            actual="contents",
        )
    for descriptor, _ in source.contents.ListFields():
        if descriptor.name != expected:
            raise ContentsMismatch.at(
                f"{field}.{descriptor.name}",
                f"cannot hold {datatype.name}; use {expected} or raw_input_contents",
                input=clipped(source.name),
                expected=expected,
                actual=descriptor.name,
            )
    values: Sequence[Any] = getattr(source.contents, expected)
    return Tensor(source.name, datatype, shape, pack(datatype, values, shape, f"{field}.{expected}", source.name))


def _header(source: pb.ModelInferRequest.InferInputTensor, index: int) -> tuple[Datatype, tuple[int, ...]]:
    if source.parameters and "shared_memory_region" in source.parameters:
        raise _no_shared_memory(f"input {source.name[:63]}")
    datatype = _DATATYPES.get(source.datatype)
    if datatype is None:
        raise unknown_datatype(source.datatype, index, source.name)
    return datatype, checked_shape(source.shape, index, source.name)


def outputs_of(requested: Iterable[pb.ModelInferRequest.InferRequestedOutputTensor]) -> list[str]:
    """Names of the outputs asked for; raises NotSupported."""
    names = []
    for output in requested:
        if output.parameters:
            if "shared_memory_region" in output.parameters:
                raise _no_shared_memory(f"output {output.name[:63]}")
            if "classification" in output.parameters:
                raise NotSupported("the classification extension is not supported", feature="classification")
        names.append(output.name)
    return names


def _no_shared_memory(holder: str) -> NotSupported:
    return NotSupported(f"{holder} lies in shared memory, which is not supported", feature="shared_memory")


def to_response(request: pb.ModelInferRequest, prediction: Prediction, *, timing: bool) -> pb.ModelInferResponse:
    """Answers raw, as Triton does on gRPC, whatever form the request had."""
    envelope = prediction.envelope
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=str(envelope.version.number), id=request.id
    )
    for output in ordered(prediction):
        response.outputs.add(name=output.name, datatype=_DATATYPE_NAMES[output.datatype], shape=output.shape)
        response.raw_output_contents.append(output.raw)
    if timing:
        _write_timing(response, prediction)
    return response


def _write_timing(response: pb.ModelInferResponse, prediction: Prediction) -> None:
    worker, envelope, parameters = prediction.answer.timing, prediction.envelope, response.parameters
    parameters["inferway_prediction_id"].string_param = envelope.prediction_id
    parameters["inferway_version"].string_param = envelope.version.name
    parameters["inferway_arm"].string_param = envelope.arm
    parameters["inferway_gateway_queue_us"].int64_param = prediction.gateway_queue_us
    parameters["inferway_worker_wait_us"].int64_param = worker.worker_wait_us
    parameters["inferway_compute_us"].int64_param = worker.compute_us
    parameters["inferway_batch_rows"].int64_param = worker.batch_rows
    parameters["inferway_dispatch_reason"].string_param = _DISPATCH_REASONS.get(worker.dispatch_reason, "")
