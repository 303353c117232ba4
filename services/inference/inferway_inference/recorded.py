"""Requests that were recorded with a SavedModel for its warm-up, as TensorFlow Serving keeps them.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of `PredictionLog` messages; those of `Predict` are used.
A record is length u64 · masked CRC-32C of the length u32 · content · masked CRC-32C of the content u32, little-endian
(tensorflow/core/lib/io/record_writer.h). The CRC of the length tells whether it is such a file at all; that of the
content is not computed, because the digest of the whole file was verified before. That says who wrote it, not that it
is sane: what a record would unfold to is reckoned from its shapes before anything is allocated.

The messages (tensorflow_serving/apis/prediction_log.proto and what it imports) are described here, as far as they are
needed, in a pool of their own: the same names may be registered by TensorFlow's own code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from struct import Struct
from typing import IO, Any

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
"""As TensorFlow Serving reads; what comes after them is left."""
MAX_BYTES = 64 * 1024 * 1024
"""Of one record, and of all inputs together; records that exceed the latter are left, as those after the last are."""
_MAX_RANK = 32
_STRING_BYTES = 64
"""What a string takes while it is converted, beside its content."""
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

    Raises CorruptArtifact if the file is not what its name says, or a record is larger than `MAX_BYTES`. May take
    seconds: not for the event loop.
    """
    if not (folder / FILE).exists():
        return {}
    try:
        with (folder / FILE).open("rb") as file:
            return _read(file, {signature.name: signature for signature in signatures})
    except (DecodeError, ValueError, OverflowError) as error:
        message = f"{FILE} is no TFRecord file of PredictionLog messages: {error}"
        raise CorruptArtifact(message, path=FILE) from error


def _read(file: IO[bytes], known: dict[str, Signature]) -> dict[str, list[list[Array]]]:
    found: dict[str, list[list[Array]]] = {}
    room = MAX_BYTES
    for request in _requests(file):
        signature = known.get(request.model_spec.signature_name or _DEFAULT_SIGNATURE)
        if signature is None:
            continue
        room -= _checked_bytes(request)
        if room < 0:
            break
        inputs = _inputs(request, signature)
        if inputs is not None:
            found.setdefault(signature.name, []).append(inputs)
    return found


def _requests(file: IO[bytes]) -> Iterator[Any]:
    for content in _records(file):
        log = _prediction_log()()
        log.ParseFromString(content)
        if log.HasField("predict_log"):
            yield log.predict_log.request


def _records(file: IO[bytes]) -> Iterator[bytes]:
    for _ in range(MAX_RECORDS):
        head = file.read(_HEAD.size)
        if not head:
            return
        if len(head) < _HEAD.size:
            raise ValueError("it ends within a record")
        length, masked = _HEAD.unpack(head)
        if masked != masked_crc32c(head[:-_CRC_BYTES]):
            raise ValueError("a length has another checksum")
        if length > MAX_BYTES:
            raise ValueError(f"a record of {length} bytes; at most {MAX_BYTES}")
        content = file.read(length + _CRC_BYTES)
        if len(content) < length + _CRC_BYTES:
            raise ValueError("it ends within a record")
        yield content[:length]


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of a few bytes, rotated and shifted as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _checked_bytes(request: Any) -> int:
    """What the inputs take once they are arrays; raises ValueError if that is too much, or nonsense."""
    total = sum(_tensor_bytes(entry.value, entry.key) for entry in request.inputs)
    if total > MAX_BYTES:
        raise ValueError(f"a record has inputs of {total} bytes; at most {MAX_BYTES}")
    return total


def _tensor_bytes(tensor: Any, name: str) -> int:
    if tensor.dtype not in _VALUES:
        raise ValueError(f"input {name!r} has the unknown type {tensor.dtype}")
    shape = _shape(tensor)
    if len(shape) > _MAX_RANK or min(shape, default=0) < 0:
        raise ValueError(f"input {name!r} has no shape that an array can have")
    datatype, count = _VALUES[tensor.dtype][0], math.prod(shape)
    if datatype is not Datatype.BYTES:
        return count * NUMPY_TYPES[datatype].itemsize
    given = [len(content) for content in tensor.string_val]
    return count * _STRING_BYTES + sum(given) + max(0, count - len(given)) * (given[-1] if given else 0)


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
    datatype, field = _VALUES[tensor.dtype]
    shape = _shape(tensor)
    return from_numpy(_elements(tensor, datatype, field, math.prod(shape)).reshape(shape), datatype, name)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(dim.size for dim in tensor.tensor_shape.dim)


def _elements(tensor: Any, datatype: Datatype, field: str, count: int) -> NDArray[Any]:
    """Of a tensor; where fewer are given than its shape has, the last one stands for the rest."""
    dtype = NUMPY_TYPES[datatype]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype)
    stored = np.dtype("<u2") if field == "half_val" else dtype
    given = np.array(list(getattr(tensor, field)), stored)
    last = given[-1] if given.size else b"" if datatype is Datatype.BYTES else 0
    elements = np.full(count, last, stored)
    elements[: given.size] = given
    return elements.view(dtype) if field == "half_val" else elements


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
