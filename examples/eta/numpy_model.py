"""The arrival model once more, in NumPy: what any session's answers and state must be, to compare with.

A GRU of `units` units, as Keras computes it with `reset_after=True`: the gates are update, reset and candidate, in this
order, and the reset gate is applied after the recurrent product.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Weights = Mapping[str, Floats]
"""scale [features], kernel [features, 3 units], recurrent_kernel [units, 3 units], bias [2, 3 units],
head_kernel [units, 1], head_bias [1]."""

MAP_MINUTES = 5
"""The feature that the head scales."""


def load(path: Path) -> Weights:
    """The weights that `train` has saved as .npz."""
    with np.load(path) as arrays:
        return dict(arrays)


def initial_state(weights: Weights, rows: int) -> Floats:
    """[rows, units]: where every session begins."""
    return np.zeros((rows, weights["recurrent_kernel"].shape[0]), np.float32)


def step(weights: Weights, x: Floats, state: Floats) -> tuple[Floats, Floats]:
    """One item of a session: `x` [rows, features] and `state` [rows, units] → `eta_minutes` [rows, 1], `next_state`."""
    scaled = x * weights["scale"]
    gates_x = np.split(scaled @ weights["kernel"] + weights["bias"][0], 3, axis=1)
    gates_h = np.split(state @ weights["recurrent_kernel"] + weights["bias"][1], 3, axis=1)
    update = _sigmoid(gates_x[0] + gates_h[0])
    reset = _sigmoid(gates_x[1] + gates_h[1])
    candidate = np.tanh(gates_x[2] + reset * gates_h[2])
    next_state = update * state + (1 - update) * candidate
    factor = np.logaddexp(0, next_state @ weights["head_kernel"] + weights["head_bias"])
    return (x[:, MAP_MINUTES : MAP_MINUTES + 1] * factor).astype(np.float32), next_state.astype(np.float32)


def sessions(weights: Weights, items: Floats) -> tuple[Floats, Floats]:
    """Whole sessions from their beginning, one a row.

    `items` [sessions, items, features] → minutes [sessions, items] and the state that each session ends with.
    """
    state, told = initial_state(weights, len(items)), []
    for x in items.swapaxes(0, 1):
        eta_minutes, state = step(weights, x, state)
        told.append(eta_minutes[:, 0])
    return np.stack(told, axis=1), state


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)
