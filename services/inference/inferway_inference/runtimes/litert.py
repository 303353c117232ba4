"""LiteRT models (`.tflite`) on the CPU, quantised ones with the integers they were made for.

An interpreter computes one call at a time, so there are as many as there were callers at once, each with its own packed
copy of the weights. After a call with other shapes than the one before it plans its memory anew, which takes 0.1 ms for
a small model. An interpreter that failed is not used again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact, ModelFailed, VersionLoadFailed
from inferway_inference.runtimes.base import CPU, Placement, plain_cause
from inferway_inference.signatures import Signature, TensorSpec

FILE = "model.tflite"
SIGNATURE = "serving_default"
"""Name of the signature of a model that has none."""

_DATATYPES = {
    "bool": Datatype.BOOL,
    "uint8": Datatype.UINT8,
    "uint16": Datatype.UINT16,
    "uint32": Datatype.UINT32,
    "uint64": Datatype.UINT64,
    "int8": Datatype.INT8,
    "int16": Datatype.INT16,
    "int32": Datatype.INT32,
    "int64": Datatype.INT64,
    "float16": Datatype.FP16,
    "float32": Datatype.FP32,
    "float64": Datatype.FP64,
    "bytes": Datatype.BYTES,
    "bfloat16": Datatype.BF16,
}
_ERRORS = (RuntimeError, ValueError)


class LiteRtRuntime:
    """One model, and its interpreters that are not computing."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._file = Path()
        self._threads = 1
        self._idle: list[_Callables] = []

    def load(self, path: Path, threads: int, placement: Placement = CPU) -> tuple[Signature, ...]:
        """As the interface says; computes on the CPU wherever it is placed."""
        del placement
        self._file = path / FILE
        self._threads = threads or len(os.sched_getaffinity(0))
        if not self._file.is_file():
            raise CorruptArtifact(f"{FILE} is missing", path=FILE)
        try:
            first = _Callables(self._file, self._threads)
        except ValueError as error:
            raise CorruptArtifact(f"{FILE} cannot be read as a LiteRT model", path=FILE) from error
        except RuntimeError as error:
            cause = plain_cause(str(error))
            raise VersionLoadFailed(f"LiteRT cannot run the model: {cause}", cause=cause) from error
        self._idle.append(first)
        return first.signatures()

    def call(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Mapping[str, NDArray[Any]]:
        """As the interface says."""
        try:
            callables = self._idle.pop()
        except IndexError:
            callables = _Callables(self._file, self._threads)
        try:
            results = callables[signature](**inputs)
        except _ERRORS as error:
            cause = plain_cause(str(error))
            raise ModelFailed(f"the model refused the input: {cause}", cause=cause) from error
        self._idle.append(callables)
        return {name: np.asarray(results[name]) for name in outputs}

    def close(self) -> None:
        """As the interface says."""
        self._idle.clear()


class _Callables:
    """One interpreter, and what it can be asked, by signature."""

    def __init__(self, file: Path, threads: int) -> None:
        interpreter = Interpreter(str(file), num_threads=threads)
        interpreter.allocate_tensors()  # tells of operations that are not there
        names = interpreter.get_signature_list()
        self._signatures = {name: interpreter.get_signature_runner(name) for name in names} or {
            SIGNATURE: _Unsigned(interpreter)
        }

    def __getitem__(self, signature: str) -> Any:
        return self._signatures[signature]

    def signatures(self) -> tuple[Signature, ...]:
        """By name. Raises VersionLoadFailed for a tensor that no request can carry."""
        return tuple(
            Signature.of(name, _specs(one.get_input_details()), _specs(one.get_output_details()))
            for name, one in sorted(self._signatures.items())
        )


class _Unsigned:
    """Calls a model without signatures by the names of its tensors; looks like LiteRT's own SignatureRunner."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._inputs = {name: one["index"] for name, one in self.get_input_details().items()}
        self._outputs = {name: one["index"] for name, one in self.get_output_details().items()}

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        for name, values in inputs.items():
            self._interpreter.resize_tensor_input(self._inputs[name], values.shape)
        self._interpreter.allocate_tensors()
        for name, values in inputs.items():
            self._interpreter.set_tensor(self._inputs[name], values)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def get_input_details(self) -> dict[str, dict[str, Any]]:
        """By name."""
        return {one["name"]: one for one in self._interpreter.get_input_details()}

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        """By name."""
        return {one["name"]: one for one in self._interpreter.get_output_details()}


def open_runtime() -> LiteRtRuntime:
    """A new, empty runtime."""
    return LiteRtRuntime()


def _specs(details: Mapping[str, Mapping[str, Any]]) -> list[TensorSpec]:
    return [_spec(name, tensor) for name, tensor in details.items()]


def _spec(name: str, tensor: Mapping[str, Any]) -> TensorSpec:
    kind = np.dtype(tensor["dtype"]).name if tensor["dtype"] is not np.bytes_ else "bytes"
    datatype = _DATATYPES.get(kind)
    if datatype is None:
        raise VersionLoadFailed(f"{name!r} has elements of {kind}, which no request can carry", cause=kind)
    sizes = tensor["shape_signature"] if len(tensor["shape_signature"]) else tensor["shape"]
    return TensorSpec(name, datatype, tuple(int(size) for size in sizes))
