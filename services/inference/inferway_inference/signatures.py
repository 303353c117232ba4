"""What a version can be asked: signatures, and the checks that a request's tensors must pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from inferway.datatypes import FLOATING, ITEM_BYTES, MAX_RANK, Datatype
from inferway.errors import (
    ContentsMismatch,
    DatatypeMismatch,
    InvalidBatch,
    MissingInput,
    NanNotAllowed,
    ShapeMismatch,
    UnknownInput,
    UnknownOutput,
)
from inferway_inference.tensors import Tensor, check_byte_strings


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a signature expects of one tensor."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...] | None
    """Every dimension, -1 where any size will do; None if not even their number is fixed."""
    forbid_nan: bool = False

    @property
    def has_batch_dimension(self) -> bool:
        """The first dimension is there and of any size."""
        return bool(self.shape) and self.shape is not None and self.shape[0] < 0

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of `shape` fits."""
        if self.shape is None:
            return len(shape) <= MAX_RANK and min(shape, default=0) >= 0
        if len(shape) != len(self.shape):
            return False
        for want, got in zip(self.shape, shape, strict=True):  # noqa: SIM110 - `all` costs a generator each time
            if got < 0 or (want >= 0 and got != want):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """One callable of a version. Inputs and outputs are ordered by name."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool = field(default=False)
    """Rows of several requests may go into one call: every input and output has a leading dimension of any size."""

    @classmethod
    def of(cls, name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
        """Orders the tensors and finds out whether rows can be batched, as far as shapes tell."""
        ordered = sorted(inputs, key=lambda spec: spec.name), sorted(outputs, key=lambda spec: spec.name)
        batchable = all(spec.has_batch_dimension for spec in (*inputs, *outputs))
        return cls(name, tuple(ordered[0]), tuple(ordered[1]), batchable and bool(inputs))

    def unbatched(self) -> Signature:
        """The same, of which every request is called alone."""
        return replace(self, batchable=False)

    def same_tensors(self, other: Signature) -> bool:
        """Whether both have inputs and outputs of the same names and datatypes."""
        return _kinds(self.inputs) == _kinds(other.inputs) and _kinds(self.outputs) == _kinds(other.outputs)

    def output_indexes(self, names: Sequence[str]) -> tuple[int, ...]:
        """Positions of the named outputs, of all if none is named; raises UnknownOutput."""
        if not names:
            return tuple(range(len(self.outputs)))
        positions = {spec.name: index for index, spec in enumerate(self.outputs)}
        for name in names:
            if name not in positions:
                raise UnknownOutput.at(
                    "output_names",
                    f"signature {self.name!r} has no output {name!r}; it has {', '.join(positions)}",
                    output=name,
                    signature=self.name,
                )
        return tuple(dict.fromkeys(positions[name] for name in names))

    def check(self, inputs: Sequence[Tensor]) -> int:
        """Returns the rows of `inputs`, which must be in the order of the signature; raises InvalidRequest.

        Looks at everything, contents too: whoever sent them is on the other side of a network.
        """
        if len(inputs) != len(self.inputs):
            raise _wrong_names(self, inputs)
        rows = -1
        for spec, tensor in zip(self.inputs, inputs, strict=True):
            if tensor.name != spec.name:
                raise _wrong_names(self, inputs)
            _check_tensor(spec, tensor)
            if self.batchable:
                rows = _same_rows(rows, tensor)
        return rows if self.batchable else 1


def _kinds(specs: tuple[TensorSpec, ...]) -> list[tuple[str, Datatype]]:
    return [(spec.name, spec.datatype) for spec in specs]


def _field(name: str) -> str:
    """An input by its name: its place here is that of the signature, which the caller does not know."""
    return f'inputs["{name}"]'


def _same_rows(rows: int, tensor: Tensor) -> int:
    own = tensor.shape[0]
    if own < 1 or rows not in (-1, own):
        wanted = "at least one row" if own < 1 else f"{rows} rows as the inputs before it"
        raise InvalidBatch.at(
            _field(tensor.name), f"input {tensor.name!r} has {own} rows; expected {wanted}", input=tensor.name
        )
    return own


def _check_tensor(spec: TensorSpec, tensor: Tensor) -> None:
    if tensor.datatype != spec.datatype:
        actual = next((known.name for known in Datatype if known == tensor.datatype), "of an unknown datatype")
        raise DatatypeMismatch.at(
            _field(spec.name),
            f"input {spec.name!r} is {actual}; expected {spec.datatype.name}",
            input=spec.name,
            expected=spec.datatype.name,
            actual=actual,
        )
    if not spec.accepts(tensor.shape):
        expected = f"at most {MAX_RANK} dimensions" if spec.shape is None else list(spec.shape)
        raise ShapeMismatch.at(
            _field(spec.name),
            f"input {spec.name!r} has shape {list(tensor.shape[:MAX_RANK])}; expected {expected}",
            input=spec.name,
            expected=expected,
            actual=list(tensor.shape[:MAX_RANK]),
        )
    _check_contents(spec, tensor)


def _check_contents(spec: TensorSpec, tensor: Tensor) -> None:
    count = math.prod(tensor.shape)
    if spec.datatype is Datatype.BYTES:
        check_byte_strings(tensor, count, _field(spec.name))
        return
    expected = count * ITEM_BYTES[spec.datatype]
    if len(tensor.raw) != expected:
        raise ContentsMismatch.at(
            _field(spec.name),
            f"input {spec.name!r} has {len(tensor.raw)} bytes; expected {expected} for its shape and datatype",
            input=spec.name,
            expected=expected,
            actual=len(tensor.raw),
        )
    if spec.forbid_nan and spec.datatype in FLOATING and _has_nan(spec.datatype, tensor.raw):
        raise NanNotAllowed.at(_field(spec.name), f"input {spec.name!r} has a NaN element", input=spec.name)


_NUMPY_FLOATS = {Datatype.FP16: "<f2", Datatype.FP32: "<f4", Datatype.FP64: "<f8"}


def _has_nan(datatype: Datatype, raw: bytes) -> bool:
    kind = _NUMPY_FLOATS.get(datatype)
    if kind is not None:
        return bool(np.isnan(np.frombuffer(raw, kind)).any())
    # bfloat16: all exponent bits set and a mantissa that is not zero.
    return bool(((np.frombuffer(raw, "<u2") & 0x7FFF) > 0x7F80).any())  # noqa: PLR2004 - the bits of infinity


def _wrong_names(signature: Signature, inputs: Sequence[Tensor]) -> UnknownInput | MissingInput:
    expected = [spec.name for spec in signature.inputs]
    for index, tensor in enumerate(inputs):
        if tensor.name not in expected:
            return UnknownInput.at(
                f"inputs[{index}].name",
                f"signature {signature.name!r} has no input {tensor.name!r}; it has {', '.join(expected)}",
                input=tensor.name,
                signature=signature.name,
            )
    given = [tensor.name for tensor in inputs]
    missing = next((name for name in expected if name not in given), expected[0] if expected else "")
    return MissingInput.at(
        "inputs",
        f"signature {signature.name!r} takes {', '.join(expected)}, each once and in this order",
        input=missing,
        signature=signature.name,
    )
