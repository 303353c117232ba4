"""A runtime of pure NumPy that behaves as the others do, for tests and trials: it starts in a tenth of a second.

The version is one file, `fake_model.json`, or `assets.extra/fake_model.json` beside a real one, which a registry
takes: signatures with tensors as `[datatype, shape]`, an `operation`, and `batch_seconds` and `row_seconds` if each
call and each row shall take time:

    affine         every output is the input times `factor` plus `offset`
    identity       every output is the input in the same place, in the order of names
    subtract_mean  rows depend on one another, as no well-behaved model's do
    total          the sum of all elements, without a batch dimension

Elements with these values make it misbehave, so that tests need no switch beside the data: `POISON` raises, and
`DEADLY` kills the process.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferway.datatypes import FLOATING, Datatype
from inferway.errors import CorruptArtifact, ModelFailed
from inferway_inference.runtimes.base import CPU, Placement
from inferway_inference.signatures import Signature, TensorSpec

FILE = "fake_model.json"
EXTRA = "assets.extra"
POISON = 666.0
DEADLY = 999.0


class FakeRuntime:
    """See the module."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._described: dict[str, dict[str, Any]] = {}
        self._signatures: dict[str, Signature] = {}

    def load(self, path: Path, threads: int, placement: Placement = CPU) -> tuple[Signature, ...]:
        """As the interface says."""
        del threads, placement
        try:
            extra = path / EXTRA / FILE
            self._described = json.loads((extra if extra.exists() else path / FILE).read_text())["signatures"]
            self._signatures = {name: _signature(name, content) for name, content in self._described.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"{FILE} is no description of a fake model", path=FILE) from error
        return tuple(self._signatures[name] for name in sorted(self._signatures))

    def call(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Mapping[str, NDArray[Any]]:
        """As the interface says."""
        known, content = self._signatures[signature], self._described[signature]
        ordered = [inputs[spec.name] for spec in known.inputs]
        for spec, values in zip(known.inputs, ordered, strict=True):
            if spec.datatype in FLOATING:
                _misbehave(values)
        results = _OPERATIONS[content["operation"]](ordered, content)
        if "batch_seconds" in content or "row_seconds" in content:
            time.sleep(content.get("batch_seconds", 0.0) + content.get("row_seconds", 0.0) * len(ordered[0]))
        named = zip((spec.name for spec in known.outputs), results, strict=True)
        return {name: values for name, values in named if name in outputs}

    def close(self) -> None:
        """As the interface says."""


def open_runtime() -> FakeRuntime:
    """A new, empty runtime."""
    return FakeRuntime()


def _signature(name: str, content: dict[str, Any]) -> Signature:
    def specs(described: dict[str, Any]) -> list[TensorSpec]:
        return [TensorSpec(tensor, Datatype[kind], tuple(shape)) for tensor, (kind, shape) in described.items()]

    return Signature.of(name, specs(content["inputs"]), specs(content["outputs"]))


def _misbehave(values: NDArray[Any]) -> None:
    if (values == DEADLY).any():
        os.kill(os.getpid(), signal.SIGKILL)
    if (values == POISON).any():
        raise ModelFailed("the model refuses this input: it is poison", cause="poison")


def _affine(inputs: list[NDArray[Any]], content: dict[str, Any]) -> list[NDArray[Any]]:
    factor, offset = content.get("factor", 1), content.get("offset", 0)
    return [(values * factor + offset).astype(values.dtype) for values in inputs]


def _identity(inputs: list[NDArray[Any]], content: dict[str, Any]) -> list[NDArray[Any]]:
    del content
    return inputs


def _subtract_mean(inputs: list[NDArray[Any]], content: dict[str, Any]) -> list[NDArray[Any]]:
    del content
    return [values - values.mean(axis=0, dtype=values.dtype) for values in inputs]


def _total(inputs: list[NDArray[Any]], content: dict[str, Any]) -> list[NDArray[Any]]:
    del content
    return [np.asarray(values.sum(dtype=values.dtype)) for values in inputs]


_OPERATIONS: dict[str, Callable[[list[NDArray[Any]], dict[str, Any]], list[NDArray[Any]]]] = {
    "affine": _affine,
    "identity": _identity,
    "subtract_mean": _subtract_mean,
    "total": _total,
}
