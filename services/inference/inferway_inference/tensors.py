"""Tensors as the front sees them: a name, a shape and raw bytes that it cuts and joins but never decodes.

Elements are little-endian and row-major, so the rows of several requests are batched by joining their bytes, and
answers are slices of the batch's bytes. BYTES elements are a 4-byte length and the bytes, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

from inferway.datatypes import Datatype
from inferway.errors import InvalidBytesTensor

Buffer = bytes | memoryview

_LENGTH = Struct("<I")


@dataclass(slots=True)
class Tensor:
    """A named, dense tensor."""

    name: str
    datatype: int
    """A Datatype once it was checked; before that whatever number was sent."""
    shape: tuple[int, ...]
    raw: bytes


@dataclass(slots=True)
class Array:
    """An unnamed tensor in parts: the inputs of a batch before they are joined, or an output of it."""

    datatype: Datatype
    shape: tuple[int, ...]
    parts: Sequence[Buffer]

    @property
    def byte_count(self) -> int:
        """Bytes of all parts."""
        return sum(map(len, self.parts))


def check_byte_strings(tensor: Tensor, count: int, field: str) -> None:
    """Raises InvalidBytesTensor at `field` unless `raw` is exactly `count` length-prefixed elements."""
    raw, size, position = tensor.raw, len(tensor.raw), 0
    if size < 4 * count:
        raise _not_byte_strings(tensor, count, field)
    for _ in range(count):
        if position + 4 > size:
            raise _not_byte_strings(tensor, count, field)
        position += 4 + _LENGTH.unpack_from(raw, position)[0]
    if position != size:
        raise _not_byte_strings(tensor, count, field)


def _not_byte_strings(tensor: Tensor, count: int, field: str) -> InvalidBytesTensor:
    return InvalidBytesTensor.at(
        field,
        f"the length prefixes of {tensor.name!r} do not add up to {count} elements in {len(tensor.raw)} bytes",
        input=tensor.name,
    )


def cut_rows(array: Array, rows: Sequence[int]) -> list[bytes]:
    """Cuts a batch's output, in one part, into one piece per request; `rows` sum to its leading dimension."""
    whole = array.parts[0]
    if array.datatype is Datatype.BYTES:
        return _cut_byte_strings(whole, math.prod(array.shape[1:]), rows)
    row_bytes = len(whole) // array.shape[0]
    pieces, start = [], 0
    for count in rows:
        end = start + count * row_bytes
        pieces.append(bytes(whole[start:end]))
        start = end
    return pieces


def _cut_byte_strings(whole: Buffer, elements_per_row: int, rows: Sequence[int]) -> list[bytes]:
    pieces, start, position = [], 0, 0
    for count in rows:
        for _ in range(count * elements_per_row):
            position += 4 + _LENGTH.unpack_from(whole, position)[0]
        pieces.append(bytes(whole[start:position]))
        start = position
    return pieces
