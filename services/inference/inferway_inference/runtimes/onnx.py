"""ONNX models by ONNX Runtime, on the CPU or by CUDA.

A model has one signature, `serving_default`: ONNX itself knows none. Sessions may be run by several threads at once,
and release Python's lock while they compute. Threads of a session sleep between operations rather than spin: spinning
takes the processor from whoever computes beside them.

ONNX strings are text, so BYTES elements must be UTF-8. bfloat16 is unknown to the package's NumPy side; such tensors
go in and come out as the memory they are, which the package cannot do beside strings: no model may
have both.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact, ModelFailed, VersionLoadFailed
from inferway_inference.runtimes.base import CPU, Placement, plain_cause
from inferway_inference.signatures import Signature, TensorSpec

FILE = "model.onnx"
SIGNATURE = "serving_default"

_ONNX_BFLOAT16 = 16
_SILENT = 4
_CUDA = "CUDAExecutionProvider"
_NOISE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |\S+\.(cc|h):\d+ ([^()]*\([^()]*\) )?")
_DATATYPES = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
    "tensor(bfloat16)": Datatype.BF16,
}
_DAMAGED = (errors.InvalidProtobuf, errors.InvalidGraph, errors.NoSuchFile, errors.NoModel)
_ERRORS = (
    *_DAMAGED,
    errors.EPFail,
    errors.EngineError,
    errors.Fail,
    errors.InvalidArgument,
    errors.ModelLoaded,
    errors.NotImplemented,
    errors.RuntimeException,
)


class OnnxRuntime:
    """One model in one session."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._session: Any = None
        self._bfloat16: set[str] = set()
        """Tensors of that datatype."""

    def load(self, path: Path, threads: int, placement: Placement = CPU) -> tuple[Signature, ...]:
        """As the interface says."""
        if not (path / FILE).is_file():
            raise CorruptArtifact(f"{FILE} is missing", path=FILE)
        self._session = _open_session(path / FILE, threads, placement)
        inputs, outputs = ([_spec(one) for one in ends] for ends in _ends(self._session))
        self._bfloat16 = {spec.name for spec in (*inputs, *outputs) if spec.datatype is Datatype.BF16}
        if any(spec.datatype is Datatype.BYTES for spec in inputs) and self._bfloat16:
            raise VersionLoadFailed("ONNX Runtime cannot take strings beside bfloat16 tensors", cause="bfloat16")
        return (Signature.of(SIGNATURE, inputs, outputs),)

    def call(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Mapping[str, NDArray[Any]]:
        """As the interface says."""
        del signature  # there is one
        texts = {name: _text(name, values) if values.dtype == object else values for name, values in inputs.items()}
        try:
            results = self._run(texts, list(outputs))
        except _ERRORS as error:
            cause = _cause(error)
            raise ModelFailed(f"the model refused the input: {cause}", cause=cause) from error
        return {name: _encoded(values) if values.dtype == object else values for name, values in results.items()}

    def close(self) -> None:
        """As the interface says."""
        self._session = None

    def _run(self, inputs: Mapping[str, NDArray[Any]], outputs: list[str]) -> dict[str, NDArray[Any]]:
        """By the plain way, unless bfloat16 is among what goes in or out."""
        if self._bfloat16.isdisjoint((*inputs, *outputs)):
            return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))
        values = {name: _to_value(array) for name, array in inputs.items()}
        results = self._session.run_with_ort_values(outputs, values)
        return {name: _from_value(value) for name, value in zip(outputs, results, strict=True)}


def open_runtime() -> OnnxRuntime:
    """A new, empty runtime."""
    return OnnxRuntime()


def _open_session(file: Path, threads: int, placement: Placement) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT  # failures come as errors; the log would hold paths and inputs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(file, options, providers=_providers(placement))
    except _DAMAGED as error:
        raise CorruptArtifact(
            f"{FILE} cannot be read as an ONNX model, or lacks a file of its weights", path=FILE
        ) from error
    except _ERRORS as error:
        cause = _cause(error)
        raise VersionLoadFailed(f"ONNX Runtime cannot load the model: {cause}", cause=cause) from error
    if placement.gpu is not None and session.get_providers()[0] != _CUDA:
        # It would compute on the CPU and say nothing.
        raise VersionLoadFailed(f"ONNX Runtime finds no {placement.device} that it can use", cause="no GPU")
    return session


def _providers(placement: Placement) -> list[str | tuple[str, dict[str, str]]]:
    """What computes, in order of preference: operations that CUDA lacks run on the CPU."""
    if placement.gpu is None:
        return ["CPUExecutionProvider"]
    if _CUDA not in onnxruntime.get_available_providers():
        raise VersionLoadFailed(
            "the worker's ONNX Runtime computes on CPUs alone; its image for GPUs has onnxruntime-gpu", cause="no CUDA"
        )
    onnxruntime.preload_dlls()  # CUDA comes in packages, where the system's loader does not look
    strategy = "kSameAsRequested" if placement.memory_growth else "kNextPowerOfTwo"
    cuda = {"device_id": str(placement.gpu), "arena_extend_strategy": strategy}
    return [(_CUDA, cuda), "CPUExecutionProvider"]


def _ends(session: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    return session.get_inputs(), session.get_outputs()


def _spec(end: Any) -> TensorSpec:
    datatype = _DATATYPES.get(end.type)
    if datatype is None:
        raise VersionLoadFailed(f"{end.name!r} is a {end.type}, which no request can carry", cause=end.type)
    return TensorSpec(end.name, datatype, tuple(size if isinstance(size, int) else -1 for size in end.shape))


def _text(name: str, values: NDArray[Any]) -> NDArray[Any]:
    texts = np.empty(values.size, object)
    try:
        texts[:] = [element.decode() for element in values.reshape(-1)]
    except UnicodeDecodeError as error:
        cause = f"input {name!r} has an element that is not UTF-8; strings of ONNX models are text"
        raise ModelFailed(f"the model refused the input: {cause}", cause=cause) from error
    return texts.reshape(values.shape)


def _encoded(values: NDArray[Any]) -> NDArray[Any]:
    encoded = np.empty(values.size, object)
    encoded[:] = [element.encode() for element in values.reshape(-1)]
    return encoded.reshape(values.shape)


def _to_value(array: NDArray[Any]) -> Any:
    """The array's own memory, which must outlive the value."""
    if array.dtype == ml_dtypes.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view("u2"), _ONNX_BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _from_value(value: Any) -> NDArray[Any]:
    if value.element_type() != _ONNX_BFLOAT16:
        return np.asarray(value.numpy())
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(content, ml_dtypes.bfloat16).reshape(value.shape())


def _cause(error: Exception) -> str:
    """Its words without codes, as `[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : `, and places in its source."""
    return plain_cause(_NOISE.sub("", str(error).rpartition("Status Message: ")[2] or str(error)))
