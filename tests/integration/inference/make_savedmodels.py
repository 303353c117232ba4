"""Makes models for the runtime tests: `python -m tests.integration.inference.make_savedmodels DIRECTORY`.

Every runtime has the same ones, so that all can be asked the same questions: affine, total, identity,
text, tiny. Those of LiteRT are converted, below `litert`. The others are what one runtime alone has:

    compiled  a Keras model with an optimizer, saved by tf.saved_model.save, and its answer in expected.npy
    hollow    it reads a variable that nothing ever sets
    int8      LiteRT: tiny with int8 weights, activations, input and output
    unsigned  LiteRT: affine without a signature
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
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.tools import flatbuffer_utils

from inferway.datatypes import Datatype
from tests.testbed.savedmodels import LAYERS, Perceptron, convert

TYPES = {
    Datatype.BOOL: tf.bool,
    Datatype.UINT8: tf.uint8,
    Datatype.UINT16: tf.uint16,
    Datatype.UINT32: tf.uint32,
    Datatype.UINT64: tf.uint64,
    Datatype.INT8: tf.int8,
    Datatype.INT16: tf.int16,
    Datatype.INT32: tf.int32,
    Datatype.INT64: tf.int64,
    Datatype.FP16: tf.float16,
    Datatype.FP32: tf.float32,
    Datatype.FP64: tf.float64,
    Datatype.BYTES: tf.string,
    Datatype.BF16: tf.bfloat16,
}
POISON = 666.0


def affine(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """Twice the input; poison is refused."""
    with tf.control_dependencies([tf.debugging.assert_none_equal(x, POISON, message="it is poison")]):
        return {"y": x * 2}


def picky(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """Twice the input; poison is looked up where nothing is, as LiteRT knows no assertions."""
    poisoned = tf.cast(tf.reduce_any(tf.equal(x, POISON)), tf.int32)
    return {"y": x * 2 + tf.gather(tf.zeros([1]), poisoned)}


def identity(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """Every input as the output of its place."""
    return {f"y_{name}": tf.identity(values) for name, values in inputs.items()}


def total(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """The sum of all elements."""
    return {"y": tf.reduce_sum(x)}


def hollow(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """The input and a value that is not there."""
    variable = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="never-set")
    return {"y": x + tf.raw_ops.ReadVariableOp(resource=variable, dtype=tf.float32)}


def save_compiled(path: Path) -> None:
    """Saves it with its optimizer; every variable is in the file twice."""
    layers = [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    tf.saved_model.save(model, str(path))
    np.save(path.parent / "expected.npy", model(np.ones((1, 4), "f4")).numpy())


def save(function: Any, path: Path, **specs: tf.TensorSpec) -> None:
    """Exports `function` as `serving_default`, with a variable, as real models have them."""
    module = tf.Module()
    module.weight = tf.Variable(tf.ones([256]))
    module.owner = getattr(function, "__self__", None)
    concrete = tf.function(function).get_concrete_function(**specs)
    tf.saved_model.save(module, str(path), signatures={"serving_default": concrete})


def convert_to_int8(saved_model: Path, to: Path) -> None:
    """Writes `model.tflite` into the folder `to`, with integers inside and outside."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = _examples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    _write(to, converter.convert())


def _examples() -> Iterator[list[NDArray[np.float32]]]:
    random = np.random.default_rng(3)
    return ([random.normal(size=(1, LAYERS["tiny"][0])).astype("f4")] for _ in range(64))


def convert_without_signature(function: Any, to: Path, **specs: tf.TensorSpec) -> None:
    """Writes a model as converters did before there were signatures."""
    concrete = tf.function(function).get_concrete_function(**specs)
    content = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    model.signatureDefs = None
    _write(to, bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


def _write(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(content)


def main(directory: Path) -> None:
    """Writes every model below `directory`."""
    floats = tf.TensorSpec([None, 4], tf.float32, "x")
    tiny = Perceptron(LAYERS["tiny"], 0, softmax=False)
    save(affine, directory / "affine", x=floats)
    save(picky, directory / "picky", x=floats)
    save(total, directory / "total", x=floats)
    save(hollow, directory / "hollow", x=floats)
    save(tiny.__call__, directory / "tiny", x=tf.TensorSpec([None, LAYERS["tiny"][0]], tf.float32, "x"))
    save_compiled(directory / "compiled")
    specs = {kind.name.lower(): tf.TensorSpec([None, 2], own, kind.name.lower()) for kind, own in TYPES.items()}
    save(identity, directory / "identity", **specs)
    save(identity, directory / "text", bytes=tf.TensorSpec([None, 2], tf.string, "bytes"))
    litert = directory / "litert"
    convert(directory / "picky", litert / "affine")
    for name in ("total", "identity", "text", "tiny"):
        convert(directory / name, litert / name)
    convert_to_int8(directory / "tiny", litert / "int8")
    convert_without_signature(picky, litert / "unsigned", x=floats)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
