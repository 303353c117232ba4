"""Reads from a SavedModel what it can be asked, without TensorFlow and without running any of it."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from inferway.datatypes import Datatype
from inferway.foreign.tensorflow.saved_model_pb2 import MetaGraphDef, SavedModel, SignatureDef, TensorInfo
from inferway_registry.manifest import SAVED_MODEL
from inferway_registry.resources import Signature, TensorSpec
from inferway_registry.signatures import MAX_SIGNATURES, Reading

SERVE_TAG = "serve"
_FILE = Reading(SAVED_MODEL)
_INIT_OP = "__saved_model_init_op"
_DATATYPES: dict[int, Datatype] = {
    1: Datatype.FP32,
    2: Datatype.FP64,
    3: Datatype.INT32,
    4: Datatype.UINT8,
    5: Datatype.INT16,
    6: Datatype.INT8,
    7: Datatype.BYTES,
    9: Datatype.INT64,
    10: Datatype.BOOL,
    14: Datatype.BF16,
    17: Datatype.UINT16,
    19: Datatype.FP16,
    22: Datatype.UINT32,
    23: Datatype.UINT64,
}
"""TensorFlow's DataType numbers that a request can carry."""


def read_signatures(saved_model: bytes) -> tuple[Signature, ...]:
    """Returns the callable signatures of `saved_model.pb`, by name; raises CorruptArtifact if there are none."""
    try:
        parsed = SavedModel.FromString(saved_model)
    except DecodeError as error:
        raise _FILE.corrupt("it cannot be parsed as a SavedModel") from error
    definitions = _served(parsed).signature_def
    if len(definitions) > MAX_SIGNATURES:
        raise _FILE.corrupt(f"it has {len(definitions)} signatures; at most {MAX_SIGNATURES} are permitted")
    signatures = tuple(
        _signature(name, definition)
        for name, definition in sorted(definitions.items())
        if name != _INIT_OP and definition.outputs
    )
    if not signatures:
        raise _FILE.corrupt("it has no signature that can be called; export it with signatures, as model.export() does")
    return signatures


def _served(saved_model: SavedModel) -> MetaGraphDef:
    for graph in saved_model.meta_graphs:
        if set(graph.meta_info_def.tags) == {SERVE_TAG}:
            return graph
    raise _FILE.corrupt(f"no graph in it is tagged {SERVE_TAG!r}; export the model for serving")


def _signature(name: str, definition: SignatureDef) -> Signature:
    _FILE.check_name(name, "a signature")
    where = f"signature {name!r}"
    return Signature(name, _specs(definition.inputs, where), _specs(definition.outputs, where))


def _specs(tensors: Mapping[str, TensorInfo], where: str) -> tuple[TensorSpec, ...]:
    _FILE.check_count(len(tensors), where)
    return tuple(_spec(name, tensor, where) for name, tensor in sorted(tensors.items()))


def _spec(name: str, tensor: TensorInfo, where: str) -> TensorSpec:
    datatype = _DATATYPES.get(tensor.dtype)
    if datatype is None:
        _FILE.check_name(name, f"a tensor of {where}")
        raise _FILE.corrupt(
            f"tensor {name!r} of {where} has TensorFlow's data type number {tensor.dtype}, which no request can "
            "carry; export a signature with plain number or string tensors"
        )
    unknown = tensor.tensor_shape.unknown_rank
    shape = None if unknown else [dimension.size for dimension in tensor.tensor_shape.dim]
    return _FILE.spec(name, datatype, shape, where)
