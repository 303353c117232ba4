"""Raw contents to NumPy arrays and back, in the runner."""

from __future__ import annotations

import math
from struct import Struct
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from inferway.datatypes import Datatype
from inferway.errors import ModelFailed
from inferway_inference.tensors import Array, Buffer

NUMPY_TYPES: dict[Datatype, np.dtype[Any]] = {
    Datatype.BOOL: np.dtype("?"),
    Datatype.UINT8: np.dtype("u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BYTES: np.dtype("O"),
    Datatype.BF16: np.dtype(ml_dtypes.bfloat16),
}

_LENGTH = Struct("<I")


def to_numpy(array: Array) -> NDArray[Any]:
    """The array's elements; a view of its contents but for BYTES, which become an object array of `bytes`."""
    raw = array.parts[0]
    if array.datatype is Datatype.BYTES:
        flat = np.empty(math.prod(array.shape), dtype=object)
        position = 0
        for index in range(flat.size):
            start = position + 4
            position = start + _LENGTH.unpack_from(raw, position)[0]
            flat[index] = bytes(raw[start:position])
        return flat.reshape(array.shape)
    return np.frombuffer(raw, NUMPY_TYPES[array.datatype]).reshape(array.shape)


def from_numpy(values: NDArray[Any], datatype: Datatype, name: str) -> Array:
    """The contents of an output, which the signature says to be of `datatype`; raises ModelFailed if it is not."""
    if datatype is Datatype.BYTES:
        return Array(datatype, values.shape, (_byte_strings(values),))
    if values.dtype != NUMPY_TYPES[datatype]:
        raise ModelFailed(
            f"the model answered {name!r} as {values.dtype}; its signature says {datatype.name}", output=name
        )
    return Array(datatype, values.shape, (_bytes_of(values),))


def _bytes_of(values: NDArray[Any]) -> Buffer:
    contiguous = np.ascontiguousarray(values)
    return contiguous.reshape(-1).view(np.uint8).data if contiguous.size else b""


def _byte_strings(values: NDArray[Any]) -> bytes:
    pieces: list[bytes] = []
    for element in values.reshape(-1):
        content = element if isinstance(element, bytes) else str(element).encode()
        pieces += (_LENGTH.pack(len(content)), content)
    return b"".join(pieces)
