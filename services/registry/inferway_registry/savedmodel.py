"""Reads from a SavedModel what it can be asked, without TensorFlow and without running any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from google.protobuf.message import DecodeError

from inferway.datatypes import FLOATING, MAX_RANK, Datatype
from inferway.errors import CorruptArtifact, InvalidField
from inferway.foreign.tensorflow.saved_model_pb2 import MetaGraphDef, SavedModel, SignatureDef, TensorInfo
from inferway_registry.manifest import SAVED_MODEL
from inferway_registry.resources import Signature, TensorSpec
from inferway_registry.wording import listed

SERVE_TAG = "serve"
MAX_SIGNATURES = 100
MAX_TENSORS = 1_000
MAX_NAME_CHARACTERS = 256
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
        raise _corrupt("it cannot be parsed as a SavedModel") from error
    definitions = _served(parsed).signature_def
    if len(definitions) > MAX_SIGNATURES:
        raise _corrupt(f"it has {len(definitions)} signatures; at most {MAX_SIGNATURES} are permitted")
    signatures = tuple(
        _signature(name, definition)
        for name, definition in sorted(definitions.items())
        if name != _INIT_OP and definition.outputs
    )
    if not signatures:
        raise _corrupt("it has no signature that can be called; export it with signatures, as model.export() does")
    return signatures


def forbid_nan(signatures: tuple[Signature, ...], inputs: tuple[str, ...]) -> tuple[Signature, ...]:
    """Marks the inputs in which NaN is refused; raises InvalidField for one that no signature has, or that has none."""
    for index, name in enumerate(inputs):
        found = [spec for signature in signatures for spec in signature.inputs if spec.name == name]
        field = f"config.forbid_nan_inputs[{index}]"
        if not found:
            known = sorted({spec.name for signature in signatures for spec in signature.inputs})
            raise InvalidField.at(field, f"no signature has an input {name!r}; inputs are {listed(known)}")
        if any(spec.datatype not in FLOATING for spec in found):
            raise InvalidField.at(field, f"{name!r} is not floating point and cannot hold NaN")
    return tuple(
        replace(
            signature,
            inputs=tuple(replace(spec, forbid_nan=spec.name in inputs) for spec in signature.inputs),
        )
        for signature in signatures
    )


def _served(saved_model: SavedModel) -> MetaGraphDef:
    for graph in saved_model.meta_graphs:
        if set(graph.meta_info_def.tags) == {SERVE_TAG}:
            return graph
    raise _corrupt(f"no graph in it is tagged {SERVE_TAG!r}; export the model for serving")


def _signature(name: str, definition: SignatureDef) -> Signature:
    _check_name(name, "a signature")
    where = f"signature {name!r}"
    return Signature(name, _specs(definition.inputs, where), _specs(definition.outputs, where))


def _specs(tensors: Mapping[str, TensorInfo], where: str) -> tuple[TensorSpec, ...]:
    if len(tensors) > MAX_TENSORS:
        raise _corrupt(f"{where} has {len(tensors)} tensors; at most {MAX_TENSORS} are permitted")
    return tuple(_spec(name, tensor, where) for name, tensor in sorted(tensors.items()))


def _spec(name: str, tensor: TensorInfo, where: str) -> TensorSpec:
    _check_name(name, f"a tensor of {where}")
    datatype = _DATATYPES.get(tensor.dtype)
    if datatype is None:
        raise _corrupt(
            f"tensor {name!r} of {where} has TensorFlow's data type number {tensor.dtype}, which no request can "
            "carry; export a signature with plain number or string tensors"
        )
    return TensorSpec(name, datatype, _shape(name, tensor, where))


def _shape(name: str, tensor: TensorInfo, where: str) -> tuple[int, ...] | None:
    if tensor.tensor_shape.unknown_rank:
        return None
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    if len(shape) > MAX_RANK:
        raise _corrupt(f"tensor {name!r} of {where} has {len(shape)} dimensions; at most {MAX_RANK} are permitted")
    if any(size < -1 for size in shape):
        raise _corrupt(f"tensor {name!r} of {where} has a dimension below -1")
    return shape


def _check_name(name: str, what: str) -> None:
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise _corrupt(f"{what} has a name of {len(name)} characters; expected 1 to {MAX_NAME_CHARACTERS}")


def _corrupt(problem: str) -> CorruptArtifact:
    return CorruptArtifact(f"{SAVED_MODEL}: {problem}", path=SAVED_MODEL)
