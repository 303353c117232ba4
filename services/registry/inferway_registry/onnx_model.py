"""Reads from an ONNX model what it can be asked and which files hold its weights, without ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.message import DecodeError

from inferway.datatypes import Datatype
from inferway.errors import InvalidPath, NotSupported
from inferway.foreign.onnx.model_pb2 import (
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
)
from inferway_registry.manifest import EXTRA_ASSETS, ONNX_MODEL
from inferway_registry.resources import Signature, TensorSpec
from inferway_registry.signatures import Reading
from inferway_registry.wording import listed, shown

SIGNATURE = "serving_default"
"""The one signature of every model: ONNX knows no names for them."""
OLDEST_OPERATIONS = 7
"""ONNX Runtime promises nothing for operator sets before."""
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "com.microsoft", "com.microsoft.nchwc"})
"""Whose operations ONNX Runtime has without libraries of the publisher's, which a worker must not run."""
_FILE = Reading(ONNX_MODEL)
_DATATYPES: dict[int, Datatype] = {
    1: Datatype.FP32,
    2: Datatype.UINT8,
    3: Datatype.INT8,
    4: Datatype.UINT16,
    5: Datatype.INT16,
    6: Datatype.INT32,
    7: Datatype.INT64,
    8: Datatype.BYTES,
    9: Datatype.BOOL,
    10: Datatype.FP16,
    11: Datatype.FP64,
    12: Datatype.UINT32,
    13: Datatype.UINT64,
    16: Datatype.BF16,
}
"""ONNX's data type numbers that a request can carry."""


def read_signatures(model: bytes, files: Iterable[str]) -> tuple[Signature, ...]:
    """Returns the one signature of `model.onnx`, whose other files are `files`.

    Raises CorruptArtifact if it is no model or lacks a file, InvalidPath for a file that it does not name, and
    NotSupported if no worker has its operations.
    """
    try:
        parsed = ModelProto.FromString(model)
    except DecodeError as error:
        raise _FILE.corrupt("it cannot be parsed as an ONNX model") from error
    if parsed.ir_version < 1 or not parsed.graph.output:
        raise _FILE.corrupt("it is no ONNX model, or has no outputs")
    _check_operations(parsed.opset_import)
    _check_files(set(_locations(parsed)), set(files))
    weights = {tensor.name for tensor in parsed.graph.initializer}
    inputs = [value for value in parsed.graph.input if value.name not in weights]
    return (Signature(SIGNATURE, _specs(inputs, "its inputs"), _specs(parsed.graph.output, "its outputs")),)


def _check_operations(used: Iterable[OperatorSetIdProto]) -> None:
    for operations in used:
        if operations.domain not in DOMAINS:
            raise NotSupported(
                f"{ONNX_MODEL}: operations of the domain {shown(operations.domain)!r} need a library that workers "
                "do not have; export the model with ONNX's own operations",
                feature=f"onnx/{shown(operations.domain)}",
            )
        if operations.domain in ("", "ai.onnx") and operations.version < OLDEST_OPERATIONS:
            raise NotSupported(
                f"{ONNX_MODEL}: operator set {operations.version} is too old; export the model with "
                f"{OLDEST_OPERATIONS} or newer",
                feature=f"onnx/opset/{operations.version}",
            )


def _check_files(named: set[str], present: set[str]) -> None:
    """The files that hold weights must be there, and no others, so that nothing but the model reaches a worker."""
    missing = sorted(named - present)
    if missing:
        raise _FILE.corrupt(f"its weights are in {listed(missing)}, which the manifest lacks")
    for path in sorted(present - named - {ONNX_MODEL}):
        if not path.startswith(EXTRA_ASSETS):
            raise InvalidPath(f"{path!r} is no part of the model: {ONNX_MODEL} does not name it", path=path)


def _locations(model: ModelProto) -> Iterator[str]:
    """Of external data, in every graph of the model."""
    nodes = [node for function in model.functions for node in function.node]
    for tensor in _tensors([model.graph], nodes):
        for entry in tensor.external_data:
            if entry.key == "location":
                yield entry.value.removeprefix("./")


def _tensors(graphs: list[GraphProto], nodes: list[NodeProto]) -> Iterator[TensorProto]:
    """All that hold content, however deep their graph lies in others."""
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes.extend(graph.node)
            yield from graph.initializer
            yield from (half for sparse in graph.sparse_initializer for half in (sparse.values, sparse.indices))
        else:
            for attribute in nodes.pop().attribute:
                graphs += [attribute.g, *attribute.graphs]
                sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
                yield from (attribute.t, *attribute.tensors)
                yield from (half for one in sparse for half in (one.values, one.indices))


def _specs(values: Sequence[ValueInfoProto], where: str) -> tuple[TensorSpec, ...]:
    _FILE.check_count(len(values), where)
    specs = {value.name: _spec(value, where) for value in values}
    if len(specs) < len(values):
        raise _FILE.corrupt(f"two of {where} have the same name")
    return tuple(specs[name] for name in sorted(specs))


def _spec(value: ValueInfoProto, where: str) -> TensorSpec:
    kind = value.type.tensor_type
    datatype = _DATATYPES.get(kind.elem_type)
    if datatype is None:
        _FILE.check_name(value.name, f"one of {where}")
        what = f"ONNX's data type number {kind.elem_type}" if value.type.HasField("tensor_type") else "no plain tensor"
        raise _FILE.corrupt(
            f"{value.name!r} of {where} is {what}, which no request can carry; export plain number or string tensors"
        )
    return _FILE.spec(value.name, datatype, _shape(kind), where)


def _shape(kind: TypeProto.Tensor) -> list[int] | None:
    if not kind.HasField("shape"):
        return None
    return [size.dim_value if size.WhichOneof("value") == "dim_value" else -1 for size in kind.shape.dim]
