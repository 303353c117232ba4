"""Checks everything about a request that can be known without looking into the bytes, before anything is forwarded.

What needs the bytes themselves (lengths inside BYTES tensors, NaN) the worker checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from inferway.datatypes import MAX_RANK, Datatype, element_count
from inferway.errors import (
    ContentsMismatch,
    DatatypeMismatch,
    DuplicateInput,
    InvalidBatch,
    InvalidBytesTensor,
    InvalidField,
    MissingInput,
    ShapeMismatch,
    UnknownInput,
    UnknownOutput,
)
from inferway_gateway.routing import clipped, shown
from inferway_gateway.signature import Headers, InputPlan, Passed, Signature
from inferway_gateway.tensors import Tensor

MAX_ROWS = 1 << 24
"""Of one request. Rows of no bytes cost their sender nothing, and credits are counted in rows."""
_LENGTH_PREFIX_BYTES = 4
_SHOWN_NAMES = 20


class FieldNames(NamedTuple):
    """How a door's protocol calls the parts of a request, `{}` standing for the index; for error messages."""

    endpoint: str
    signature: str
    contents: str
    output: str


class Admitted(NamedTuple):
    """What may be forwarded."""

    inputs: Sequence[Tensor]
    """In the order of the signature."""
    rows: int
    """Size of the batch dimension; 1 if the signature has none."""
    byte_count: int
    """Of all inputs."""


def checked_shape(dimensions: Sequence[int], index: int, name: str) -> tuple[int, ...]:
    """The shape of input `name`, the one at `index`, if any tensor may have it. Raises ShapeMismatch.

    The rank comes first: nothing is computed from a shape of 100,000 dimensions.
    """
    if len(dimensions) > MAX_RANK:
        raise ShapeMismatch.at(
            f"inputs[{index}].shape",
            f"has {len(dimensions)} dimensions; at most {MAX_RANK} are permitted",
            input=clipped(name),
            expected=f"at most {MAX_RANK} dimensions",
            actual=f"{len(dimensions)} dimensions",
        )
    shape = tuple(dimensions)
    if shape and min(shape) < 0:
        raise ShapeMismatch.at(
            f"inputs[{index}].shape",
            f"{_text(shape)} has a negative dimension",
            input=clipped(name),
            expected="0 or more",
            actual=_text(shape),
        )
    return shape


def admit(signature: Signature, tensors: Sequence[Tensor], outputs: Iterable[str], names: FieldNames) -> Admitted:
    """Checks inputs and requested outputs against `signature`. Shapes have passed `checked_shape`.

    Raises UnknownInput, DuplicateInput, MissingInput, DatatypeMismatch, ShapeMismatch, ContentsMismatch,
    InvalidBytesTensor, InvalidBatch, UnknownOutput, InvalidField (an output asked for twice).
    """
    headers = tuple([tensor[:3] for tensor in tensors])
    known = signature.passed.get(headers)
    if known is None or known.sizes != [len(tensor.raw) for tensor in tensors]:
        return _admit_unknown(signature, headers, tensors, outputs, names)
    if outputs:
        check_outputs(signature, outputs, names)
    inputs = tensors if known.order is None else [tensors[index] for index in known.order]
    return Admitted(inputs, known.rows, known.byte_count)


def _admit_unknown(
    signature: Signature, headers: Headers, tensors: Sequence[Tensor], outputs: Iterable[str], names: FieldNames
) -> Admitted:
    """Checks one by one, and remembers headers that passed if they say all that there is to check."""
    inputs = _placed(signature, tensors, names)
    if outputs:
        check_outputs(signature, outputs, names)
    rows = _rows(signature, inputs) if signature.batchable else 1
    sizes = [len(tensor.raw) for tensor in tensors]
    if all(plan.item_bytes for plan in signature.plans.values()):
        order = None if inputs == tensors else tuple(tensors.index(tensor) for tensor in inputs)
        signature.remember(headers, Passed(sizes, order, rows, sum(sizes)))
    return Admitted(inputs, rows, sum(sizes))


def _placed(signature: Signature, tensors: Sequence[Tensor], names: FieldNames) -> list[Tensor]:
    placed: list[Tensor | None] = [None] * len(signature.inputs)
    for index, tensor in enumerate(tensors):
        plan = signature.plans.get(tensor.name)
        if plan is None:
            raise _unknown_input(signature, tensor.name, index)
        if placed[plan.position] is not None:
            raise DuplicateInput.at(
                f"inputs[{index}].name", f"input {shown(tensor.name)} is given twice", input=tensor.name
            )
        _check_tensor(plan, tensor, index, names)
        placed[plan.position] = tensor
    inputs = [tensor for tensor in placed if tensor is not None]
    if len(inputs) != len(placed):
        raise _missing_input(signature, placed)
    return inputs


def _check_tensor(plan: InputPlan, tensor: Tensor, index: int, names: FieldNames) -> None:
    spec = plan.spec
    if tensor.datatype is not spec.datatype:
        raise DatatypeMismatch.at(
            f"inputs[{index}].datatype",
            f"{tensor.datatype.name} given for input {spec.name}, which takes {spec.datatype.name}",
            input=spec.name,
            expected=spec.datatype.name,
            actual=tensor.datatype.name,
        )
    if not spec.accepts(tensor.shape):
        expected = "any" if spec.shape is None else _text(spec.shape)
        raise ShapeMismatch.at(
            f"inputs[{index}].shape",
            f"{_text(tensor.shape)} does not fit input {spec.name}, which takes {expected} (-1 is any size)",
            input=spec.name,
            expected=expected,
            actual=_text(tensor.shape),
        )
    count, size = element_count(tensor.shape), len(tensor.raw)
    if count * plan.item_bytes != size and plan.item_bytes:
        raise _wrong_length(tensor, names.contents.format(index), count * plan.item_bytes)
    if not plan.item_bytes and size < count * _LENGTH_PREFIX_BYTES:
        raise InvalidBytesTensor.at(
            names.contents.format(index),
            f"{size} bytes cannot hold the {count} length-prefixed elements of shape {_text(tensor.shape)}",
            input=spec.name,
        )


def _rows(signature: Signature, inputs: Sequence[Tensor]) -> int:
    if not inputs:
        return 1
    rows = inputs[0].shape[0]
    for tensor in inputs:
        if tensor.shape[0] != rows:
            raise InvalidBatch.at(
                "inputs",
                f"the batch dimensions differ: {inputs[0].name} has {rows} rows, {tensor.name} {tensor.shape[0]}",
                input=tensor.name,
            )
    if rows == 0:
        raise InvalidBatch.at(
            "inputs",
            f"the batch is empty: signature {signature.name} needs at least one row",
            input=inputs[0].name,
        )
    if rows > MAX_ROWS:
        raise InvalidBatch.at(
            "inputs", f"the batch has {rows} rows; at most {MAX_ROWS} are permitted", input=inputs[0].name
        )
    return rows


def check_outputs(signature: Signature, outputs: Iterable[str], names: FieldNames) -> None:
    """Raises UnknownOutput, or InvalidField if one is asked for twice."""
    seen = set[str]()
    for index, output in enumerate(outputs):
        if output not in signature.output_names:
            known = _listed(spec.name for spec in signature.outputs)
            raise UnknownOutput.at(
                names.output.format(index),
                f"signature {signature.name} has no output {shown(output)}; it has: {known}",
                output=clipped(output),
                signature=signature.name,
            )
        if output in seen:
            raise InvalidField.at(names.output.format(index), f"output {output} is asked for twice")
        seen.add(output)


def _unknown_input(signature: Signature, name: str, index: int) -> UnknownInput:
    known = _listed(spec.name for spec in signature.inputs)
    return UnknownInput.at(
        f"inputs[{index}].name",
        f"signature {signature.name} has no input {shown(name)}; it has: {known}",
        input=clipped(name),
        signature=signature.name,
    )


def _missing_input(signature: Signature, placed: Sequence[Tensor | None]) -> MissingInput:
    missing = next(spec for spec, tensor in zip(signature.inputs, placed, strict=True) if tensor is None)
    return MissingInput.at(
        "inputs",
        f"input {missing.name} ({missing.datatype.name}) of signature {signature.name} is missing",
        input=missing.name,
        signature=signature.name,
    )


def _wrong_length(tensor: Tensor, field: str, expected: int) -> ContentsMismatch:
    return ContentsMismatch.at(
        field,
        f"input {tensor.name} has {len(tensor.raw)} bytes; "
        f"shape {_text(tensor.shape)} of {tensor.datatype.name} takes {expected}",
        input=tensor.name,
        expected=expected,
        actual=len(tensor.raw),
    )


def unknown_datatype(given: str, index: int, name: str, prefix: str = "") -> DatatypeMismatch:
    """The error for a datatype that the protocol, which puts `prefix` before their names, does not have."""
    known = ", ".join(prefix + datatype.name for datatype in Datatype)
    return DatatypeMismatch.at(
        f"inputs[{index}].datatype",
        f"{shown(given)} is no datatype; there are {known}",
        input=clipped(name),
        expected=known,
        actual=clipped(given),
    )


def _text(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:_SHOWN_NAMES]) + (", …" if len(known) > _SHOWN_NAMES else "")
