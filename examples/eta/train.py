"""Trains the arrival model and exports it for `inferway push`: `python -m examples.eta.train build/eta`.

A vehicle sends its position every five seconds and gets the minutes until it arrives. What it sends does not tell how
dense the traffic is; the model remembers how the drive went so far, in a state that the session carries from item to
item. Days of training and days of testing differ. Beside the SavedModel come `inferway.yaml`, which says what is state,
and `weights.npz`, from which `numpy_model.py` computes the same.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.eta import numpy_model
from examples.eta.drives import FEATURES, STEP_MINUTES, Recording, Town, record

UNITS = 32
STEPS = 144
"""Of each drive that are looked at: twelve minutes."""
VEHICLES = 40
HELD_OUT_DAYS = range(1000, 1006)
SCALE = np.array([0.3, 0.3, 2.0, 2.0, 0.3, 0.2], np.float32)
"""Brings every feature to about one."""
BATCH_DRIVES = 48
LEARNING_RATE = 0.01
SLOWEST_KM_PER_MINUTE = 0.1
"""Walking pace: who stands at a light does not stand for ever."""

CONFIG = """\
description: Minutes until a vehicle arrives, from its positions every five seconds
labels: {labels}
state:
  - {{output: next_state, input: state}}
"""


class Arrival(tf.Module):  # type: ignore[misc]
    """A recurrent cell, and a head that tells by how much the drive takes longer than the map says.

    So the estimate ends at zero with the way.
    """

    def __init__(self) -> None:
        """With new weights."""
        super().__init__()
        self.gru = keras.layers.GRUCell(UNITS, reset_after=True)
        self.head = keras.layers.Dense(1, activation="softplus")

    def over_drives(self) -> Any:
        """The Keras model of whole drives [drives, STEPS, features] → minutes [drives, STEPS, 1]."""
        x = keras.layers.Input((STEPS, len(FEATURES)))
        states = keras.layers.RNN(self.gru, return_sequences=True)(x * SCALE)
        return keras.Model(x, _map_minutes(x) * self.head(states))

    def step(self, x: Any, state: Any) -> dict[str, Any]:
        """`x` [rows, features] and `state` [rows, units] → `eta_minutes` [rows, 1] and `next_state` [rows, units]."""
        next_state, _ = self.gru(x * SCALE, [state])
        return {"eta_minutes": _map_minutes(x) * self.head(next_state), "next_state": next_state}

    def weights(self) -> numpy_model.Weights:
        """As `numpy_model` names them."""
        names = ("scale", "kernel", "recurrent_kernel", "bias", "head_kernel", "head_bias")
        return dict(zip(names, [SCALE, *self.gru.get_weights(), *self.head.get_weights()], strict=True))


def _map_minutes(x: Any) -> Any:
    return x[..., numpy_model.MAP_MINUTES : numpy_model.MAP_MINUTES + 1]


def train(drives: Recording, epochs: int) -> Arrival:
    """Learns whole drives, step by step."""
    model = Arrival()
    network = model.over_drives()
    network.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0), loss="mae")
    decay = keras.callbacks.LearningRateScheduler(lambda epoch: LEARNING_RATE * (1 - epoch / epochs))
    network.fit(
        drives.features,
        drives.eta_minutes[..., None],
        sample_weight=drives.under_way.astype(np.float32),
        batch_size=BATCH_DRIVES,
        epochs=epochs,
        verbose=0,
        callbacks=[decay],
    )
    return model


def export(model: Arrival, directory: Path) -> None:
    """Writes the SavedModel with its one signature."""
    sizes = {"x": len(FEATURES), "state": UNITS}
    specs = {name: tf.TensorSpec([None, size], tf.float32, name) for name, size in sizes.items()}
    model.serve = tf.function(model.step)
    signature = model.serve.get_concrete_function(**specs)
    tf.saved_model.save(model, str(directory), signatures={"serving_default": signature})


def errors(weights: numpy_model.Weights, drives: Recording, usual: float) -> dict[str, float]:
    """Mean absolute errors in minutes: of the model, and of guesses that a line of code can make.

    `usual` is by how much drives of the training took longer than the map says.
    """
    _, _, speed, _, left, map_minutes = np.moveaxis(drives.features, -1, 0)
    spent = np.maximum(np.arange(left.shape[1]) * STEP_MINUTES, STEP_MINUTES)
    so_far = (left[:, :1] - left) / spent
    guesses = {
        "model": numpy_model.sessions(weights, drives.features)[0],
        "distance by speed now": left / np.maximum(speed, SLOWEST_KM_PER_MINUTE),
        "distance by speed so far": left / np.maximum(so_far, SLOWEST_KM_PER_MINUTE),
        "map minutes, as the usual drive": map_minutes * usual,
    }
    return {name: round(_error(guess, drives), 3) for name, guess in guesses.items()}


def _usual(drives: Recording) -> float:
    return float(np.median(drives.eta_minutes[:, 0] / drives.features[:, 0, numpy_model.MAP_MINUTES]))


def _error(guess: np.ndarray[Any, Any], drives: Recording) -> float:
    return float(np.abs(guess - drives.eta_minutes)[drives.under_way].mean())


def main() -> None:
    """Trains, measures on days that were not trained on, writes."""
    parser = argparse.ArgumentParser(description="Trains and exports the arrival model.")
    parser.add_argument("directory", type=Path, help="where `model/`, `inferway.yaml` and `weights.npz` go")
    parser.add_argument("--days", type=int, default=24, help="days to learn from, of 40 vehicles each")
    parser.add_argument("--epochs", type=int, default=8, help="how often they are looked at")
    arguments = parser.parse_args()
    began = time.perf_counter()
    keras.utils.set_random_seed(7)
    town = Town.build()
    drives = record(town, range(arguments.days), VEHICLES, STEPS)
    model = train(drives, arguments.epochs)
    weights = model.weights()
    found = errors(weights, record(town, HELD_OUT_DAYS, VEHICLES, STEPS), _usual(drives))
    directory: Path = arguments.directory
    export(model, directory / "model")
    np.savez(directory / "weights.npz", **weights)  # type: ignore[arg-type]
    labels = json.dumps({"error_minutes": found["model"], "units": UNITS})
    (directory / "inferway.yaml").write_text(CONFIG.format(labels=labels), encoding="utf-8")
    for name, minutes in found.items():
        print(f"mean error on unseen days, {name}: {minutes:.2f} minutes")
    print(f"took {time.perf_counter() - began:.1f} s; now: inferway push eta {directory / 'model'} --wait")


if __name__ == "__main__":
    main()
