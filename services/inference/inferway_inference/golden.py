"""Examples that a version must answer as its publisher says before it may serve.

They are in `assets.extra/inferway_golden.npz`: arrays `inputs/<name>` and `outputs/<name>`, and, if wanted, `signature`
(`serving_default` otherwise), `rtol` and `atol` (as for `numpy.allclose`). What the file would unfold to is bounded
before anything of it is read.
"""

from __future__ import annotations

import asyncio
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
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
MAX_BYTES = 64 * 1024 * 1024
"""Of all arrays together, as they are once they are unpacked."""
_STRING_BYTES = 64
"""What a string takes while it is converted."""
_DEFAULT_SIGNATURE = "serving_default"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""By version of the format; a third is for records with names beyond Latin-1."""


@dataclass(frozen=True, slots=True)
class Golden:
    """The content of the file."""

    signature: str
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    rtol: float
    atol: float


def read_golden(folder: Path) -> Golden | None:
    """The examples of a version, if it has any; raises CorruptArtifact if they are none, or more than `MAX_BYTES`.

    May take seconds: not for the event loop.
    """
    path = folder / FILE
    if not path.exists():
        return None
    with _readable():
        _check_size(path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            _check_size(sum(entry.file_size for entry in archive.infolist()))
            arrays = {name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()}
        _check_size(sum(_unfolded_bytes(values) for values in arrays.values()))
        return _golden(arrays)


async def check_golden(runner: Runner, signatures: Sequence[tuple[int, Signature]], golden: Golden) -> None:
    """Raises GoldenMismatch unless the version answers as the examples say, and CorruptArtifact if they do not fit."""
    position, signature = _signature(signatures, golden)
    inputs = await asyncio.to_thread(_inputs, golden, signature)
    reply = await ask(runner, position, inputs, len(signature.outputs))
    await asyncio.to_thread(_compare, golden, signature, reply.outputs)


def _inputs(golden: Golden, signature: Signature) -> list[Array]:
    with _readable():
        return [_encoded(spec, _given(golden.inputs, spec)) for spec in signature.inputs]


def _compare(golden: Golden, signature: Signature, outputs: Sequence[Array]) -> None:
    for spec, answered in zip(signature.outputs, outputs, strict=True):
        if spec.name not in golden.outputs:
            continue
        with _readable():
            difference = _difference(golden, spec, to_numpy(answered))
        if difference:
            raise GoldenMismatch(
                f"output {spec.name!r} is not what {FILE} says: {difference}",
                output=spec.name,
                signature=signature.name,
            )


@contextmanager
def _readable() -> Iterator[None]:
    """Whatever goes wrong within is the fault of the file."""
    try:
        yield
    except CorruptArtifact:
        raise
    except Exception as error:  # zipfile, what it unpacks with, and NumPy raise a dozen kinds
        raise CorruptArtifact(f"{FILE} cannot be read: {type(error).__name__}: {error}", path=FILE) from error


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BYTES:
        raise CorruptArtifact(f"{FILE} holds {size_bytes} bytes; at most {MAX_BYTES}", path=FILE)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """A member; raises ValueError unless it is what `numpy.save` writes, without pickles, and all of it is there."""
    member = BytesIO(archive.read(name))
    read_header = _HEADERS[np.lib.format.read_magic(member)]
    shape, _, dtype = read_header(member)
    if math.prod(shape) * dtype.itemsize > len(member.getbuffer()) - member.tell():
        raise ValueError(f"{name!r} has fewer elements than it says")
    member.seek(0)
    values: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return values


def _unfolded_bytes(values: NDArray[Any]) -> int:
    return values.size * (values.itemsize + _STRING_BYTES if values.dtype.kind in "SU" else values.itemsize + 1)


def _golden(arrays: dict[str, NDArray[Any]]) -> Golden:
    """Raises ValueError if a tolerance is none, or an example empty."""
    golden = Golden(
        signature=str(arrays.pop("signature", _DEFAULT_SIGNATURE)),
        inputs=_named(arrays, "inputs/"),
        outputs=_named(arrays, "outputs/"),
        rtol=float(arrays.pop("rtol", TOLERANCE[0])),
        atol=float(arrays.pop("atol", TOLERANCE[1])),
    )
    if not all(math.isfinite(tolerance) and tolerance >= 0 for tolerance in (golden.rtol, golden.atol)):
        raise ValueError("rtol and atol must be finite and not negative")
    for name, values in (*golden.inputs.items(), *golden.outputs.items()):
        if not values.size:
            raise ValueError(f"{name!r} has no row to compare")
    return golden


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
