"""State in inferway.yaml: what a publisher writes by hand becomes bytes, exactly, or is refused with words."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from inferway.registry.v1.resources_pb2 import StateBinding
from inferway_cli.console import CommandError
from inferway_cli.version_config import read_config


def read(tmp_path: Path, text: str) -> list[StateBinding]:
    """The bindings of a file."""
    path = tmp_path / "inferway.yaml"
    path.write_text(text)
    return list(read_config(path).state)


def test_a_line_is_enough(tmp_path: Path):
    """The registry finds out the rest from the model."""
    assert read(tmp_path, "state:\n  - {output: next_state, input: state}\n") == [
        StateBinding(output="next_state", input="state")
    ]


@pytest.mark.parametrize(
    ("written", "shape", "initial"),
    [
        ("shape: [2, 2], datatype: FP32, initial: 0.5", [2, 2], np.full(4, 0.5, "<f4").tobytes()),
        ("shape: [2], datatype: INT16, initial: -1", [2], b"\xff\xff\xff\xff"),
        ("shape: [], datatype: INT64, initial: 7", [], np.int64(7).tobytes()),
        ("datatype: FP64, initial: [[1, 2.5]]", [1, 2], np.array([1, 2.5]).tobytes()),
        ("datatype: BOOL, initial: [true, false]", [2], b"\1\0"),
        ("datatype: BYTES, initial: [ab, '']", [2], b"\2\0\0\0ab\0\0\0\0"),
        (f"initial: {base64.b64encode(bytes(range(8))).decode()}", [], bytes(range(8))),
        ("shape: [2], initial: AAAA", [2], bytes(3)),
    ],
)
def test_values_for_the_beginning_become_the_bytes_of_a_row(
    tmp_path: Path, written: str, shape: list[int], initial: bytes
):
    """As in `Tensor.raw`: little-endian, texts with their length."""
    [binding] = read(tmp_path, f"state: [{{output: n, input: s, signature: step, {written}}}]")

    assert binding == StateBinding(output="n", input="s", signature="step", shape=shape, initial=initial)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "state: {output: n, input: s}",
            "state must be a list of bindings, such as {output: next_state, input: state}",
        ),
        ("state: [next_state]", "state must be a list of bindings"),
        ("state: [{output: n}]", "state[0]: input is missing; a binding is {output: next_state, input: state}"),
        ("state: [{output: n, input: s}, {out: n}]", "state[1]: unknown key 'out'; known are output, input"),
        ("state: [{output: n, input: 3}]", "state[0]: input must be a name, not 3"),
        ("state: [{output: n, input: s, shape: 32}]", "shape must be a list of sizes"),
        ("state: [{output: n, input: s, shape: [-1, 32]}]", "shape must be a list of sizes without the batch"),
        ("state: [{output: n, input: s, shape: [9000, 9000]}]", "shape [9000, 9000] is too large"),
        ("state: [{output: n, input: s, initial: 0}]", "initial 0 needs a datatype, that of the input: one of BOOL"),
        ("state: [{output: n, input: s, initial: 0, datatype: float}]", "needs a datatype"),
        ("state: [{output: n, input: s, initial: 0, datatype: FP32}]", "shape must say how large"),
        ("state: [{output: n, input: s, datatype: FP32}]", "datatype belongs to an initial number or list"),
        (
            "state: [{output: n, input: s, initial: [1, 2], shape: [3], datatype: FP32}]",
            "shape [2], but shape says [3]",
        ),
        ("state: [{output: n, input: s, initial: [[1], 2], datatype: FP32}]", "initial does not fit FP32"),
        ("state: [{output: n, input: s, initial: [1.5], datatype: INT32}]", "initial does not fit INT32"),
        ("state: [{output: n, input: s, initial: [300], datatype: UINT8}]", "initial does not fit UINT8"),
        ("state: [{output: n, input: s, initial: [1.0e+300], datatype: FP32}]", "initial does not fit FP32"),
        ("state: [{output: n, input: s, initial: zeros}]", "'zeros' is not base64; write numbers or texts as a list"),
    ],
)
def test_mistakes_say_where_they_are_and_what_would_be_right(tmp_path: Path, written: str, said: str):
    """In one line, before anything is sent."""
    with pytest.raises(CommandError) as caught:
        read(tmp_path, written)

    assert said in str(caught.value)
    assert str(tmp_path / "inferway.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)
