"""TensorFlow SavedModels. The only file under `services/` that imports TensorFlow.

A signature is called by a session callable whose operations run in the calling thread: a tiny model takes 0.10 ms
that way and 0.46 ms as a concrete function (docs/adr/0004-inference-worker.md has the measurement). The TF1 loader
reads what TF2 and Keras export, restores variables, runs initialisers and needs no Python objects of the model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import tensorflow as tf

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact, ModelFailed, VersionLoadFailed
from inferway_inference.signatures import Signature, TensorSpec

_TAG = "serve"
_INITIALISER = "__saved_model_init_op"
_MAX_CAUSE = 300

_DATATYPES: dict[Any, Datatype] = {
    tf.bool: Datatype.BOOL,
    tf.uint8: Datatype.UINT8,
    tf.uint16: Datatype.UINT16,
    tf.uint32: Datatype.UINT32,
    tf.uint64: Datatype.UINT64,
    tf.int8: Datatype.INT8,
    tf.int16: Datatype.INT16,
    tf.int32: Datatype.INT32,
    tf.int64: Datatype.INT64,
    tf.float16: Datatype.FP16,
    tf.float32: Datatype.FP32,
    tf.float64: Datatype.FP64,
    tf.string: Datatype.BYTES,
    tf.bfloat16: Datatype.BF16,
}


class TensorFlowRuntime:
    """One SavedModel in one session."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._calls: dict[str, tuple[list[str], list[str], Callable[..., Sequence[Any]]]] = {}

    def load(self, path: Path, threads: int) -> tuple[Signature, ...]:
        """As the interface says."""
        config = tf.compat.v1.ConfigProto(
            inter_op_parallelism_threads=-1, intra_op_parallelism_threads=threads, allow_soft_placement=True
        )
        config.gpu_options.allow_growth = True
        session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        meta_graph = _restore(session, path)
        signatures = {}
        for name, definition in meta_graph.signature_def.items():
            signature = None if name == _INITIALISER else _signature(name, definition)
            if signature is not None:
                signatures[name] = signature
                self._calls[name] = _callable(session, signature, definition)
        if not signatures:
            raise VersionLoadFailed("the SavedModel has no signature that can be served", cause="no signature")
        return tuple(signatures[name] for name in sorted(signatures))

    def call(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Mapping[str, NDArray[Any]]:
        """As the interface says."""
        input_names, output_names, compute = self._calls[signature]
        try:
            results = compute(*(inputs[name] for name in input_names))
        except tf.errors.OpError as error:
            cause = _cause(error)
            raise ModelFailed(f"the model refused the input: {cause}", cause=cause) from error
        named = zip(output_names, results, strict=True)
        return {name: np.asarray(values) for name, values in named if name in outputs}


def open_runtime() -> TensorFlowRuntime:
    """A new, empty runtime."""
    return TensorFlowRuntime()


def _restore(session: Any, path: Path) -> Any:
    """Loads graph and variables; tells apart which of the files is at fault."""
    try:
        with session.graph.as_default():
            return tf.compat.v1.saved_model.loader.load(session, [_TAG], str(path))
    except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError) as error:
        raise CorruptArtifact(
            "the variables of the SavedModel cannot be restored: a file below variables/ is damaged, missing, or "
            "belongs to another saved_model.pb",
            path="variables/",
        ) from error
    except OSError as error:
        raise CorruptArtifact("saved_model.pb cannot be parsed as a SavedModel", path="saved_model.pb") from error
    except RuntimeError as error:
        raise VersionLoadFailed(
            f"the SavedModel has no graph with the tag {_TAG!r}; export it for serving", cause="no serving graph"
        ) from error
    except (tf.errors.OpError, ValueError, TypeError, KeyError) as error:
        cause = _cause(error)
        raise VersionLoadFailed(f"TensorFlow cannot load the SavedModel: {cause}", cause=cause) from error


def _signature(name: str, definition: Any) -> Signature | None:
    """None if a tensor is not dense or of a type that the protocol does not have: such signatures are not served."""
    inputs = [_spec(tensor, info) for tensor, info in definition.inputs.items()]
    outputs = [_spec(tensor, info) for tensor, info in definition.outputs.items()]
    known = [spec for spec in (*inputs, *outputs) if spec is not None]
    if not outputs or len(known) < len(inputs) + len(outputs):
        return None
    return Signature.of(name, known[: len(inputs)], known[len(inputs) :])


def _spec(name: str, info: Any) -> TensorSpec | None:
    datatype = _DATATYPES.get(tf.as_dtype(info.dtype))
    if datatype is None or info.WhichOneof("encoding") != "name":
        return None
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(name, datatype, shape)


def _callable(
    session: Any, signature: Signature, definition: Any
) -> tuple[list[str], list[str], Callable[..., Sequence[Any]]]:
    inputs = [spec.name for spec in signature.inputs]
    outputs = [spec.name for spec in signature.outputs]
    compute = session.make_callable(
        [definition.outputs[name].name for name in outputs],
        feed_list=[definition.inputs[name].name for name in inputs],
    )
    return inputs, outputs, compute


def _cause(error: Exception) -> str:
    """The first line of TensorFlow's own words, without paths of this machine and stack frames of the graph."""
    words = getattr(error, "message", "") or str(error)
    line = next((line.strip() for line in words.splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"(/[\w.+-]+){2,}/?", "…", line)[:_MAX_CAUSE]
