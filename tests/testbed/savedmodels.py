"""Makes the SavedModels of tests and benchmarks: `python -m tests.testbed.savedmodels DIRECTORY`.

Run as a process of its own, so that tests need not import TensorFlow. Weights are seeded, and saved beside each
model as `{name}.npz`, so that answers can be checked against NumPy; `litert/tiny` is tiny as `model.tflite`.

    tiny     x [-1,32] → dense 64 relu → dense 1                          batchable
    medium   x [-1,784] → 512 relu → 256 relu → 10 softmax                 batchable
    shout    text [-1] string → upper-case string, length int32            batchable, BYTES
    fixed    x [3] float64 → x * 2 (scalar shapes fixed)                   cannot be batched
    fussy    x [-1,2] → x, but an element above 1000 is an error           a poison request
    affine   x [-1,3] → 2 x + 1                                             what the client's own suite asks
    broken, blank, fatal   as affine, but above 1.5: an error; NaN; and the process ends, whatever the input
    accumulator  x [-1,1], state [-1,1] → y = next_state = x + state       stateful, if it is so configured
    mixed    a [-1] int64, b [-1,2] float16, c [-1] bool → sum per row     several inputs and datatypes
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

LAYERS = {"tiny": (32, 64, 1), "medium": (784, 512, 256, 10)}


class Perceptron(tf.Module):  # type: ignore[misc]
    """Dense layers with seeded weights."""

    def __init__(self, sizes: tuple[int, ...], seed: int, softmax: bool) -> None:
        """`sizes` from input to output."""
        super().__init__()
        generator = np.random.default_rng(seed)
        pairs = list(pairwise(sizes))
        self.arrays = {
            f"w{n}": generator.normal(0, rows**-0.5, (rows, columns)).astype("f4")
            for n, (rows, columns) in enumerate(pairs)
        } | {f"b{n}": generator.normal(0, 0.1, columns).astype("f4") for n, (_, columns) in enumerate(pairs)}
        self.weights = {name: tf.Variable(value) for name, value in self.arrays.items()}
        self.depth, self.softmax = len(pairs), softmax

    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """`x` [rows, sizes[0]] → `y` [rows, sizes[-1]]."""
        for n in range(self.depth):
            x = tf.matmul(x, self.weights[f"w{n}"]) + self.weights[f"b{n}"]
            if n < self.depth - 1:
                x = tf.nn.relu(x)
        return {"y": tf.nn.softmax(x) if self.softmax else x}


def shout(text: tf.Tensor) -> dict[str, tf.Tensor]:
    """Upper case and length of each string."""
    return {"loud": tf.strings.upper(text), "length": tf.strings.length(text)}


def fixed(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """Twice the vector."""
    return {"y": x * 2}


def affine(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """A line."""
    return {"y": 2 * x + 1}


def broken(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """The line, unless an element is above 1.5, as none is that a worker warms up with."""
    with tf.control_dependencies([tf.debugging.assert_less(x, 1.5)]):
        return affine(x)


def blank(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """The line, but NaN above 1.5."""
    return {"y": tf.where(x > 1.5, tf.fill(tf.shape(x), float("nan")), 2 * x + 1)}


def fatal(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """Ends the process that calls it."""
    with tf.control_dependencies([tf.raw_ops.Abort(error_msg="", exit_without_error=False)]):
        return affine(x)


def accumulator(x: tf.Tensor, state: tf.Tensor) -> dict[str, tf.Tensor]:
    """The sum so far."""
    return {"y": x + state, "next_state": x + state}


def fussy(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """The input, unless it holds an element above 1000."""
    with tf.control_dependencies([tf.debugging.assert_less(x, 1000.0)]):
        return {"y": tf.identity(x)}


def mixed(a: tf.Tensor, b: tf.Tensor, c: tf.Tensor) -> dict[str, tf.Tensor]:
    """A row's sum: a + b0 + b1 + c."""
    total = tf.cast(a, tf.float64) + tf.cast(tf.reduce_sum(b, 1), tf.float64) + tf.cast(c, tf.float64)
    return {"total": total}


FUNCTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "shout": (shout, {"text": ((None,), tf.string)}),
    "fixed": (fixed, {"x": ((3,), tf.float64)}),
    **{function.__name__: (function, {"x": ((None, 3), tf.float32)}) for function in (affine, broken, blank, fatal)},
    "accumulator": (accumulator, {"x": ((None, 1), tf.float32), "state": ((None, 1), tf.float32)}),
    "fussy": (fussy, {"x": ((None, 2), tf.float32)}),
    "mixed": (mixed, {"a": ((None,), tf.int64), "b": ((None, 2), tf.float16), "c": ((None,), tf.bool)}),
}


def save(
    module: tf.Module, function: Any, inputs: dict[str, tuple[tuple[int | None, ...], tf.DType]], to: Path
) -> None:
    """Exports `function` as `serving_default`."""
    specs = {name: tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in inputs.items()}
    module.serve = tf.function(function)
    concrete = module.serve.get_concrete_function(**specs)
    tf.saved_model.save(module, str(to), signatures={"serving_default": concrete})


def convert(saved_model: Path, to: Path) -> None:
    """Writes `model.tflite` into the folder `to`, which is made."""
    to.mkdir(parents=True)
    (to / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved_model)).convert())


def main(directory: Path) -> None:
    """Writes every model below `directory`."""
    for seed, (name, sizes) in enumerate(LAYERS.items()):
        model = Perceptron(sizes, seed, softmax=name == "medium")
        save(model, model.__call__, {"x": ((None, sizes[0]), tf.float32)}, directory / name)
        np.savez(directory / f"{name}.npz", **model.arrays)  # type: ignore[arg-type]
    convert(directory / "tiny", directory / "litert" / "tiny")
    for name, (function, inputs) in FUNCTIONS.items():
        save(tf.Module(), function, inputs, directory / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
