"""Inputs of predictions: read from the command line, or made up to fit a signature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer

from inferway.datatypes import FLOATING, Datatype
from inferway_cli.console import CommandError
from inferway_cli.signatures import Signature, TensorSpec
from inferway_client.tensors import Array, dtype_of

SYNTHETIC_INTEGERS = 10


def read_inputs(arguments: Sequence[str], signature: Signature) -> dict[str, Array]:
    """Reads `name=JSON`, `name=@file.npy` or `name=@file.json` for each argument, in the signature's datatypes.

    Raises typer.BadParameter for malformed arguments, CommandError for a file that cannot be read and for an input that
    the signature does not have.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    inputs: dict[str, Array] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise typer.BadParameter(f"--input {argument!r} has no '='; write {name}=[...] or {name}=@file.npy")
        if name not in specs:
            raise CommandError(f"the model has no input {name!r}; it takes {', '.join(specs)}")
        inputs[name] = _as_array(_read_values(name, text), specs[name])
    return inputs


def synthesise(signature: Signature, rows: int, generator: np.random.Generator) -> dict[str, Array]:
    """Makes up inputs of `rows` rows: numbers in [0, 1) or small whole ones, and short words.

    Unknown sizes but the first are 1. A signature without a batch dimension gets its own shape.
    """
    return {spec.name: _synthetic(spec, rows, generator) for spec in signature.inputs}


def batches_of(inputs: dict[str, Array], rows: int) -> list[dict[str, Array]]:
    """The inputs cut into requests of `rows` rows each; what is left over at the end is not sent.

    Raises CommandError if they have fewer rows, different numbers of them, or none at all.
    """
    if any(array.ndim == 0 for array in inputs.values()):
        raise CommandError("--input has no rows that could be sent one after another")
    count = min(len(array) for array in inputs.values())
    if count < rows or any(len(array) != count for array in inputs.values()):
        raise CommandError(f"every --input must have the same number of rows, at least {rows}")
    starts = range(0, count - rows + 1, rows)
    return [{name: array[start : start + rows] for name, array in inputs.items()} for start in starts]


def _read_values(name: str, text: str) -> Any:
    try:
        if not text.startswith("@"):
            return json.loads(text)
        path = Path(text[1:])
        return np.load(path, allow_pickle=False) if path.suffix == ".npy" else json.loads(path.read_text())
    except OSError as error:
        raise CommandError(f"--input {name}: {error.filename} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise typer.BadParameter(
            f"--input {name} is neither JSON nor the name of a .npy file after '@': {error}"
        ) from None


def _as_array(values: Any, spec: TensorSpec) -> Array:
    """Values as the signature has them; one row without its batch dimension gets one."""
    try:
        array = np.asarray(values, dtype=dtype_of(spec.datatype))
    except (TypeError, ValueError, OverflowError) as error:
        raise CommandError(f"--input {spec.name} does not fit {spec.datatype.name}: {error}") from None
    missing_batch = array.ndim == len(spec.shape) - 1 and spec.shape[:1] == (-1,)
    return array[np.newaxis] if missing_batch else array


def _synthetic(spec: TensorSpec, rows: int, generator: np.random.Generator) -> Array:
    shape = [rows if axis == 0 else 1 if size < 0 else size for axis, size in enumerate(spec.shape)]
    if spec.shape and spec.shape[0] >= 0:
        shape[0] = spec.shape[0]
    if spec.datatype in FLOATING:
        return np.asarray(generator.random(shape), dtype_of(spec.datatype))
    whole = generator.integers(0, SYNTHETIC_INTEGERS, shape)
    if spec.datatype is Datatype.BYTES:
        return np.asarray([f"word-{number}".encode() for number in whole.ravel()], object).reshape(shape)
    return np.asarray(whole % 2 if spec.datatype is Datatype.BOOL else whole, dtype_of(spec.datatype))
