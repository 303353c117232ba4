"""Runs inputs through a version before anybody else does.

That takes the cost of first calls away from callers, gives the latency model its first samples, and tests what batching
rests on: rows computed together must equal the same rows computed alone. A signature that fails the test is called
one request at a time. A model that refuses made-up inputs is not at fault; its first caller pays for the warm-up.
One that lacks what it needs whatever the inputs, as variables without values, does not become ready.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inferway.datatypes import ITEM_BYTES, Datatype
from inferway.errors import ModelFailed, VersionLoadFailed
from inferway_inference.latency import CurveKey, curve_key
from inferway_inference.runner.asking import ask
from inferway_inference.runner.base import Runner
from inferway_inference.runtimes.base import EXPORT_ADVICE, is_version_at_fault
from inferway_inference.samples import Samples, stacked
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array

_LOG = logging.getLogger(__name__)

CHEAP_SECONDS = 0.1
"""A batch that is expected to take no longer is tried in any case."""
LARGEST_BATCH_SECONDS = 2.0
"""One that takes longer is not tried."""
PAYS = 0.8
"""One between these is tried if the step before made a row cheaper by at least this factor: large batches that do not
pay would cost time, and memory that frameworks keep."""
REPLAY_SECONDS = 5.0
"""For requests that were recorded with the version."""
_TOLERANCE = {Datatype.FP16: 5e-2, Datatype.BF16: 5e-2, Datatype.FP32: 1e-3, Datatype.FP64: 1e-3}
"""Relative to the largest element: the order of a sum differs with the size of the batch, and rounding with it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """How long one batch took."""

    key: CurveKey
    rows: int
    seconds: float
    crowded: bool = False
    """Whether others were computed beside it."""


@dataclass(slots=True)
class WarmUp:
    """Warms one copy of a version up, one signature after the other."""

    runner: Runner
    samples: Samples
    sizes: tuple[int, ...]
    """Rows of the batches to try, ascending."""
    observed: list[Observed] = field(default_factory=list)
    usable: set[str] = field(default_factory=set)
    """Signatures that computed the samples."""

    async def signature(self, position: int, signature: Signature) -> Signature:
        """Returns the signature, unbatchable if the model mixes rows.

        Raises VersionLoadFailed if the version cannot compute it at all, and RunnerCrashed if the runner ends.
        """
        try:
            found = await self._batches(position, signature) if signature.batchable else signature
            await self._replay(position, found)
            await self._sizes(position, found)
        except ModelFailed as error:
            if is_version_at_fault(error):
                message = f"signature {signature.name!r} cannot be computed: {error.message}; {EXPORT_ADVICE}"
                raise VersionLoadFailed(message, cause=error.message) from error
            extra = {"signature": signature.name, "cause": error.message}
            _LOG.warning("a model refuses the samples; its first caller pays for the warm-up", extra=extra)
            return signature
        self.usable.add(signature.name)
        return found

    async def _batches(self, position: int, signature: Signature) -> Signature:
        """Whether rows together equal rows alone."""
        one, two = (self.samples.inputs(signature, 1, seed=seed) for seed in (1, 2))
        alone = [await self._outputs(position, signature, inputs) for inputs in (one, two)]
        together = await self._outputs(position, signature, stacked(one, two))
        if all(map(rows_agree, together, *alone)):
            return signature
        _LOG.warning("rows depend on one another: requests are not batched", extra={"signature": signature.name})
        return signature.unbatched()

    async def _replay(self, position: int, signature: Signature) -> None:
        """What was recorded, as far as time permits."""
        ends_at = time.perf_counter() + REPLAY_SECONDS
        for inputs in self.samples.recorded(signature):
            if time.perf_counter() < ends_at:
                await self._outputs(position, signature, inputs)

    async def _sizes(self, position: int, signature: Signature) -> None:
        """Each size twice: the first call of a size may be slow."""
        row_seconds, paid = 0.0, True
        for rows in self.sizes if signature.batchable else (1,):
            expected = rows * row_seconds
            if expected > (LARGEST_BATCH_SECONDS if paid else CHEAP_SECONDS):
                return
            inputs = self.samples.inputs(signature, rows, seed=3)
            await ask(self.runner, position, inputs, len(signature.outputs))
            seconds = (await ask(self.runner, position, inputs, len(signature.outputs))).seconds
            paid = not row_seconds or seconds / rows < PAYS * row_seconds
            row_seconds = seconds / rows
            key = curve_key(signature.name, [array.shape for array in inputs])
            self.observed.append(Observed(key, rows, seconds))

    async def _outputs(self, position: int, signature: Signature, inputs: Sequence[Array]) -> list[Array]:
        return (await ask(self.runner, position, inputs, len(signature.outputs))).outputs


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
