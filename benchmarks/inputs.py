"""Seeded inputs of the benchmarks' models; imports no framework, so that a client can ask without one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTHS: dict[str, tuple[int, ...]] = {"tiny": (32,), "medium": (784,), "mobilenet": (224, 224, 3)}
"""The shape of one row of each model."""

_WAVES = 6


def inputs(model: str, rows: int, seed: int) -> NDArray[np.float32]:
    """`rows` different rows of `model`; pictures are sums of waves, as noise looks the same to any network."""
    random = np.random.default_rng(seed)
    if model == "mobilenet":
        return np.stack([_picture(random) for _ in range(rows)])
    return random.normal(size=(rows, *WIDTHS[model])).astype("f4")


def _picture(random: np.random.Generator) -> NDArray[np.float32]:
    """[height, width, channels] from -1 to 1."""
    height, width, channels = WIDTHS["mobilenet"]
    y, x = np.mgrid[0:height, 0:width] / height
    waves = [
        np.cos(2 * np.pi * (fy * y + fx * x)[..., None] + random.uniform(0, 2 * np.pi, channels))
        for fy, fx in random.uniform(-12, 12, (_WAVES, 2))
    ]
    return np.asarray(np.clip(sum(waves) / 3 + random.uniform(-0.5, 0.5, channels), -1, 1), "f4")
