"""Examples that a version must answer as its publisher says before it may serve.

They are in `assets.extra/inferway_golden.npz`: arrays `inputs/<name>` and `outputs/<name>`, and, if wanted, `signature`
(`serving_default` otherwise), `rtol` and `atol` (as for `numpy.allclose`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferway.datatypes import FLOATING, Datatype
from inferway.errors import CorruptArtifact, GoldenMismatch
from inferway_inference.runner.arrays import NUMPY_TYPES, from_numpy, to_numpy
from inferway_inference.runner.asking import ask
from inferway_inference.runner.base import Runner
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Array

FILE = "assets.extra/inferway_golden.npz"
TOLERANCE = 1e-3, 1e-5
"""Relative and absolute, unless the file says otherwise."""
_DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True, slots=True)
class Golden:
    """The content of the file."""

    signature: str
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    rtol: float
    atol: float


def read_golden(folder: Path) -> Golden | None:
    """The examples of a version, if it has any; raises CorruptArtifact if they cannot be read."""
    if not (folder / FILE).exists():
        return None
    try:
        with np.load(folder / FILE, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        return Golden(
            signature=str(arrays.pop("signature", _DEFAULT_SIGNATURE)),
            inputs=_named(arrays, "inputs/"),
            outputs=_named(arrays, "outputs/"),
            rtol=float(arrays.pop("rtol", TOLERANCE[0])),
            atol=float(arrays.pop("atol", TOLERANCE[1])),
        )
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise CorruptArtifact(f"{FILE} cannot be read: {type(error).__name__}", path=FILE) from error


async def check_golden(runner: Runner, signatures: Sequence[tuple[int, Signature]], golden: Golden) -> None:
    """Raises GoldenMismatch unless the version answers as the examples say, and CorruptArtifact if they do not fit."""
    position, signature = _signature(signatures, golden)
    inputs = [_encoded(spec, _given(golden.inputs, spec)) for spec in signature.inputs]
    outputs = (await ask(runner, position, inputs, len(signature.outputs))).outputs
    for spec, answered in zip(signature.outputs, outputs, strict=True):
        if spec.name in golden.outputs:
            difference = _difference(golden, spec, to_numpy(answered))
            if difference:
                raise GoldenMismatch(
                    f"output {spec.name!r} is not what {FILE} says: {difference}",
                    output=spec.name,
                    signature=signature.name,
                )


def _named(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _signature(signatures: Sequence[tuple[int, Signature]], golden: Golden) -> tuple[int, Signature]:
    found = next(((position, one) for position, one in signatures if one.name == golden.signature), None)
    unknown = golden.outputs.keys() - {spec.name for spec in found[1].outputs} if found else golden.outputs.keys()
    if found is None or unknown or not golden.outputs:
        wanted = ", ".join(sorted(unknown)) or "no outputs"
        message = f"{FILE} has examples for {golden.signature!r} with {wanted}, which the version does not have"
        raise CorruptArtifact(message, path=FILE)
    return found


def _given(arrays: dict[str, NDArray[Any]], spec: TensorSpec) -> NDArray[Any]:
    values = arrays.get(spec.name)
    if values is None or not spec.accepts(values.shape):
        raise CorruptArtifact(f"{FILE} has no input {spec.name!r} of a shape that fits the signature", path=FILE)
    return values


def _encoded(spec: TensorSpec, values: NDArray[Any]) -> Array:
    if spec.datatype is Datatype.BYTES:
        return from_numpy(values.astype(object), spec.datatype, spec.name)
    return from_numpy(values.astype(NUMPY_TYPES[spec.datatype]), spec.datatype, spec.name)


def _difference(golden: Golden, spec: TensorSpec, answered: NDArray[Any]) -> str:
    """In words; empty if there is none that matters."""
    expected = golden.outputs[spec.name]
    if answered.shape != expected.shape:
        return f"shape {list(answered.shape)} instead of {list(expected.shape)}"
    if spec.datatype not in FLOATING:
        return _first(expected.astype(answered.dtype) != answered, expected, answered)
    wanted, got = expected.astype("f8"), answered.astype("f8")
    close = np.isclose(got, wanted, rtol=golden.rtol, atol=golden.atol, equal_nan=True)
    return _first(~close, expected, answered)


def _first(different: NDArray[np.bool_], expected: NDArray[Any], answered: NDArray[Any]) -> str:
    if not different.any():
        return ""
    place = tuple(int(index) for index in np.argwhere(different)[0])
    return f"{answered[place]} instead of {expected[place]} at {list(place)}, and {int(different.sum()) - 1} more"
