"""LiteRT models as bytes, made with LiteRT's own schema and without a converter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

FLOAT32, INT8, STRING, RESOURCE = (schema.TensorType.FLOAT32, schema.TensorType.INT8, schema.TensorType.STRING, 13)

Tensors = Mapping[str, tuple[int, Sequence[int]]]


def litert_model(signatures: Mapping[str, tuple[Tensors, Tensors]], *, described: bool = True) -> bytes:
    """One subgraph for each signature; -1 is a size that is open. Not `described`: without signature definitions."""
    model = schema.ModelT()
    model.version, model.subgraphs, model.signatureDefs = 3, [], [] if described else None
    for index, (name, (inputs, outputs)) in enumerate(signatures.items()):
        model.subgraphs.append(_subgraph(inputs, outputs))
        if described:
            model.signatureDefs.append(_signature(name, index, inputs, outputs))
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _subgraph(inputs: Tensors, outputs: Tensors) -> schema.SubGraphT:
    subgraph = schema.SubGraphT()
    subgraph.tensors = [_tensor(name, *one) for side in (inputs, outputs) for name, one in side.items()]
    subgraph.inputs = list(range(len(inputs)))
    subgraph.outputs = list(range(len(inputs), len(inputs) + len(outputs)))
    return subgraph


def _tensor(name: str, kind: int, shape: Sequence[int]) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.type = f"{name}:0", kind
    tensor.shape = [max(size, 1) for size in shape]
    tensor.shapeSignature = list(shape) if -1 in shape else None
    return tensor


def _signature(name: str, index: int, inputs: Tensors, outputs: Tensors) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = name, index
    signature.inputs = [_named(place, own) for place, own in enumerate(inputs)]
    signature.outputs = [_named(len(inputs) + place, own) for place, own in enumerate(outputs)]
    return signature


def _named(index: int, name: str) -> schema.TensorMapT:
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name, index
    return named
