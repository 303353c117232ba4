"""Made-up inputs fit their signature; typed ones become its datatypes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer

from inferway.datatypes import Datatype
from inferway_cli.console import CommandError
from inferway_cli.inputs import batches_of, read_inputs, synthesise
from inferway_cli.signatures import Signature, TensorSpec
from inferway_client.tensors import Array, datatype_of, dtype_of


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_datatype_can_be_made_up(datatype: Datatype):
    """`inferway load` works for any model."""
    signature = Signature((TensorSpec("a", datatype, (-1, 3, -1)), TensorSpec("b", datatype, (2,))), ())
    inputs = synthesise(signature, 5, np.random.default_rng(1))
    assert inputs["a"].shape == (5, 3, 1)
    assert inputs["b"].shape == (2,)
    assert datatype_of(inputs["a"].dtype) is datatype
    if datatype is Datatype.BOOL:
        assert set(inputs["a"].ravel().tolist()) <= {False, True}


def test_a_scalar_can_be_made_up():
    """A signature need not have a batch dimension, nor any."""
    signature = Signature((TensorSpec("a", Datatype.FP32, ()),), ())
    assert synthesise(signature, 5, np.random.default_rng(1))["a"].shape == ()


@pytest.mark.parametrize(
    ("text", "datatype", "expected"),
    [
        ("[1, 2]", Datatype.INT32, [1, 2]),
        ("[1, 2.5]", Datatype.FP16, [1.0, 2.5]),
        ('["a", "b"]', Datatype.BYTES, ["a", "b"]),
        ("[true, false]", Datatype.BOOL, [True, False]),
    ],
)
def test_json_becomes_what_the_model_takes(text: str, datatype: Datatype, expected: list[object]):
    """People type numbers, not datatypes."""
    signature = Signature((TensorSpec("x", datatype, (-1,)),), ())
    array = read_inputs([f"x={text}"], signature)["x"]
    assert array.dtype == dtype_of(datatype)
    assert array.tolist() == expected


def test_json_can_come_from_a_file(tmp_path: Path):
    """Images do not fit on a command line."""
    (tmp_path / "x.json").write_text(json.dumps([[1, 2]]))
    signature = Signature((TensorSpec("x", Datatype.FP32, (-1, 2)),), ())
    assert read_inputs([f"x=@{tmp_path / 'x.json'}"], signature)["x"].tolist() == [[1, 2]]


def test_a_pickle_is_not_read(tmp_path: Path):
    """A .npy file from elsewhere must not run code."""
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    signature = Signature((TensorSpec("x", Datatype.FP32, (-1, 2)),), ())
    with pytest.raises(typer.BadParameter, match="neither JSON"):
        read_inputs([f"x=@{tmp_path / 'x.npy'}"], signature)


def test_rows_of_a_file_are_sent_in_turn():
    """Traffic for a rollout must look like that of users; made-up noise is answered by chance."""
    batches = batches_of({"x": np.arange(5), "y": np.arange(10).reshape(5, 2)}, 2)

    assert [batch["x"].tolist() for batch in batches] == [[0, 1], [2, 3]]
    assert batches[1]["y"].tolist() == [[4, 5], [6, 7]]


@pytest.mark.parametrize("inputs", [{"x": np.arange(1)}, {"x": np.arange(4), "y": np.arange(3)}, {"x": np.array(1)}])
def test_inputs_that_cannot_be_cut_into_rows_are_refused(inputs: dict[str, Array]):
    """Before any traffic."""
    with pytest.raises(CommandError, match="--input"):
        batches_of(inputs, 2)
