"""Inputs to try a version with: requests that were recorded with it, or made up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inferway.datatypes import ITEM_BYTES, Datatype
from inferway.errors import ModelFailed
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Array, cut_rows

MAX_INPUT_BYTES = 256 * 1024 * 1024
_TEXT = b"\x01\x00\x00\x000"
"""The string "0": most models that read strings can read a number."""


class Samples:
    """Of one version."""

    def __init__(self, recorded: Mapping[str, Sequence[Sequence[Array]]]) -> None:
        """`recorded` has requests for some of the signatures, each input in one part."""
        self._recorded = recorded

    def recorded(self, signature: Signature) -> Sequence[Sequence[Array]]:
        """The requests that were recorded for it."""
        return self._recorded.get(signature.name, ())

    def inputs(self, signature: Signature, rows: int, seed: int) -> list[Array]:
        """Inputs of so many rows, where the signature has rows; raises ModelFailed if they would be too large."""
        own = self.recorded(signature)
        if not own:
            return synthetic_inputs(signature, rows, seed)
        return [repeated(array, rows, seed) for array in own[0]] if signature.batchable else list(own[0])


def repeated(array: Array, rows: int, seed: int) -> Array:
    """So many rows of `array`, one after the other from row `seed` on, and from the first again after the last."""
    pieces = cut_rows(array, [1] * array.shape[0])
    content = b"".join(pieces[(seed + index) % len(pieces)] for index in range(rows))
    return Array(array.datatype, (rows, *array.shape[1:]), (content,))


def synthetic_inputs(signature: Signature, rows: int, seed: int) -> list[Array]:
    """Small random inputs: numbers from 0 to 1, dimensions of any size as 1. Raises ModelFailed if too large."""
    random = np.random.default_rng(seed)
    return [_synthetic(spec, rows, random) for spec in signature.inputs]


def stacked(one: Sequence[Array], two: Sequence[Array]) -> list[Array]:
    """Both batches as one."""
    return [
        Array(first.datatype, (first.shape[0] + second.shape[0], *first.shape[1:]), (*first.parts, *second.parts))
        for first, second in zip(one, two, strict=True)
    ]


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
