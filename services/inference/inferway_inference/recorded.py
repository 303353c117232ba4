"""Requests that were recorded with a SavedModel for its warm-up, as TensorFlow Serving keeps them.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of `PredictionLog` messages; those of `Predict` are used.
A record is length u64 · masked CRC-32C of the length u32 · content · masked CRC-32C of the content u32, little-endian
(tensorflow/core/lib/io/record_writer.h). The CRC of the length tells whether it is such a file at all; that of the
content is not computed, because the digest of the whole file was verified before.

The messages (tensorflow_serving/apis/prediction_log.proto and what it imports) are described here, as far as they are
needed, in a pool of their own: the same names may be registered by TensorFlow's own code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact
from inferway_inference.runner.arrays import NUMPY_TYPES, from_numpy
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array

FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000
"""As TensorFlow Serving reads."""
_DEFAULT_SIGNATURE = "serving_default"
_HEAD = Struct("<QI")
_CRC_BYTES = 4
_CASTAGNOLI = 0x82F63B78
_MASK_DELTA = 0xA282EAD8

_FIELDS = {
    "Dim": [("size", 1, "int64")],
    "Shape": [("dim", 2, "*Dim")],
    "Tensor": [
        ("dtype", 1, "int32"),
        ("tensor_shape", 2, "Shape"),
        ("tensor_content", 4, "bytes"),
        ("float_val", 5, "*float"),
        ("double_val", 6, "*double"),
        ("int_val", 7, "*int32"),
        ("string_val", 8, "*bytes"),
        ("int64_val", 10, "*int64"),
        ("bool_val", 11, "*bool"),
        ("half_val", 13, "*int32"),
        ("uint32_val", 16, "*uint32"),
        ("uint64_val", 17, "*uint64"),
    ],
    "ModelSpec": [("signature_name", 3, "string")],
    "Input": [("key", 1, "string"), ("value", 2, "Tensor")],
    "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "*Input")],
    "PredictLog": [("request", 1, "PredictRequest")],
    "PredictionLog": [("predict_log", 6, "PredictLog")],
}
"""Fields of each message: name, number, type; `*` is repeated. A map is a repeated message of key and value."""

_VALUES = {
    1: (Datatype.FP32, "float_val"),
    2: (Datatype.FP64, "double_val"),
    3: (Datatype.INT32, "int_val"),
    4: (Datatype.UINT8, "int_val"),
    5: (Datatype.INT16, "int_val"),
    6: (Datatype.INT8, "int_val"),
    7: (Datatype.BYTES, "string_val"),
    9: (Datatype.INT64, "int64_val"),
    10: (Datatype.BOOL, "bool_val"),
    14: (Datatype.BF16, "half_val"),
    17: (Datatype.UINT16, "int_val"),
    19: (Datatype.FP16, "half_val"),
    22: (Datatype.UINT32, "uint32_val"),
    23: (Datatype.UINT64, "uint64_val"),
}
"""By number of TensorFlow's DataType: ours, and the field that holds elements unless `tensor_content` does."""


def read_recorded(folder: Path, signatures: list[Signature]) -> dict[str, list[list[Array]]]:
    """Recorded requests by signature, each the inputs in its order; those that fit no signature are left out.

    Raises CorruptArtifact if the file is not what its name says.
    """
    found: dict[str, list[list[Array]]] = {}
    if not (folder / FILE).exists():
        return found
    known = {signature.name: signature for signature in signatures}
    try:
        for log in _logs(folder / FILE):
            request = log.predict_log.request
            signature = known.get(request.model_spec.signature_name or _DEFAULT_SIGNATURE)
            inputs = _inputs(request, signature) if signature is not None else None
            if signature is not None and inputs is not None:
                found.setdefault(signature.name, []).append(inputs)
    except (DecodeError, ValueError) as error:
        raise CorruptArtifact(f"{FILE} is no TFRecord file of PredictionLog messages", path=FILE) from error
    return found


def _logs(path: Path) -> Iterator[Any]:
    for content in _records(path.read_bytes()):
        log = _prediction_log()()
        log.ParseFromString(content)
        if log.HasField("predict_log"):
            yield log


def _records(data: bytes) -> Iterator[bytes]:
    position = 0
    for _ in range(MAX_RECORDS):
        if position == len(data):
            return
        if position + _HEAD.size > len(data):
            raise ValueError(position)
        length, masked = _HEAD.unpack_from(data, position)
        start = position + _HEAD.size
        position = start + length + _CRC_BYTES
        if masked != masked_crc32c(data[start - _HEAD.size : start - _CRC_BYTES]) or position > len(data):
            raise ValueError(start)
        yield data[start : start + length]


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of a few bytes, rotated and shifted as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _inputs(request: Any, signature: Signature) -> list[Array] | None:
    """None if they do not fit the signature."""
    given = {entry.key: _array(entry.value, entry.key) for entry in request.inputs}
    arrays = [given.get(spec.name) for spec in signature.inputs]
    fitting = [
        array
        for spec, array in zip(signature.inputs, arrays, strict=True)
        if array is not None and array.datatype is spec.datatype and spec.accepts(array.shape) and 0 not in array.shape
    ]
    return fitting if len(fitting) == len(arrays) else None


def _array(tensor: Any, name: str) -> Array:
    datatype, field = _VALUES.get(tensor.dtype, (None, ""))
    if datatype is None:
        raise ValueError(tensor.dtype)
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    return from_numpy(_elements(tensor, datatype, field, math.prod(shape)).reshape(shape), datatype, name)


def _elements(tensor: Any, datatype: Datatype, field: str, count: int) -> NDArray[Any]:
    """Of a tensor; where fewer are given than its shape has, the last one stands for the rest."""
    dtype = NUMPY_TYPES[datatype]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype)
    given = list(getattr(tensor, field))
    given += (given[-1:] or [b"" if datatype is Datatype.BYTES else 0]) * (count - len(given))
    if field == "half_val":
        return np.array(given, "<u2").view(dtype)
    return np.array(given, dtype)


@cache
def _prediction_log() -> Any:
    """The class of the outermost message."""
    file = descriptor_pb2.FileDescriptorProto(name="recorded.proto", package="recorded", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("recorded.PredictionLog"))


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    own = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number)
    field.label = own.LABEL_REPEATED if kind.startswith("*") else own.LABEL_OPTIONAL
    kind = kind.removeprefix("*")
    if kind in _FIELDS:
        field.type, field.type_name = own.TYPE_MESSAGE, f".recorded.{kind}"
    else:
        field.type = own.Type.Value(f"TYPE_{kind.upper()}")
