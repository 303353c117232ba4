"""Baseline (a): TensorFlow in process. `python -m benchmarks.in_process SAVED_MODEL SECONDS` prints one JSON line.

Calls the signature's concrete function with one caller, for each batch size; reports calls and rows per second.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf

BATCHES = (1, 8, 32)


def rate(function: Any, name: str, width: int, rows: int, seconds: float) -> float:
    """Calls per second of `function` with `rows` rows."""
    batch = tf.constant(np.random.default_rng(0).normal(size=(rows, width)).astype("f4"))
    for _ in range(50):
        function(**{name: batch})
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for value in function(**{name: batch}).values():
            value.numpy()
        calls += 1
    return calls / elapsed


def main(path: str, seconds: float) -> None:
    """Prints calls per second by batch size."""
    function = tf.saved_model.load(path).signatures["serving_default"]
    name, spec = next(iter(function.structured_input_signature[1].items()))
    rates = {rows: rate(function, name, spec.shape[1], rows, seconds) for rows in BATCHES}
    result = {"calls_per_second": rates, "rows_per_second": {rows: rows * each for rows, each in rates.items()}}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
