"""Makes the models of the benchmarks, each for all three runtimes with the same seeded weights.

    python -m benchmarks.models DIRECTORY [NAME...]     names: tiny, medium, mobilenet; all if none is given

They lie in DIRECTORY/tensorflow/NAME (a SavedModel), DIRECTORY/onnx/NAME/model.onnx, DIRECTORY/litert/NAME/model.tflite
and, with int8 weights and activations, DIRECTORY/litert/NAME-int8/model.tflite. All take `x` and answer `y`.

    tiny        x [-1, 32] → dense 64 relu → dense 1
    medium      x [-1, 784] → 512 relu → 256 relu → 10 softmax
    mobilenet   x [-1, 224, 224, 3] → MobileNetV2 → 1,000 softmax

MobileNetV2 has random batch-norm statistics too, and its last layer is scaled to tell pictures apart: with zeros and
ones for statistics every picture gets nearly the same answer, and a mix-up of rows would not be noticed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import onnx
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.inputs import WIDTHS, inputs
from tests.testbed import onnx_models
from tests.testbed.savedmodels import LAYERS, Perceptron, save

_SEED = 20
_CALIBRATION_ROWS = 32
_CLASSES = 1000
_LOGIT_SPREAD = 1.0
"""Standard deviation: the likeliest class gets some per cent."""


def mobilenet() -> Any:
    """MobileNetV2 with seeded weights and statistics."""
    network = keras.applications.MobileNetV2(weights=None)
    random = np.random.default_rng(_SEED)
    for layer in network.layers:
        layer.set_weights(list(_weights(layer, random)))
    _spread_the_answers(network)
    return network


def _weights(layer: Any, random: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """He's initialisation, so that values neither vanish nor explode over 53 layers; statistics around 0 and 1."""
    normalises = isinstance(layer, keras.layers.BatchNormalization)
    for place, array in enumerate(layer.get_weights()):
        if array.ndim > 1:
            fan = np.prod(array.shape[: 2 if isinstance(layer, keras.layers.DepthwiseConv2D) else -1])
            yield random.normal(0, (2 / fan) ** 0.5, array.shape).astype("f4")
        elif normalises and place in (0, 3):  # gamma and variance
            yield random.uniform(0.5, 1.5, array.shape).astype("f4")
        else:
            yield random.normal(0, 0.2, array.shape).astype("f4")


def _spread_the_answers(network: Any) -> None:
    """Centres and scales the logits over a few pictures."""
    head = network.layers[-1]
    features = keras.Model(network.input, head.input)(inputs("mobilenet", _CALIBRATION_ROWS, _SEED)).numpy()
    kernel, _ = head.get_weights()
    logits = features @ kernel
    spread = _LOGIT_SPREAD / (logits - logits.mean(axis=0)).std()
    head.set_weights([kernel * spread, -logits.mean(axis=0) * spread])


def write(name: str, directory: Path) -> None:
    """Writes one model for every runtime."""
    saved_model = directory / "tensorflow" / name
    graph = _export_network(saved_model) if name == "mobilenet" else _export_perceptron(name, saved_model)
    onnx_models.save(graph, directory / "onnx" / name)
    _write_litert(name, saved_model, directory / "litert")


def _export_network(to: Path) -> onnx.ModelProto:
    network = mobilenet()
    archive = keras.export.ExportArchive()
    archive.track(network)
    spec = tf.TensorSpec((None, *WIDTHS["mobilenet"]), tf.float32, "x")
    archive.add_endpoint("serving_default", lambda x: {"y": network(x, training=False)}, [spec])
    archive.write_out(str(to), verbose=False)
    return onnx_models.from_keras(network, (onnx_models.ROWS, *WIDTHS["mobilenet"]), (onnx_models.ROWS, _CLASSES))


def _export_perceptron(name: str, to: Path) -> onnx.ModelProto:
    softmax = name == "medium"
    module = Perceptron(LAYERS[name], list(LAYERS).index(name), softmax=softmax)
    save(module, module.__call__, {"x": ((None, *WIDTHS[name]), tf.float32)}, to)
    return onnx_models.perceptron(module.arrays, softmax=softmax)


def _write_litert(name: str, saved_model: Path, directory: Path) -> None:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    _write(directory / name, converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in inputs(name, 64, _SEED))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    _write(directory / f"{name}-int8", converter.convert())


def _write(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(content)


def main(directory: str, *names: str) -> None:
    """Writes the models that are named, or all."""
    for name in names or WIDTHS:
        write(name, Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
