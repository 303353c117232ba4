"""Makes SavedModels for the runtime tests: `python -m tests.integration.inference.make_savedmodels DIRECTORY`.

Those three equal fake models in `test_runtime_behaviour.py`, so that both runtimes can be asked the same questions:
affine, total, identity. The others are what only TensorFlow has:

    compiled  a Keras model with an optimizer, saved by tf.saved_model.save, and its answer in expected.npy
    hollow    it reads a variable that nothing ever sets
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from inferway.datatypes import Datatype

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
    concrete = tf.function(function).get_concrete_function(**specs)
    tf.saved_model.save(module, str(path), signatures={"serving_default": concrete})


def main(directory: Path) -> None:
    """Writes every model below `directory`."""
    floats = tf.TensorSpec([None, 4], tf.float32, "x")
    save(affine, directory / "affine", x=floats)
    save(total, directory / "total", x=floats)
    save(hollow, directory / "hollow", x=floats)
    save_compiled(directory / "compiled")
    specs = {kind.name.lower(): tf.TensorSpec([None, 2], own, kind.name.lower()) for kind, own in TYPES.items()}
    save(identity, directory / "identity", **specs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
