"""The arrival model of `examples/eta` for tests: hardly trained, which is enough to carry state."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from examples.eta import numpy_model

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class EtaModel:
    """Where it is, and its weights."""

    directory: Path
    """With `inferway.yaml`, which binds its state, beside `model`."""
    weights: numpy_model.Weights
    printed: str

    @property
    def saved_model(self) -> Path:
        """What is pushed."""
        return self.directory / "model"


def train(directory: Path, *arguments: str) -> EtaModel:
    """Runs the example as users do; a process of its own, so that TensorFlow is not in this one."""
    command = [sys.executable, "-m", "examples.eta.train", str(directory), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return EtaModel(directory, numpy_model.load(directory / "weights.npz"), done.stdout)
