"""The key `state` of `inferway.yaml`: which output of a stateful model becomes which input of the session's next item.

state:
  - {output: next_state, input: state}
  - output: next_count
    input: count
    signature: serving_default
    shape: [2]
    datatype: INT64
    initial: 0

`shape` is that of one row, without the batch; it is needed where the model leaves it open. `initial` is a number for
all elements, or lists of them, either with a `datatype`; or the raw bytes of a row in base64. Without it a session
begins with zeros, or empty strings.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inferway.datatypes import FLOATING, MAX_RANK, Datatype
from inferway.registry.v1 import resources_pb2
from inferway_cli.console import CommandError
from inferway_client.tensors import Array, dtype_of, encode

MAX_ELEMENTS = 1 << 20
"""Of a row; the registry permits fewer, and says how many."""
_KEYS = ("output", "input", "signature", "shape", "datatype", "initial")
_KINDS = {Datatype.BOOL: "b", Datatype.BYTES: "U"} | dict.fromkeys(FLOATING, "iuf")
"""NumPy's kinds of the values that a datatype takes; whole numbers if it is not here."""


def read_state(entries: Sequence[Mapping[str, Any]], where: str) -> list[resources_pb2.StateBinding]:
    """The bindings of a list; raises CommandError that begins with `where` and the binding's place in it."""
    return [_read(entry, f"{where}[{index}]") for index, entry in enumerate(entries)]


def _read(entry: Mapping[str, Any], where: str) -> resources_pb2.StateBinding:
    unknown = sorted(str(key) for key in entry.keys() - set(_KEYS))
    if unknown:
        raise CommandError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    missing = [key for key in ("output", "input") if key not in entry]
    if missing:
        raise CommandError(f"{where}: {missing[0]} is missing; a binding is {{output: next_state, input: state}}")
    for key in ("output", "input", "signature"):
        if not isinstance(entry.get(key, ""), str):
            raise CommandError(f"{where}: {key} must be a name, not {entry[key]!r}")
    shape = _shape(entry.get("shape", []), where)
    given, initial = _initial(entry, shape, where)
    return resources_pb2.StateBinding(
        output=entry["output"],
        input=entry["input"],
        signature=entry.get("signature", ""),
        shape=given,
        initial=initial,
    )


def _shape(value: object, where: str) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(size, int) and 0 < size <= MAX_ELEMENTS for size in value):
        raise CommandError(f"{where}: shape must be a list of sizes without the batch, such as [32], not {value!r}")
    if len(value) > MAX_RANK or np.prod(value, dtype=object) > MAX_ELEMENTS:
        raise CommandError(f"{where}: shape {value} is too large for state")
    return value


def _initial(entry: Mapping[str, Any], shape: list[int], where: str) -> tuple[list[int], bytes]:
    """The row's shape and its bytes: lists tell the shape, too."""
    value, name = entry.get("initial"), entry.get("datatype")
    if value is None or isinstance(value, str):
        if name is not None:
            raise CommandError(f"{where}: datatype belongs to an initial number or list; leave it out")
        return shape, _from_base64(value or "", where)
    datatype = Datatype.__members__.get(name) if isinstance(name, str) else None
    if datatype is None:
        known = ", ".join(Datatype.__members__)
        raise CommandError(f"{where}: initial {value!r} needs a datatype, that of the input: one of {known}")
    array = _array(value, datatype, where)
    if isinstance(value, list):
        if shape and list(array.shape) != shape:
            raise CommandError(f"{where}: initial has shape {list(array.shape)}, but shape says {shape}")
        return list(array.shape), encode("initial", array).raw
    if "shape" not in entry:
        raise CommandError(f"{where}: initial {value!r} fills a row, so shape must say how large one is, such as [32]")
    return shape, encode("initial", np.full(shape, array)).raw


def _from_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise CommandError(
            f"{where}: initial {text!r} is not base64; write numbers or texts as a list with a datatype"
        ) from None


def _array(value: object, datatype: Datatype, where: str) -> Array:
    """The values as the model has them, none of them rounded to another kind."""
    try:
        kind = np.asarray(value).dtype.kind
        with np.errstate(over="raise"):
            array = np.asarray(value, dtype_of(datatype))
    except (TypeError, ValueError, OverflowError, FloatingPointError) as error:
        raise CommandError(f"{where}: initial does not fit {datatype.name}: {error}") from None
    if kind not in _KINDS.get(datatype, "iu"):
        raise CommandError(f"{where}: initial does not fit {datatype.name}: its values are of another kind")
    return array
