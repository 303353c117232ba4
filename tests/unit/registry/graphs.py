"""SavedModels as bytes, made without TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from inferway.foreign.tensorflow.saved_model_pb2 import SavedModel, SignatureDef, TensorInfo, TensorShapeProto
from inferway_registry.resources import Artifact

FLOAT, INT32, STRING, INT64, RESOURCE = 1, 3, 7, 9, 20


def tensor(dtype: int = FLOAT, shape: tuple[int, ...] | None = (-1, 4)) -> TensorInfo:
    """A tensor; shape None for an unknown rank."""
    if shape is None:
        return TensorInfo(dtype=dtype, tensor_shape=TensorShapeProto(unknown_rank=True))
    dims = [TensorShapeProto.Dim(size=size) for size in shape]
    return TensorInfo(dtype=dtype, tensor_shape=TensorShapeProto(dim=dims))


def signature(inputs: Mapping[str, TensorInfo], outputs: Mapping[str, TensorInfo]) -> SignatureDef:
    """A signature."""
    return SignatureDef(inputs=dict(inputs), outputs=dict(outputs))


def saved_model(signatures: Mapping[str, SignatureDef] | None = None, tags: tuple[str, ...] = ("serve",)) -> bytes:
    """The content of `saved_model.pb`; by default x [-1, 4] → y [-1, 1]."""
    if signatures is None:
        signatures = {"serving_default": signature({"x": tensor()}, {"y": tensor(shape=(-1, 1))})}
    model = SavedModel(saved_model_schema_version=1)
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.extend(tags)
    for name, definition in signatures.items():
        graph.signature_def[name].CopyFrom(definition)
    return model.SerializeToString(deterministic=True)


def model_files(weights: bytes = b"weights", graph: bytes | None = None) -> dict[str, bytes]:
    """The files of a small SavedModel."""
    return {
        "saved_model.pb": saved_model() if graph is None else graph,
        "variables/variables.index": b"index",
        "variables/variables.data-00000-of-00001": weights,
    }


def sha256(data: bytes) -> str:
    """In lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def artifacts(files: Mapping[str, bytes]) -> list[Artifact]:
    """The manifest's entries of files."""
    return [Artifact(path, len(data), sha256(data)) for path, data in files.items()]
