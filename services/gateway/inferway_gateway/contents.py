"""Typed contents into raw bytes: the readable forms of a tensor become the one form that travels on."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from inferway.datatypes import Datatype, element_count
from inferway.errors import ContentsMismatch, InvalidField
from inferway_gateway.routing import clipped

ARRAY_CODES: Mapping[Datatype, str] = {
    Datatype.BOOL: "B",
    Datatype.UINT8: "B",
    Datatype.UINT16: "H",
    Datatype.UINT32: "I",
    Datatype.UINT64: "Q",
    Datatype.INT8: "b",
    Datatype.INT16: "h",
    Datatype.INT32: "i",
    Datatype.INT64: "q",
    Datatype.FP32: "f",
    Datatype.FP64: "d",
}
"""Datatypes that have a typed form, apart from BYTES, and the code of `array` that stores them."""

_LITTLE_ENDIAN = sys.byteorder == "little"


def pack(datatype: Datatype, values: Sequence[Any], shape: Sequence[int], field: str, name: str) -> bytes:
    """The raw form of `values` of input `name`, of the Python type that belongs to `datatype`; FP16 and BF16 have none.

    Raises ContentsMismatch if there are not as many as `shape` has elements, InvalidField if one does not fit.
    """
    expected = element_count(shape)
    if len(values) != expected:
        raise ContentsMismatch.at(
            field,
            f"holds {len(values)} elements; the shape has {expected}",
            input=clipped(name),
            expected=expected,
            actual=len(values),
        )
    if datatype is Datatype.BYTES:
        return _length_prefixed(values)
    try:
        packed = array(ARRAY_CODES[datatype], values)
    except OverflowError:
        raise _out_of_range(datatype, values, field, name) from None
    if not _LITTLE_ENDIAN:
        packed.byteswap()
    return packed.tobytes()


def _length_prefixed(values: Iterable[bytes]) -> bytes:
    parts = []
    for value in values:
        parts.append(len(value).to_bytes(4, "little"))
        parts.append(value)
    return b"".join(parts)


def _out_of_range(datatype: Datatype, values: Iterable[Any], field: str, name: str) -> InvalidField:
    code = ARRAY_CODES[datatype]
    for index, value in enumerate(values):
        try:
            array(code, (value,))
        except OverflowError:
            message = f"element {index} is {value}, which does not fit {datatype.name}"
            return InvalidField.at(field, message, input=clipped(name))
    raise AssertionError  # array() has just refused one of them
