"""Runs synthetic inputs through a version before anybody else does.

That takes the cost of first calls away from callers, gives the latency model its first samples, and tests what batching
rests on: rows computed together must equal the same rows computed alone. A signature that fails the test is called
one request at a time. A model that refuses synthetic inputs is not at fault; its first caller pays for the warm-up.
One that lacks what it needs whatever the inputs, as variables without values, does not become ready.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferway.datatypes import ITEM_BYTES, Datatype
from inferway.errors import ModelFailed, VersionLoadFailed
from inferway_inference.latency import CurveKey, LatencyModel, curve_key
from inferway_inference.runner.process import Outcome, RunnerProcess
from inferway_inference.runtimes.base import EXPORT_ADVICE, is_version_at_fault
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Array

_LOG = logging.getLogger(__name__)

LARGEST_BATCH_SECONDS = 5.0
"""The large batch is skipped if it would take longer, as far as the small ones tell."""
MAX_INPUT_BYTES = 256 * 1024 * 1024
_TEXT = b"\x01\x00\x00\x000"
"""The string "0": most models that read strings can read a number."""
_TOLERANCE = {Datatype.FP16: 5e-2, Datatype.BF16: 5e-2, Datatype.FP32: 1e-3, Datatype.FP64: 1e-3}
"""Relative to the largest element: the order of a sum differs with the size of the batch, and rounding with it."""


@dataclass(slots=True)
class _Caller:
    """Calls one signature and notes how long the calls take."""

    runner: RunnerProcess
    position: int
    signature: Signature
    latency: LatencyModel

    async def __call__(self, inputs: Sequence[Array], rows: int, *, cold: bool = False) -> list[Array]:
        done: asyncio.Future[list[Array]] = asyncio.get_running_loop().create_future()
        started = time.perf_counter()

        def finish(outcome: Outcome) -> None:
            if done.cancelled():
                return
            if outcome.error is not None:
                done.set_exception(outcome.error)
            else:
                outputs = [Array(out.datatype, out.shape, (bytes(out.parts[0]),)) for out in outcome.outputs]
                done.set_result(outputs)

        self.runner.call(self.position, inputs, tuple(range(len(self.signature.outputs))), finish)
        outputs = await done
        if not cold:
            self.latency.observe(self.key(inputs), rows, time.perf_counter() - started)
        return outputs

    def key(self, inputs: Sequence[Array]) -> CurveKey:
        """Of what is learned from calls with these inputs."""
        return curve_key(self.signature.name, [array.shape for array in inputs])


async def warm_up(
    runner: RunnerProcess, position: int, signature: Signature, max_batch_rows: int, latency: LatencyModel
) -> Signature:
    """Returns the signature, unbatchable if the model mixes rows.

    Raises VersionLoadFailed if the version cannot compute it at all, and RunnerCrashed if the runner ends.
    """
    call = _Caller(runner, position, signature, latency)
    try:
        if not signature.batchable:
            inputs = synthetic_inputs(signature, 1, seed=1)
            await call(inputs, 1, cold=True)
            await call(inputs, 1)
            return signature
        return await _warm_up_batches(call, signature, max_batch_rows)
    except ModelFailed as error:
        if is_version_at_fault(error):
            message = f"signature {signature.name!r} cannot be computed: {error.message}; {EXPORT_ADVICE}"
            raise VersionLoadFailed(message, cause=error.message) from error
        _LOG.info("a model refuses synthetic inputs", extra={"signature": signature.name, "cause": error.message})
        return signature


async def _warm_up_batches(call: _Caller, signature: Signature, max_batch_rows: int) -> Signature:
    one, two = (synthetic_inputs(signature, 1, seed=seed) for seed in (1, 2))
    await call(one, 1, cold=True)
    alone = await call(one, 1), await call(two, 1)
    together = await call(stacked(one, two), 2)
    if not all(map(rows_agree, together, *alone)):
        _LOG.warning("rows depend on one another: requests are not batched", extra={"signature": signature.name})
        return signature.unbatched()
    expected = (call.latency.of(call.key(one)).seconds(1) or 0.0) * max_batch_rows
    if max_batch_rows > 1 and expected < LARGEST_BATCH_SECONDS:
        large = synthetic_inputs(signature, max_batch_rows, seed=3)
        await call(large, max_batch_rows, cold=True)
        await call(large, max_batch_rows)
    return signature


def synthetic_inputs(signature: Signature, rows: int, seed: int) -> list[Array]:
    """Small random inputs: numbers from 0 to 1, dimensions of any size as 1. Raises ModelFailed if too large."""
    random = np.random.default_rng(seed)
    return [_synthetic(spec, rows, random) for spec in signature.inputs]


def _synthetic(spec: TensorSpec, rows: int, random: np.random.Generator) -> Array:
    shape = (1,) if spec.shape is None else tuple(1 if size < 0 else size for size in spec.shape)
    if spec.has_batch_dimension:
        shape = (rows, *shape[1:])
    count = math.prod(shape)
    if count * ITEM_BYTES.get(spec.datatype, len(_TEXT)) > MAX_INPUT_BYTES:
        raise ModelFailed("the inputs are too large to be made up", cause="too large")
    if spec.datatype is Datatype.BYTES:
        return Array(spec.datatype, shape, (_TEXT * count,))
    return Array(spec.datatype, shape, (_elements(spec.datatype, count, random),))


def _elements(datatype: Datatype, count: int, random: np.random.Generator) -> bytes:
    if datatype in (Datatype.FP32, Datatype.FP64, Datatype.FP16):
        return random.random(count, "f4").astype(f"<f{ITEM_BYTES[datatype]}").tobytes()
    if datatype is Datatype.BF16:
        return (random.random(count, "f4").view("<u4") >> 16).astype("<u2").tobytes()
    return random.integers(0, 2, count).astype(f"<u{ITEM_BYTES[datatype]}").tobytes()


def stacked(one: Sequence[Array], two: Sequence[Array]) -> list[Array]:
    """Both batches as one."""
    return [
        Array(first.datatype, (first.shape[0] + second.shape[0], *first.shape[1:]), (*first.parts, *second.parts))
        for first, second in zip(one, two, strict=True)
    ]


def rows_agree(together: Array, first: Array, second: Array) -> bool:
    """Whether an output of two rows has the same elements as those rows alone, but for rounding."""
    if together.shape != (2, *first.shape[1:]) or first.shape != second.shape:
        return False
    expected = bytes(first.parts[0]) + bytes(second.parts[0])
    tolerance = _TOLERANCE.get(together.datatype)
    if tolerance is None:
        return bytes(together.parts[0]) == expected
    wanted, got = _floats(expected, together.datatype), _floats(bytes(together.parts[0]), together.datatype)
    scale = float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted)))
    return bool(np.allclose(got, wanted, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def _floats(raw: bytes, datatype: Datatype) -> NDArray[np.float64]:
    if datatype is Datatype.BF16:
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype("f8")
    return np.frombuffer(raw, f"<f{ITEM_BYTES[datatype]}").astype("f8")
