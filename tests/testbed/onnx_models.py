"""Makes ONNX models: small graphs by hand, and those of Keras layer by layer, so that no converter is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FILE = "model.onnx"
OPSET = 17
ROWS = "rows"
"""Name of the leading dimension of any size."""

Sizes = Sequence[int | str | None]


def tensor(name: str, kind: int = TensorProto.FLOAT, shape: Sizes | None = (ROWS, 4)) -> onnx.ValueInfoProto:
    """An input or output; shape None for an unknown rank."""
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> onnx.ModelProto:
    """A checked model of these nodes."""
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), constants)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(built)
    return built


def save(built: onnx.ModelProto, folder: Path) -> Path:
    """Writes `model.onnx` into `folder`, which is made, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(built, folder / FILE)
    return folder / FILE


def perceptron(arrays: Mapping[str, NDArray[Any]], *, softmax: bool) -> onnx.ModelProto:
    """The dense layers w0, b0, w1, … of `tests.testbed.savedmodels.Perceptron`: x → y."""
    depth = len(arrays) // 2
    nodes, value = [], "x"
    for n in range(depth):
        nodes.append(helper.make_node("Gemm", [value, f"w{n}", f"b{n}"], [f"dense{n}"]))
        value = f"dense{n}"
        if n < depth - 1:
            nodes.append(helper.make_node("Relu", [value], [f"relu{n}"]))
            value = f"relu{n}"
    nodes.append(helper.make_node("Softmax" if softmax else "Identity", [value], ["y"]))
    ends = arrays["w0"].shape[0], arrays[f"b{depth - 1}"].shape[0]
    return model(nodes, [tensor("x", shape=(ROWS, ends[0]))], [tensor("y", shape=(ROWS, ends[1]))], {**arrays})


def from_keras(network: Any, inputs: Sizes, outputs: Sizes) -> onnx.ModelProto:
    """A functional image network, x → y; images stay [rows, height, width, channels] outside."""
    builder = _KerasBuilder()
    builder.add("Transpose", ["x"], "nchw", perm=[0, 3, 1, 2])
    for layer in network.layers:
        builder.layer(layer)
    builder.add("Identity", [builder.values[network.layers[-1].name]], "y")
    return model(builder.nodes, [tensor("x", shape=inputs)], [tensor("y", shape=outputs)], builder.weights)


class _KerasBuilder:
    """Nodes and weights of the layers so far; `values` says which value a layer ends in."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.values: dict[str, str] = {}

    def layer(self, layer: Any) -> None:
        """Appends one layer."""
        parents = layer.input if isinstance(layer.input, list) else [layer.input]
        sources = [self.values.get(parent._keras_history.operation.name, "nchw") for parent in parents]
        self.values[layer.name] = _LAYERS[type(layer).__name__](self, layer, sources)

    def add(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Appends one node and returns its output."""
        self.nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    def constants(self, layer: Any, *arrays: NDArray[Any]) -> list[str]:
        """Names under which the arrays are kept."""
        named = {f"{layer.name}.{place}": np.ascontiguousarray(array) for place, array in enumerate(arrays)}
        self.weights |= named
        return list(named)

    def source(self, layer: Any, sources: list[str]) -> str:
        """The values go in as they are."""
        del layer
        return sources[0]

    def convolution(self, layer: Any, sources: list[str]) -> str:
        """Kernels [height, width, in, out] become [out, in, height, width]."""
        kernel, *bias = layer.get_weights()
        return self._convolution(layer, sources, [kernel.transpose(3, 2, 0, 1), *bias], 1)

    def depthwise(self, layer: Any, sources: list[str]) -> str:
        """One group for each channel."""
        kernel, *bias = layer.get_weights()
        return self._convolution(layer, sources, [kernel.transpose(2, 3, 0, 1), *bias], kernel.shape[2])

    def _convolution(self, layer: Any, sources: list[str], arrays: list[NDArray[Any]], group: int) -> str:
        pad = "SAME_UPPER" if layer.padding == "same" else "VALID"
        inputs = [*sources, *self.constants(layer, *arrays)]
        return self.add("Conv", inputs, layer.name, group=group, strides=list(layer.strides), auto_pad=pad)

    def normalisation(self, layer: Any, sources: list[str]) -> str:
        """Keras has the same order of arrays: gamma, beta, mean, variance."""
        inputs = [*sources, *self.constants(layer, *layer.get_weights())]
        return self.add("BatchNormalization", inputs, layer.name, epsilon=layer.epsilon)

    def relu(self, layer: Any, sources: list[str]) -> str:
        """With a maximum."""
        bounds = self.constants(layer, np.array(0, "f4"), np.array(layer.max_value, "f4"))
        return self.add("Clip", [*sources, *bounds], layer.name)

    def padding(self, layer: Any, sources: list[str]) -> str:
        """Of height and width."""
        (top, bottom), (left, right) = layer.padding
        pads = np.array([0, 0, top, left, 0, 0, bottom, right], "i8")
        return self.add("Pad", [*sources, *self.constants(layer, pads)], layer.name)

    def addition(self, layer: Any, sources: list[str]) -> str:
        """Of two values."""
        return self.add("Add", sources, layer.name)

    def pooling(self, layer: Any, sources: list[str]) -> str:
        """The mean over height and width."""
        pooled = self.add("GlobalAveragePool", sources, f"{layer.name}.pooled")
        return self.add("Flatten", [pooled], layer.name)

    def dense(self, layer: Any, sources: list[str]) -> str:
        """With softmax as its activation."""
        inputs = [*sources, *self.constants(layer, *layer.get_weights())]
        return self.add("Softmax", [self.add("Gemm", inputs, f"{layer.name}.logits")], layer.name)


_LAYERS: dict[str, Callable[[_KerasBuilder, Any, list[str]], str]] = {
    "InputLayer": lambda builder, layer, sources: "nchw",
    "Conv2D": _KerasBuilder.convolution,
    "DepthwiseConv2D": _KerasBuilder.depthwise,
    "BatchNormalization": _KerasBuilder.normalisation,
    "ReLU": _KerasBuilder.relu,
    "ZeroPadding2D": _KerasBuilder.padding,
    "Add": _KerasBuilder.addition,
    "GlobalAveragePooling2D": _KerasBuilder.pooling,
    "Dense": _KerasBuilder.dense,
}
