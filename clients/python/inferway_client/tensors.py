"""numpy arrays to tensors of the contract and back, without loss.

| datatype | numpy |
|---|---|
| BOOL, INT8 … INT64, UINT8 … UINT64, FP16, FP32, FP64 | the dtype of the same name, any byte order |
| BF16 | `ml_dtypes.bfloat16`, if ml_dtypes can be imported |
| BYTES | in: arrays of bytes or str (`S`, `U` or object dtype), str as UTF-8; out: object arrays of bytes |

`S` arrays lose trailing zero bytes before we see them: use an object array where those matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inferway.datatypes import ITEM_BYTES, Datatype, element_count
from inferway.errors import ContentsMismatch, DatatypeMismatch, InvalidBytesTensor
from inferway.type.v1 import tensor_pb2

__all__ = ["Array", "Arrays", "datatype_of", "decode", "decode_all", "dtype_of", "encode", "encode_all"]

Array = NDArray[Any]
Arrays = Mapping[str, ArrayLike]
"""Inputs by name. Values that are not arrays go through `numpy.asarray`, so a list of floats becomes FP64."""

_LENGTH = struct.Struct("<I")
_DTYPES: dict[Datatype, np.dtype[Any]] = {
    Datatype.BOOL: np.dtype(np.bool_),
    Datatype.UINT8: np.dtype("<u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("<i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BYTES: np.dtype(object),
}
if find_spec("ml_dtypes") is not None:
    import ml_dtypes

    _DTYPES[Datatype.BF16] = np.dtype(ml_dtypes.bfloat16)
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items()}


def datatype_of(dtype: np.dtype[Any], field: str = "inputs") -> Datatype:
    """Returns the datatype that carries `dtype`; raises DatatypeMismatch at `field` if none does."""
    if dtype.kind in "OSU":
        return Datatype.BYTES
    datatype = _DATATYPES.get(dtype.newbyteorder("<"))
    if datatype is None:
        raise DatatypeMismatch.at(field, f"numpy's {dtype} has no datatype; convert it, for example to float32")
    return datatype


def dtype_of(datatype: Datatype) -> np.dtype[Any]:
    """Returns the dtype that holds `datatype`; raises DatatypeMismatch for BF16 without ml_dtypes."""
    if datatype not in _DTYPES:
        raise DatatypeMismatch(f"{datatype.name} needs the package ml_dtypes; install it", actual=datatype.name)
    return _DTYPES[datatype]


def encode(name: str, values: ArrayLike) -> tensor_pb2.Tensor:
    """Returns the tensor `name` with raw contents; raises DatatypeMismatch for what no datatype carries."""
    array = np.asarray(values)
    field = f"inputs[{name}]"
    datatype = datatype_of(array.dtype, field)
    raw = _join_strings(array, field) if datatype is Datatype.BYTES else _little_endian(array).tobytes()
    return tensor_pb2.Tensor(name=name, datatype=tensor_pb2.DataType.ValueType(datatype), shape=array.shape, raw=raw)


def encode_all(arrays: Arrays) -> list[tensor_pb2.Tensor]:
    """Encodes every named array, in the order of the mapping."""
    return [encode(name, values) for name, values in arrays.items()]


def decode(tensor: tensor_pb2.Tensor) -> Array:
    """Returns the array of a tensor with raw contents.

    Numbers are read-only views into the message (copy to write); BYTES are object arrays of bytes. Raises
    DatatypeMismatch, ContentsMismatch or InvalidBytesTensor if the tensor contradicts itself.
    """
    field, shape = f"tensors[{tensor.name}]", tuple(tensor.shape)
    datatype = _known(tensor.datatype, field)
    if datatype is Datatype.BYTES:
        return _split_strings(tensor.raw, shape, field)
    expected = element_count(shape) * ITEM_BYTES[datatype]
    if len(tensor.raw) != expected or min(shape, default=0) < 0:
        raise ContentsMismatch.at(field, f"{len(tensor.raw)} bytes, but shape {shape} takes {expected}")
    return np.frombuffer(tensor.raw, dtype_of(datatype)).reshape(shape)


def decode_all(tensors: Iterable[tensor_pb2.Tensor]) -> dict[str, Array]:
    """Decodes every tensor, by name."""
    return {tensor.name: decode(tensor) for tensor in tensors}


def _known(number: int, field: str) -> Datatype:
    try:
        return Datatype(number)
    except ValueError:
        raise DatatypeMismatch.at(field, f"datatype {number} is unknown to this client", actual=number) from None


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _join_strings(array: Array, field: str) -> bytes:
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        text = element.encode() if isinstance(element, str) else element
        if not isinstance(text, bytes):
            raise DatatypeMismatch.at(field, f"elements must be bytes or str, not {type(element).__name__}")
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def _split_strings(raw: bytes, shape: tuple[int, ...], field: str) -> Array:
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + _LENGTH.size
        if start > len(raw):
            raise InvalidBytesTensor.at(field, "a length prefix is cut off")
        position = start + _LENGTH.unpack_from(raw, position)[0]
        elements.append(raw[start:position])
    if position != len(raw) or len(elements) != element_count(shape):
        raise InvalidBytesTensor.at(field, f"{len(elements)} strings in {len(raw)} bytes do not fit shape {shape}")
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)
