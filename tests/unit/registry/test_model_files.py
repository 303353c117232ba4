"""What the registry reads from ONNX and LiteRT models."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact, InferwayError, InvalidPath, NotSupported
from inferway_registry import litert_model, onnx_model
from inferway_registry.resources import Signature, TensorSpec
from tests.testbed.onnx_models import ROWS, model, tensor
from tests.unit.registry.flatbuffer_models import FLOAT32, INT8, RESOURCE, STRING
from tests.unit.registry.flatbuffer_models import litert_model as made

X, Y = {"x": (FLOAT32, (-1, 4))}, {"y": (INT8, (-1, 2))}
LITERT = made({"serving_default": (X, Y)})


def sum_with_ones() -> onnx.ModelProto:
    """x [rows, 4] plus ones → y."""
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    return model(nodes, [tensor("x")], [tensor("y")], {"w": np.ones(4, "f4")})


ONNX = sum_with_ones().SerializeToString()


def read_onnx(content: bytes, *files: str) -> Signature:
    """Its one signature."""
    [signature] = onnx_model.read_signatures(content, ["model.onnx", *files])
    return signature


def test_an_onnx_model_is_read_like_a_saved_model():
    """Callers must not notice what a version is made of."""
    assert read_onnx(ONNX) == Signature(
        "serving_default", (TensorSpec("x", Datatype.FP32, (-1, 4)),), (TensorSpec("y", Datatype.FP32, (-1, 4)),)
    )


def test_weights_that_older_models_list_as_inputs_are_not_asked_for():
    """Nobody could send them."""
    old = sum_with_ones()
    old.graph.input.append(tensor("w", shape=(4,)))

    assert [spec.name for spec in read_onnx(old.SerializeToString()).inputs] == ["x"]


def test_an_unknown_rank_a_scalar_and_an_open_size_are_told_apart():
    """Each is batched and checked in its own way."""
    nodes = [helper.make_node("Identity", [name], [f"out_{name}"]) for name in "abc"]
    shapes: dict[str, tuple[int | str | None, ...]] = {"a": (), "b": (), "c": (ROWS, None, 3)}
    built = model(
        nodes,
        [tensor(name, TensorProto.STRING, shape) for name, shape in shapes.items()],
        [tensor(f"out_{name}", TensorProto.STRING, shape) for name, shape in shapes.items()],
    )
    built.graph.input[0].type.tensor_type.ClearField("shape")

    assert [(spec.datatype, spec.shape) for spec in read_onnx(built.SerializeToString()).inputs] == [
        (Datatype.BYTES, None),
        (Datatype.BYTES, ()),
        (Datatype.BYTES, (-1, -1, 3)),
    ]


def in_a_branch(weights: onnx.TensorProto) -> onnx.ModelProto:
    """The weights lie in a graph inside a node."""
    branch = helper.make_graph([], "branch", [], [tensor("w", shape=(4,))], [weights])
    built = sum_with_ones()
    built.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    return built


def test_external_data_must_be_there_and_nothing_else_may():
    """A missing file would fail on every worker; a stray one has no business there."""
    weights = numpy_helper.from_array(np.ones(4, "f4"), "w")
    weights.external_data.add(key="location", value="./data/weights.bin")
    for built in (sum_with_ones(), in_a_branch(weights)):
        if built.graph.node[-1].op_type != "If":
            built.graph.initializer[0].CopyFrom(weights)
        content = built.SerializeToString()
        read_onnx(content, "data/weights.bin", "assets.extra/golden.npz")

        with pytest.raises(CorruptArtifact, match=r"its weights are in data/weights\.bin, which the manifest lacks"):
            read_onnx(content)
        with pytest.raises(InvalidPath) as caught:
            read_onnx(content, "data/weights.bin", "setup.sh")
        assert caught.value.metadata == {"path": "setup.sh"}


@pytest.mark.parametrize(("domain", "version"), [("my.own", 1), ("", 6), ("ai.onnx", 1)])
def test_operations_that_no_worker_has_are_refused_before_they_reach_one(domain: str, version: int):
    """A library of the publisher's own would be a program with the worker's rights."""
    built = sum_with_ones()
    built.opset_import[0].CopyFrom(helper.make_opsetid(domain, version))

    with pytest.raises(NotSupported, match=r"^model\.onnx: operat"):
        read_onnx(built.SerializeToString())


def test_signatures_of_a_litert_model_have_their_own_tensors():
    """Each may lie in a subgraph of its own."""
    content = made({"b": (X, Y), "a": ({"words": (STRING, (2,))}, {"n": (FLOAT32, ())})})

    assert litert_model.read_signatures(content) == (
        Signature("a", (TensorSpec("words", Datatype.BYTES, (2,)),), (TensorSpec("n", Datatype.FP32, ()),)),
        Signature("b", (TensorSpec("x", Datatype.FP32, (-1, 4)),), (TensorSpec("y", Datatype.INT8, (-1, 2)),)),
    )


def test_a_litert_model_without_signatures_has_one_of_its_tensors():
    """Older converters wrote none."""
    [signature] = litert_model.read_signatures(made({"unnamed": (X, Y)}, described=False))

    assert (signature.name, [spec.name for spec in (*signature.inputs, *signature.outputs)]) == (
        "serving_default",
        ["x:0", "y:0"],
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PK\x03\x04 a zip of something else", "it is no LiteRT model"),
        (LITERT[: len(LITERT) // 2], "it is damaged"),
        (made({"f": ({"x": (RESOURCE, (1,))}, Y)}), "tensor 'x' of signature 'f' has LiteRT's type number 13"),
        (made({"f": (X, Y), "g": (X, Y)}).replace(b"g", b"f"), "two signatures have the same name"),
        (made({"": (X, Y)}), "a signature has a name of 0 characters"),
    ],
)
def test_what_is_no_litert_model_is_refused_with_its_reason(content: bytes, problem: str):
    """The publisher sees it, not the workers."""
    with pytest.raises(CorruptArtifact, match=problem) as caught:
        litert_model.read_signatures(content)
    assert caught.value.metadata == {"path": "model.tflite"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (LITERT, "it cannot be parsed|it is no ONNX model"),
        (b"", "it is no ONNX model"),
        (ONNX[: len(ONNX) // 2], "it cannot be parsed"),
        (sum_with_ones().SerializeToString().replace(b"rows", b"\xff\xff\xff\xff"), "it cannot be parsed"),
    ],
)
def test_what_is_no_onnx_model_is_refused_with_its_reason(content: bytes, problem: str):
    """The publisher sees it, not the workers."""
    with pytest.raises(CorruptArtifact, match=problem) as caught:
        read_onnx(content)
    assert caught.value.metadata == {"path": "model.onnx"}


def test_onnx_values_that_no_request_can_carry_are_named():
    """Sequences and complex numbers have no place in the protocol."""
    complex_numbers = sum_with_ones()
    complex_numbers.graph.input[0].type.tensor_type.elem_type = TensorProto.COMPLEX64
    sequence = sum_with_ones()
    sequence.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT

    for built, what in ((complex_numbers, "ONNX's data type number 14"), (sequence, "no plain tensor")):
        with pytest.raises(CorruptArtifact, match=f"'x' of its inputs is {what}"):
            read_onnx(built.SerializeToString())


flips = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4)


@given(flips)
def test_any_bytes_are_a_model_or_refused_and_nothing_else(changes: list[tuple[int, int]]):
    """The file comes from outside; reading it must never raise what nobody expects, nor take long."""
    for content, read in ((LITERT, litert_model.read_signatures), (ONNX, read_onnx)):
        damaged = bytearray(content)
        for place, value in changes:
            damaged[place % len(damaged)] = value
        with contextlib.suppress(InferwayError):
            read(bytes(damaged))


def test_a_name_that_a_terminal_would_obey_is_refused():
    """It would be shown to whoever looks at the model, and could hide or fake what stands there."""
    evil = "x\x1b[2J"
    onnx_content = model(
        [helper.make_node("Identity", [evil], ["y"])], [tensor(evil)], [tensor("y")]
    ).SerializeToString()

    for read in (
        lambda: read_onnx(onnx_content),
        lambda: litert_model.read_signatures(made({evil: (X, Y)})),
        lambda: litert_model.read_signatures(made({"serving_default": (X, {evil: (INT8, (-1, 2))})})),
    ):
        with pytest.raises(CorruptArtifact, match=r"the name 'x\\x1b\[2J'; control characters") as caught:
            read()
        assert caught.value.metadata["path"] in ("model.onnx", "model.tflite")
