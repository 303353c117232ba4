"""TensorFlow SavedModels. The only file under `services/` that imports TensorFlow.

A signature is called by the session's own C++ callable, whose operations run in the calling thread: a tiny model takes
0.02 ms that way, 0.13 ms by `make_callable` and 0.46 ms as a concrete function. The TF1 loader reads what TF2 and
Keras export, restores variables, runs initialisers and needs no Python objects of the model. So a few modules of
TensorFlow are enough, and they are imported without the package's own `__init__`, which loads Keras and everything
for training: 1.0 s instead of 3.7 s of processor time for each load, and 200 MB less in each process
(docs/adr/0004-inference-worker.md).

What `tf.saved_model.save` writes of a compiled Keras 3 model has its variables twice, and the TF1 loader fills those
that the signatures do not read. That is noticed after loading, and only such a version is loaded once more, by its
object graph: into a session too, so that it is called the same way.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact, ModelFailed, VersionLoadFailed
from inferway_inference.runtimes.base import CPU, EXPORT_ADVICE, Placement, plain_cause, version_at_fault
from inferway_inference.signatures import Signature, TensorSpec


def _skip_package_init() -> None:
    """Makes TensorFlow's modules importable without running `tensorflow/__init__.py`; raises ModuleNotFoundError."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(name="tensorflow")
    package = ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules.setdefault("tensorflow", package)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")  # else the first session's threads are those of all
_skip_package_init()

from tensorflow.core.protobuf import config_pb2  # noqa: E402 - after the package is prepared
from tensorflow.python.client import session as sessions  # noqa: E402
from tensorflow.python.framework import dtypes, ops  # noqa: E402
from tensorflow.python.framework import errors_impl as errors  # noqa: E402
from tensorflow.python.ops import array_ops, gen_resource_variable_ops  # noqa: E402
from tensorflow.python.saved_model import loader_impl  # noqa: E402

_TAG = "serve"
_INITIALISER = "__saved_model_init_op"
_HEADING = "Graph execution error:"

_DATATYPES: dict[Any, Datatype] = {
    dtypes.bool: Datatype.BOOL,
    dtypes.uint8: Datatype.UINT8,
    dtypes.uint16: Datatype.UINT16,
    dtypes.uint32: Datatype.UINT32,
    dtypes.uint64: Datatype.UINT64,
    dtypes.int8: Datatype.INT8,
    dtypes.int16: Datatype.INT16,
    dtypes.int32: Datatype.INT32,
    dtypes.int64: Datatype.INT64,
    dtypes.float16: Datatype.FP16,
    dtypes.float32: Datatype.FP32,
    dtypes.float64: Datatype.FP64,
    dtypes.string: Datatype.BYTES,
    dtypes.bfloat16: Datatype.BF16,
}
_DTYPES = {datatype: dtype for dtype, datatype in _DATATYPES.items()}


_Ends = tuple[list[Any], list[Any]]
"""Where a signature is fed and fetched: tensors of the graph, in the order of its inputs and outputs."""


class TensorFlowRuntime:
    """One SavedModel in one session."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._calls: dict[str, tuple[list[str], list[str], Callable[..., Sequence[Any]]]] = {}
        self._session: Any = None
        self._objects: Any = None
        """Tables live as long as the object that was loaded."""

    def load(self, path: Path, threads: int, placement: Placement = CPU) -> tuple[Signature, ...]:
        """As the interface says."""
        session = _open_session(threads, placement)
        meta_graph = _restore(session, path)
        definitions = {name: one for name, one in meta_graph.signature_def.items() if name != _INITIALISER}
        read = {name: _signature(name, definition) for name, definition in definitions.items()}
        signatures = {name: signature for name, signature in sorted(read.items()) if signature is not None}
        if not signatures:
            raise VersionLoadFailed("the SavedModel has no signature that can be served", cause="no signature")
        ends = {name: _ends(session.graph, one, definitions[name]) for name, one in signatures.items()}
        if meta_graph.HasField("object_graph_def") and _lacks_values(session, ends.values()):
            session.close()
            session = _open_session(threads, placement)
            self._objects, ends = _restore_objects(session, path, signatures.values())
        for name, signature in signatures.items():
            self._calls[name] = _callable(session, signature, ends[name])
        self._session = session
        return tuple(signatures.values())

    def call(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Mapping[str, NDArray[Any]]:
        """As the interface says."""
        input_names, output_names, compute = self._calls[signature]
        try:
            results = compute(*(inputs[name] for name in input_names))
        except errors.OpError as error:
            cause = _cause(error)
            if _lacks_resource(error):
                raise version_at_fault(cause) from error
            raise ModelFailed(f"the model refused the input: {cause}", cause=cause) from error
        named = zip(output_names, results, strict=True)
        return {name: np.asarray(values) for name, values in named if name in outputs}

    def close(self) -> None:
        """As the interface says."""
        self._calls.clear()
        self._objects = None
        if self._session is not None:
            self._session.close()
            self._session = None


def open_runtime() -> TensorFlowRuntime:
    """A new, empty runtime."""
    return TensorFlowRuntime()


def _open_session(threads: int, placement: Placement) -> Any:
    config = config_pb2.ConfigProto(
        inter_op_parallelism_threads=-1, intra_op_parallelism_threads=threads, allow_soft_placement=True
    )
    if placement.gpu is None:
        config.device_count["GPU"] = 0
    else:
        config.gpu_options.visible_device_list = str(placement.gpu)
        config.gpu_options.allow_growth = placement.memory_growth
    if placement.xla:
        config.graph_options.optimizer_options.global_jit_level = config_pb2.OptimizerOptions.ON_1
    session = sessions.Session(graph=ops.Graph(), config=config)
    if placement.gpu is not None and not any(one.device_type == "GPU" for one in session.list_devices()):
        session.close()  # it would compute on the CPU and say nothing
        raise VersionLoadFailed(f"TensorFlow finds no {placement.device} that it can use", cause="no GPU")
    return session


def _restore(session: Any, path: Path) -> Any:
    """Loads graph and variables; tells apart which of the files is at fault."""
    try:
        with session.graph.as_default():
            return loader_impl.SavedModelLoader(str(path)).load(session, [_TAG])
    except (errors.DataLossError, errors.NotFoundError, errors.OutOfRangeError) as error:
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
    except (errors.OpError, ValueError, TypeError, KeyError) as error:
        cause = _cause(error)
        raise VersionLoadFailed(f"TensorFlow cannot load the SavedModel: {cause}", cause=cause) from error


def _restore_objects(session: Any, path: Path, signatures: Iterable[Signature]) -> tuple[Any, dict[str, _Ends]]:
    """Loads the object graph, with every variable as the objects hold it; returns what keeps it, and the ends."""
    from tensorflow.python.ops import lookup_ops, variables  # noqa: PLC0415 - 0.4 s that few versions need
    from tensorflow.python.saved_model import load  # noqa: PLC0415

    def call(signature: Signature) -> _Ends:
        feeds = {spec.name: array_ops.placeholder(_DTYPES[spec.datatype], _tf_shape(spec)) for spec in signature.inputs}
        fetches = objects.signatures[signature.name](**feeds)
        return list(feeds.values()), [fetches[spec.name] for spec in signature.outputs]

    try:
        with session.graph.as_default():
            objects = load.load(str(path), tags=[_TAG])
            ends = {signature.name: call(signature) for signature in signatures}
            session.run([variables.global_variables_initializer(), lookup_ops.tables_initializer()])
    except Exception as error:
        raise _without_values(_cause(error)) from error
    if _lacks_values(session, ends.values()):
        raise _without_values("they are not in the checkpoint")
    return objects, ends


def _without_values(cause: str) -> VersionLoadFailed:
    return VersionLoadFailed(
        f"variables that the signatures read get no values from the SavedModel ({cause}); {EXPORT_ADVICE}", cause=cause
    )


def _lacks_values(session: Any, ends: Iterable[_Ends]) -> bool:
    """Whether any signature reads a variable that has no value."""
    handles = _variables_behind(fetch for _, fetches in ends for fetch in fetches)
    with session.graph.as_default():
        checks = [gen_resource_variable_ops.var_is_initialized_op(handle) for handle in handles]
    return not all(session.run(checks))


def _variables_behind(fetches: Iterable[Any]) -> list[Any]:
    """Handles of all variables that are needed to compute `fetches`."""
    waiting, seen = [tensor.op for tensor in fetches], set[Any]()
    while waiting:
        operation = waiting.pop()
        if operation not in seen:
            seen.add(operation)
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return [operation.outputs[0] for operation in seen if operation.type == "VarHandleOp"]


def _signature(name: str, definition: Any) -> Signature | None:
    """None if a tensor is not dense or of a type that the protocol does not have: such signatures are not served."""
    inputs = [_spec(tensor, info) for tensor, info in definition.inputs.items()]
    outputs = [_spec(tensor, info) for tensor, info in definition.outputs.items()]
    known = [spec for spec in (*inputs, *outputs) if spec is not None]
    if not outputs or len(known) < len(inputs) + len(outputs):
        return None
    return Signature.of(name, known[: len(inputs)], known[len(inputs) :])


def _spec(name: str, info: Any) -> TensorSpec | None:
    datatype = _DATATYPES.get(dtypes.as_dtype(info.dtype))
    if datatype is None or info.WhichOneof("encoding") != "name":
        return None
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(name, datatype, shape)


def _tf_shape(spec: TensorSpec) -> list[int | None] | None:
    return None if spec.shape is None else [None if size < 0 else size for size in spec.shape]


def _ends(graph: Any, signature: Signature, definition: Any) -> _Ends:
    feeds = [graph.as_graph_element(definition.inputs[spec.name].name) for spec in signature.inputs]
    fetches = [graph.as_graph_element(definition.outputs[spec.name].name) for spec in signature.outputs]
    fed = {tensor.name for tensor in feeds}
    with graph.as_default():  # what is fed cannot be fetched
        return feeds, [array_ops.identity(tensor) if tensor.name in fed else tensor for tensor in fetches]


def _callable(
    session: Any, signature: Signature, ends: _Ends
) -> tuple[list[str], list[str], Callable[..., Sequence[Any]]]:
    """`make_callable` with feeds would go through all of `Session.run`; this is what it uses without."""
    feeds, fetches = ([tensor.name for tensor in tensors] for tensors in ends)
    try:
        compute = session._make_callable_from_options(config_pb2.CallableOptions(feed=feeds, fetch=fetches))  # noqa: SLF001
    except errors.OpError as error:
        cause = _cause(error)
        message = f"TensorFlow cannot run signature {signature.name!r}: {cause}"
        raise VersionLoadFailed(message, cause=cause) from error
    return [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs], compute


def _lacks_resource(error: Any) -> bool:
    """Whether a variable or table of the graph has no content; a file that an input names is another matter."""
    missing = isinstance(error, errors.NotFoundError) and "does not exist" in error.message
    return missing or isinstance(error, errors.FailedPreconditionError)


def _cause(error: Exception) -> str:
    return plain_cause((getattr(error, "message", "") or str(error)).replace(_HEADING, ""))
