"""`python -m inferway_cli.demo.train DIRECTORY`: trains a classifier of handwritten digits.

Writes `model/` (a SavedModel: `image` FP32 [-1, 64], values 0 to 1 → `probabilities` FP32 [-1, 10], `label` INT64
[-1]) and `held_out.npz` (`images`, `labels`, never trained on). Prints one JSON object a line: `{"epoch": ...}` while
it works, `{"accuracy": ...}` at the end. A process of its own, so that TensorFlow is in no other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EPOCHS = 40
BATCH_ROWS = 64
HELD_OUT_SHARE = 0.2
BRIGHTEST = 16.0
SEED = 7


def main(directory: Path) -> None:
    """Trains, measures, writes."""
    keras.utils.set_random_seed(SEED)
    train_x, test_x, train_y, test_y = read_digits()
    network = make_network()
    network.fit(train_x, train_y, batch_size=BATCH_ROWS, epochs=EPOCHS, verbose=0, callbacks=[_progress()])
    accuracy = float(np.mean(network.predict(test_x, verbose=0).argmax(axis=1) == test_y))
    export(network, lambda image: network(image, training=False), directory / "model")
    np.savez(directory / "held_out.npz", images=test_x, labels=test_y.astype(np.int64))
    _print({"accuracy": accuracy, "trained_on": len(train_x), "held_out": len(test_x)})


def read_digits() -> tuple[Any, Any, Any, Any]:
    """Images to train on, images held out, and the labels of both."""
    digits = load_digits()
    images = (digits.data / BRIGHTEST).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target, test_size=HELD_OUT_SHARE, random_state=SEED, stratify=digits.target
    )
    return train_x, test_x, train_y, test_y


def export(network: Any, answer: Callable[[Any], Any], path: Path) -> None:
    """Writes the SavedModel, with names of its own for what goes in and comes out; `answer` gives probabilities."""

    def serve(image: Any) -> dict[str, Any]:
        probabilities = answer(image)
        return {"probabilities": probabilities, "label": tf.argmax(probabilities, axis=1)}

    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", serve, input_signature=[tf.TensorSpec([None, 64], tf.float32, "image")])
    archive.write_out(path, verbose=False)


def make_network() -> Any:
    """Two layers, not trained yet."""
    network = keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def _progress() -> Any:
    def tell(epoch: int, logs: dict[str, float]) -> None:
        _print({"epoch": epoch + 1, "epochs": EPOCHS, "accuracy_in_training": logs["accuracy"]})

    return keras.callbacks.LambdaCallback(on_epoch_end=tell)


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
