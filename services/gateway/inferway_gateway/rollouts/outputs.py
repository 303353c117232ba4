"""What an answer says for a judge: whether it keeps to its signature, and one figure for each of its outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferway.datatypes import FLOATING, Datatype
from inferway_gateway.routing import DEFAULT_SIGNATURE
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.tensors import Answer, OutputTensor

MOST_BYTES = 256 * 1024
"""Of an output, what is looked at: the time of the event loop belongs to callers."""
_NUMBERS = {
    Datatype.UINT8: "u1",
    Datatype.UINT16: "<u2",
    Datatype.UINT32: "<u4",
    Datatype.UINT64: "<u8",
    Datatype.INT8: "i1",
    Datatype.INT16: "<i2",
    Datatype.INT32: "<i4",
    Datatype.INT64: "<i8",
    Datatype.FP16: "<f2",
    Datatype.FP32: "<f4",
    Datatype.FP64: "<f8",
    Datatype.BF16: "<u2",
}
"""Datatypes whose elements are looked at. Texts and truth values have no figure and cannot be NaN."""
_BF16_BITS = 16
_LEAST_CLASSES = 2

Numbers = NDArray[Any]


def label_of(signature: str, output: str) -> str:
    """What an output is called in rollouts: with `signature/` before it if the signature is not the default one."""
    return output if signature == DEFAULT_SIGNATURE else f"{signature}/{output}"


class Reading(NamedTuple):
    """Of one answer."""

    breaks_schema: bool
    """It has NaN or infinity, another shape or datatype than the signature, or contents that do not fill its shape."""
    figures: list[tuple[str, float]]
    """By label, of the outputs that have one: see `OutputSample`."""


@dataclass(slots=True)
class _Output:
    """One output of a signature, with what reading it needs."""

    spec: TensorSpec
    label: str
    dtype: np.dtype[Any] | None = field(init=False)
    floating: bool = field(init=False)

    def __post_init__(self) -> None:
        code = _NUMBERS.get(self.spec.datatype)
        self.dtype = np.dtype(code) if code else None
        self.floating = self.spec.datatype in FLOATING

    def values(self, raw: bytes) -> Numbers:
        """The first elements."""
        assert self.dtype is not None
        found: Numbers = np.frombuffer(raw, self.dtype, min(len(raw), MOST_BYTES) // self.dtype.itemsize)
        return _widened(found) if self.spec.datatype is Datatype.BF16 else found

    def figure(self, shape: tuple[int, ...], values: Numbers) -> float:
        """The class on top of the first row, or its mean if it has no classes."""
        by_rows = self.spec.shape is None or self.spec.has_batch_dimension
        row = shape[1:] if by_rows else shape
        if row and row[-1] >= _LEAST_CLASSES:
            return float(values[: row[-1]].argmax())
        return _mean(values[: prod(row)])


class OutputReader:
    """Reads the answers of one signature. Outputs that are not in it, the state of a session, are not judged."""

    def __init__(self, signature: Signature) -> None:
        """Prepares the look-ups; `signature` is as callers see it."""
        self._outputs = {spec.name: _Output(spec, label_of(signature.name, spec.name)) for spec in signature.outputs}

    def read(self, answer: Answer, *, figures: bool) -> Reading:
        """Looks at every output; without `figures` only at whether it keeps to the signature."""
        breaks, found = False, list[tuple[str, float]]()
        for output in answer.outputs:
            known = self._outputs.get(output.name)
            if known is None:
                continue
            shape = tuple(output.shape)
            values = _checked(known, output, shape)
            if values is None:
                breaks = True
            elif figures and len(values):
                found.append((known.label, known.figure(shape, values)))
        return Reading(breaks, found)


_NONE: Numbers = np.empty(0)


def _checked(known: _Output, output: OutputTensor, shape: tuple[int, ...]) -> Numbers | None:
    """The first elements of an output, none if they are no numbers; None if it breaks the schema."""
    if output.datatype != known.spec.datatype or not known.spec.accepts(shape):
        return None
    if known.dtype is None:
        return _NONE
    raw = output.raw
    if len(raw) != prod(shape) * known.dtype.itemsize:
        return None
    values = known.values(raw)
    if known.floating and not np.logical_and.reduce(np.isfinite(values)):
        return None
    return values


def _widened(values: Numbers) -> Numbers:
    """bfloat16 is the upper half of float32."""
    widened: Numbers = (values.astype("<u4") << _BF16_BITS).view("<f4")
    return widened


@np.errstate(over="ignore")
def _mean(values: Numbers) -> float:
    return float(values.mean(dtype=np.float64))
