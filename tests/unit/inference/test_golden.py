"""Golden examples come from whoever publishes: what is no example must neither pass nor hurt the worker."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferway.errors import CorruptArtifact
from inferway_inference.golden import FILE, MAX_BYTES, check_golden, read_golden
from tests.unit.inference.fake_runner import FakeRunner
from tests.unit.inference.requests import BATCHABLE

ONES = np.ones((1, 2), "f4")


def write(folder: Path, **arrays: Any) -> Path:
    """Examples with these members; `inputs_x` stands for `inputs/x`."""
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{name.replace("_", "/"): values for name, values in arrays.items()})
    return folder


def write_member(folder: Path, content: bytes) -> Path:
    """Examples of which one member has this content."""
    write(folder, inputs_x=ONES)
    with zipfile.ZipFile(folder / FILE, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("outputs/y.npy", content)
    return folder


def header(description: str) -> bytes:
    """The start of an array that is described so."""
    text = description.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def pickled() -> bytes:
    content = BytesIO()
    np.save(content, np.array([{}], dtype=object), allow_pickle=True)
    return content.getvalue()


def test_examples_are_read_as_they_were_written(tmp_path: Path):
    """The bounds must not be in the way of those who mean well."""
    golden = read_golden(write(tmp_path, inputs_x=ONES, outputs_y=2 * ONES, atol=0.5))

    assert golden is not None
    assert (golden.signature, golden.rtol, golden.atol) == ("serving_default", 1e-3, 0.5)
    assert (golden.inputs["x"].tolist(), golden.outputs["y"].tolist()) == ([[1, 1]], [[2, 2]])


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "a zip bomb": lambda path: write_member(path, bytes(MAX_BYTES + 1)),
    "no array": lambda path: write_member(path, b"hello"),
    "a shape of 72 TiB": lambda path: write_member(
        path, header("{'descr': '<f8', 'fortran_order': False, 'shape': (9895604649984,)}") + bytes(64)
    ),
    "elements of no bytes": lambda path: write_member(
        path, header("{'descr': '|S0', 'fortran_order': False, 'shape': (1099511627776,)}")
    ),
    "a pickle": lambda path: write_member(path, pickled()),
    "an infinite tolerance": lambda path: write(path, inputs_x=ONES, outputs_y=ONES, atol=np.inf),
    "a tolerance that is no number": lambda path: write(path, inputs_x=ONES, outputs_y=ONES, rtol=np.nan),
    "a negative tolerance": lambda path: write(path, inputs_x=ONES, outputs_y=ONES, rtol=-1.0),
    "no rows": lambda path: write(path, inputs_x=np.ones((0, 2), "f4"), outputs_y=np.ones((0, 2), "f4")),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_example_is_refused_by_name(tmp_path: Path, hostile: Callable[[Path], Path]):
    """Megabytes of a file must not become gigabytes of the worker; an example that compares nothing proves nothing."""
    hostile(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptArtifact, match=FILE):
            read_golden(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


async def test_inputs_that_cannot_be_converted_are_refused_by_name(tmp_path: Path):
    """Text where the signature wants numbers fails in NumPy, long after the file was read."""
    golden = read_golden(write(tmp_path, inputs_x=np.array([["a", "b"]]), outputs_y=ONES))

    assert golden is not None
    with pytest.raises(CorruptArtifact, match=FILE):
        await check_golden(FakeRunner(), [(0, BATCHABLE)], golden)
