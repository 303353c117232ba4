"""The ONNX models of the runtime tests; they equal those of `make_savedmodels`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from inferway.datatypes import Datatype
from tests.testbed.onnx_models import ROWS, model, perceptron, save, tensor

KINDS = {
    Datatype.BOOL: TensorProto.BOOL,
    Datatype.UINT8: TensorProto.UINT8,
    Datatype.UINT16: TensorProto.UINT16,
    Datatype.UINT32: TensorProto.UINT32,
    Datatype.UINT64: TensorProto.UINT64,
    Datatype.INT8: TensorProto.INT8,
    Datatype.INT16: TensorProto.INT16,
    Datatype.INT32: TensorProto.INT32,
    Datatype.INT64: TensorProto.INT64,
    Datatype.FP16: TensorProto.FLOAT16,
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.BYTES: TensorProto.STRING,
    Datatype.BF16: TensorProto.BFLOAT16,
}
POISON = 666.0


def affine() -> onnx.ModelProto:
    """Twice the input; poison is looked up where nothing is, as ONNX knows no assertions."""
    nodes = [
        helper.make_node("Equal", ["x", "poison"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["numbers"], to=TensorProto.INT32),
        helper.make_node("ReduceMax", ["numbers"], ["poisoned"], keepdims=0),
        helper.make_node("Gather", ["nothing", "poisoned"], ["zero"]),
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "zero"], ["y"]),
    ]
    constants = {"poison": np.array(POISON, "f4"), "two": np.array(2, "f4"), "nothing": np.zeros(1, "f4")}
    return model(nodes, [tensor("x")], [tensor("y")], constants)


def total() -> onnx.ModelProto:
    """The sum of all elements."""
    return model([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [tensor("x")], [tensor("y", shape=())])


def identity(*kinds: Datatype) -> onnx.ModelProto:
    """Every input as the output of its place."""
    names = {kind.name.lower(): KINDS[kind] for kind in kinds}
    nodes = [helper.make_node("Identity", [name], [f"y_{name}"]) for name in names]
    inputs = [tensor(name, number, (ROWS, 2)) for name, number in names.items()]
    return model(nodes, inputs, [tensor(f"y_{name}", number, (ROWS, 2)) for name, number in names.items()])


def write(directory: Path, tiny: dict[str, np.ndarray]) -> None:
    """Writes every model below `directory`; `tiny` holds the weights of that perceptron."""
    made = {
        "affine": affine(),
        "total": total(),
        "identity": identity(*set(Datatype) - {Datatype.BYTES}),
        "text": identity(Datatype.BYTES),
        "both": identity(Datatype.BYTES, Datatype.BF16),
        "tiny": perceptron(tiny, softmax=False),
    }
    for name, one in made.items():
        save(one, directory / name)
