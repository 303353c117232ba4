"""Three more versions of the demo's digits: `python -m examples.digits.train build/digits`.

better/model   the same network, trained on images that were moved about: right also if a digit is not in its place
bad/model      the better one with a mistake in it: NaN for images whose first corner is empty
slow/model     the better one behind several milliseconds of useless work

Beside each comes `inferway.yaml`, which tells how many are right, as they are and moved by a pixel, and beside all
`images.npy`: images that none of them was trained on, for `inferway load`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from inferway_cli.demo.train import export, make_network, read_digits

EPOCHS = 40
BATCH_ROWS = 256
SIDE = 8
SEED = 11
CORNER = (0, 1, 8, 9, 16, 17)
"""Pixels that are empty in about half of the images."""
USELESS_PRODUCTS, USELESS_SIZE = 6, 400

CONFIG = """\
description: {description}
labels: {{accuracy: "{accuracy:.4f}", accuracy_moved: "{moved:.4f}", dataset: scikit-learn digits}}
forbid_nan_inputs: [image]
"""


def train() -> Any:
    """The demo's network, which sees each image as it is, and moved."""
    keras.utils.set_random_seed(SEED)
    images, _, labels, _ = read_digits()
    several = np.concatenate([images, *moved(images)])
    network = make_network()
    network.fit(several, np.tile(labels, len(several) // len(images)), batch_size=BATCH_ROWS, epochs=EPOCHS, verbose=0)
    return network


def moved(images: Any) -> list[Any]:
    """The images one pixel to the left, right, above and below."""
    squares = images.reshape(-1, SIDE, SIDE)
    return [np.roll(squares, by, axis).reshape(images.shape) for axis in (1, 2) for by in (-1, 1)]


def write(network: Any, answer: Callable[[Any], Any], directory: Path, description: str) -> str:
    """Exports a version with its `inferway.yaml`; returns how many held-out images it has right, in words."""
    _, images, _, labels = read_digits()
    accuracy, *others = (_right(answer, each, labels) for each in (images, *moved(images)))
    directory.mkdir(parents=True, exist_ok=True)
    export(network, answer, directory / "model")
    config = CONFIG.format(description=description, accuracy=accuracy, moved=np.mean(others))
    (directory / "inferway.yaml").write_text(config, encoding="utf-8")
    return f"{accuracy:.1%} of unseen images right, {np.mean(others):.1%} of the same moved by a pixel"


def _right(answer: Callable[[Any], Any], images: Any, labels: Any) -> float:
    return float(np.mean(np.argmax(answer(tf.constant(images)), axis=1) == labels))


def main(directory: Path) -> None:
    """Trains one network, and exports it three times."""
    began = time.perf_counter()
    network = train()

    def better(image: Any) -> Any:
        return network(image, training=False)

    def bad(image: Any) -> Any:
        corner = tf.reduce_max(tf.gather(image, CORNER, axis=1), axis=1, keepdims=True)
        return better(image) * (corner / corner)

    def slow(image: Any) -> Any:
        useless = tf.fill((USELESS_SIZE, USELESS_SIZE), tf.reduce_mean(image) * 1e-9)
        for _ in range(USELESS_PRODUCTS):
            useless = tf.linalg.matmul(useless, useless)
        return better(image) + tf.reduce_max(useless) * 0

    versions = {
        "better": (better, "Trained on moved images, too"),
        "bad": (bad, "Divides by the ink in the first corner, which may be none"),
        "slow": (slow, "Does useless work first"),
    }
    for name, (answer, description) in versions.items():
        print(f"{directory / name / 'model'}: {write(network, answer, directory / name, description)}")
    np.save(directory / "images.npy", read_digits()[1])
    print(f"took {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
