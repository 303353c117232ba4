"""State: which outputs a session carries to which inputs. Judges a publisher's bindings by the signatures. Pure."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import replace

from inferway.datatypes import ITEM_BYTES, MAX_RANK, Datatype, element_count
from inferway.errors import InvalidField
from inferway_registry.resources import Signature, StateBinding, TensorSpec
from inferway_registry.wording import listed, shown

MAX_BINDINGS = 64
MAX_ROW_BYTES = 1 << 20
"""State of one row, all of a signature's bindings together: a gateway keeps it for every session."""
MAX_INITIAL_BYTES = 64 << 10
"""Of all bindings together: gateways and workers read it with every snapshot."""
DEFAULT_SIGNATURE = "serving_default"
_LENGTH = struct.Struct("<I")

Shape = tuple[int, ...]


def resolve(
    bindings: Sequence[StateBinding], signatures: Sequence[Signature], forbid_nan_inputs: Collection[str]
) -> tuple[StateBinding, ...]:
    """The bindings as they are published: each with its signature's name and the shape of a row.

    Raises InvalidField for the first that the signatures do not permit, at `config.state[i]` and the field at fault.
    """
    resolved: list[StateBinding] = []
    for index, binding in enumerate(bindings):
        field = f"config.state[{index}]"
        signature = _signature(binding.signature, signatures, f"{field}.signature")
        taken = [other for other in resolved if other.signature == signature.name]
        if binding.input in forbid_nan_inputs:
            raise InvalidField.at(
                f"{field}.input",
                f"{shown(binding.input)!r} is state, which no caller sends: forbid_nan_inputs may not name it",
            )
        resolved.append(_resolved(binding, signature, taken, field))
    return tuple(resolved)


def _signature(name: str, signatures: Sequence[Signature], field: str) -> Signature:
    by_name = {signature.name: signature for signature in signatures}
    if not name:
        name = DEFAULT_SIGNATURE if len(signatures) > 1 else signatures[0].name
    if name not in by_name:
        raise InvalidField.at(field, f"there is no signature {shown(name)!r}; there is {listed(sorted(by_name))}")
    return by_name[name]


def _resolved(binding: StateBinding, signature: Signature, taken: Sequence[StateBinding], field: str) -> StateBinding:
    """`taken` are the bindings of the same signature that came before."""
    source = _tensor("output", binding.output, signature.outputs, {one.output for one in taken}, field)
    target = _tensor("input", binding.input, signature.inputs, {one.input for one in taken}, field)
    if len(taken) + 1 == len(signature.inputs):
        problem = f"with {target.name!r} all inputs of {signature.name!r} are state, and callers have nothing to send"
        raise InvalidField.at(f"{field}.input", problem)
    if source.datatype is not target.datatype:
        kinds = f"{source.name!r} is {source.datatype.name} and input {target.name!r} {target.datatype.name}"
        raise InvalidField.at(f"{field}.output", f"{kinds}; state has one datatype")
    shape = _row_shape(binding.shape, signature, source, target, field)
    done = replace(binding, signature=signature.name, shape=shape)
    if sum(_row_bytes(one, signature) for one in (*taken, done)) > MAX_ROW_BYTES:
        raise InvalidField.at(f"{field}.shape", f"the state of one row takes more than {MAX_ROW_BYTES} bytes")
    _check_initial(binding.initial, target, shape, f"{field}.initial")
    return done


def _tensor(side: str, name: str, specs: Sequence[TensorSpec], taken: Collection[str], field: str) -> TensorSpec:
    found = next((spec for spec in specs if spec.name == name), None)
    if found is None:
        known = listed([spec.name for spec in specs]) or "none"
        raise InvalidField.at(f"{field}.{side}", f"the signature has no {side} {shown(name)!r}; it has {known}")
    if name in taken:
        raise InvalidField.at(f"{field}.{side}", f"{name!r} is bound already; an {side} is bound once")
    return found


def _row_shape(given: Shape, signature: Signature, source: TensorSpec, target: TensorSpec, field: str) -> Shape:
    """The shape of a row, whole if the signature has no batch dimension: as given, or as the signature fixes it."""
    common = _common(source, target, f"{field}.output")
    row = common[1:] if common is not None and signature.batchable else common
    where = f"{field}.shape"
    if any(size < 1 for size in given) or len(given) > MAX_RANK - signature.batchable:
        raise InvalidField.at(where, f"{_words(given)} is no shape of a row; expected sizes from 1, without the batch")
    if given and (row is None or _merged(given, row) == given):
        return given
    if given:
        raise InvalidField.at(where, f"is {_words(given)}; a row of {target.name!r} is {_words(row)}")
    if row is None or min(row, default=1) < 0:
        raise InvalidField.at(where, f"must be given, because the signature leaves it open: {_words(row)}")
    if 0 in row:
        raise InvalidField.at(where, f"{target.name!r} has no elements: {_words(row)}")
    return row


def _common(source: TensorSpec, target: TensorSpec, field: str) -> Shape | None:
    """What is known of a shape that both have."""
    if source.shape is None or target.shape is None:
        return target.shape if source.shape is None else source.shape
    merged = _merged(source.shape, target.shape)
    if merged is None:
        shapes = f"{source.name!r} is {_words(source.shape)}, but input {target.name!r} {_words(target.shape)}"
        raise InvalidField.at(field, f"{shapes}; an output must fit the input that it is bound to")
    return merged


def _merged(one: Shape, other: Shape) -> Shape | None:
    """The sizes that either fixes; None if they contradict each other."""
    if len(one) != len(other) or any(a != b and min(a, b) >= 0 for a, b in zip(one, other, strict=True)):
        return None
    return tuple(map(max, one, other))


def _row_bytes(binding: StateBinding, signature: Signature) -> int:
    """What the state of a row takes; of strings, what is known of it before the first item."""
    datatype = next(spec.datatype for spec in signature.inputs if spec.name == binding.input)
    known = element_count(binding.shape) * ITEM_BYTES.get(datatype, _LENGTH.size)
    return max(known, len(binding.initial))


def _check_initial(initial: bytes, spec: TensorSpec, shape: Shape, field: str) -> None:
    if not initial:
        return
    count = element_count(shape)
    if spec.datatype is Datatype.BYTES:
        if _strings(initial) != count:
            raise InvalidField.at(field, f"expected {count} elements, each a 4-byte little-endian length and its bytes")
        return
    expected = count * ITEM_BYTES[spec.datatype]
    if len(initial) != expected:
        raise InvalidField.at(
            field, f"has {len(initial)} bytes; a row of {spec.datatype.name} {_words(shape)} takes {expected}"
        )


def _strings(raw: bytes) -> int | None:
    """How many length-prefixed strings `raw` consists of; None if it does not."""
    count = position = 0
    while position + _LENGTH.size <= len(raw):
        position += _LENGTH.size + _LENGTH.unpack_from(raw, position)[0]
        count += 1
    return count if position == len(raw) else None


def _words(shape: Shape | None) -> str:
    return "[...]" if shape is None else f"[{', '.join('?' if size < 0 else str(size) for size in shape)}]"
