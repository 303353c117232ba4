"""A loaded version where it computes: arrays in, arrays out, errors made fit for callers."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from inferway.errors import InferwayError, VersionLoadFailed
from inferway_inference.runner.arrays import from_numpy, to_numpy
from inferway_inference.runner.base import LoadOrder
from inferway_inference.runtimes import open_runtime
from inferway_inference.runtimes.base import Runtime
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array


class Computed(NamedTuple):
    """Outputs, and when the runtime worked on them, in nanoseconds since 1970."""

    outputs: list[Array]
    started_ns: int
    ended_ns: int


class Model:
    """One copy of a version in this process. Several threads may compute at once; the last one out closes it."""

    def __init__(self, runtime: Runtime, signatures: tuple[Signature, ...]) -> None:
        """Use `load`."""
        self.signatures = signatures
        self._runtime = runtime
        self._lock = threading.Lock()
        self._calls = 0
        self._closing = False

    @classmethod
    def load(cls, order: LoadOrder) -> Model:
        """Raises InferwayError."""
        try:
            runtime = open_runtime(order.runtime)
            return cls(runtime, runtime.load(order.path, order.threads, order.placement))
        except Exception as error:
            raise typed(error, VersionLoadFailed) from error

    def compute(self, signature: int, inputs: Sequence[Array], outputs: Sequence[int]) -> Computed:
        """Raises whatever the runtime does. Outputs are views that hold until this thread computes again."""
        with self._lock:
            self._calls += 1
        try:
            return self._compute(self.signatures[signature], inputs, outputs)
        finally:
            with self._lock:
                self._calls -= 1
                last = self._closing and not self._calls
            if last:
                self._give_back()

    def close(self) -> None:
        """Gives back what the runtime took, once the calls under way have returned; none may begin any more."""
        with self._lock:
            self._closing = True
            idle = not self._calls
        if idle:
            self._give_back()

    def _compute(self, known: Signature, inputs: Sequence[Array], outputs: Sequence[int]) -> Computed:
        named = {spec.name: to_numpy(array) for spec, array in zip(known.inputs, inputs, strict=True)}
        wanted = [known.outputs[index] for index in outputs]
        started_ns = time.time_ns()
        results = self._runtime.call(known.name, named, [spec.name for spec in wanted])
        ended_ns = time.time_ns()
        arrays = [from_numpy(results[spec.name], spec.datatype, spec.name) for spec in wanted]
        return Computed(arrays, started_ns, ended_ns)

    def _give_back(self) -> None:
        """To the system: frameworks leave cycles behind, and the allocator keeps what is freed."""
        self._runtime.close()
        del self._runtime
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def typed(error: Exception, kind: type[InferwayError]) -> InferwayError:
    """What callers may know: our own errors as they are, of others only their kind."""
    if isinstance(error, InferwayError):
        return error
    cause = type(error).__name__
    return kind(f"the model raised {cause}", cause=cause)
