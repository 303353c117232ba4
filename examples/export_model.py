"""Trains a small Keras model and exports it for `inferway push`: `python examples/export_model.py DIRECTORY`.

Any SavedModel will do. Naming inputs and outputs, as here, makes it pleasant to ask.
"""

import sys

import keras
import numpy as np
import tensorflow as tf


def main(directory: str) -> None:
    """Learns y = 2 a - b from noise, in a second."""
    generator = np.random.default_rng(7)
    points = generator.random((512, 2), np.float32)
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse")
    model.fit(points, points @ [[2.0], [-1.0]], epochs=20, verbose=0)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", lambda point: {"y": model(point)}, [tf.TensorSpec([None, 2], tf.float32, name="point")]
    )
    archive.write_out(directory, verbose=False)
    print(f"exported {directory}")


if __name__ == "__main__":
    main(sys.argv[1])
