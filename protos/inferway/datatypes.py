"""The datatypes of tensors: names of the Open Inference Protocol, sizes, and the numbers of our protobuf enum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum


class Datatype(IntEnum):
    """An element type. Values equal those of `inferway.type.v1.DataType`; names those of the protocol."""

    BOOL = 1
    UINT8 = 2
    UINT16 = 3
    UINT32 = 4
    UINT64 = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    FP16 = 10
    FP32 = 11
    FP64 = 12
    BYTES = 13
    BF16 = 14


ITEM_BYTES: dict[Datatype, int] = {
    Datatype.BOOL: 1,
    Datatype.UINT8: 1,
    Datatype.UINT16: 2,
    Datatype.UINT32: 4,
    Datatype.UINT64: 8,
    Datatype.INT8: 1,
    Datatype.INT16: 2,
    Datatype.INT32: 4,
    Datatype.INT64: 8,
    Datatype.FP16: 2,
    Datatype.FP32: 4,
    Datatype.FP64: 8,
    Datatype.BF16: 2,
}
"""Bytes an element of each fixed-size datatype; BYTES has no entry."""

FLOATING = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16})
"""Datatypes that can hold NaN."""

MAX_RANK = 16
"""More dimensions than this are refused before anything is computed from them."""


def element_count(shape: Sequence[int]) -> int:
    """The number of elements of a shape without negative dimensions; 1 for a scalar. Exact: Python integers."""
    return math.prod(shape)
