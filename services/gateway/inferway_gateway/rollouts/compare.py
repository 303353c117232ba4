"""How two versions' answers to the same request differ, output by output. Pure.

The stable version's answer is the reference, whoever answered first. Of large answers only the first rows are compared,
so that a comparison never takes much of the event loop's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferway.datatypes import FLOATING, ITEM_BYTES, Datatype
from inferway_gateway.tensors import Tensor

MAX_COMPARED_BYTES = 128 * 1024
"""Of one answer; its outputs have equal parts of it."""
SUM_TOLERANCE = 1e-3
"""A row is a distribution if nothing in it is negative and its sum is no farther from 1."""
LEAST_PROBABILITY = 1e-12
"""Stands for zero in divergences, so that they are finite."""

Numbers = NDArray[np.floating[Any]]

_NUMPY = {
    Datatype.BOOL: "u1",
    Datatype.UINT8: "u1",
    Datatype.UINT16: "<u2",
    Datatype.UINT32: "<u4",
    Datatype.UINT64: "<u8",
    Datatype.INT8: "i1",
    Datatype.INT16: "<i2",
    Datatype.INT32: "<i4",
    Datatype.INT64: "<i8",
    Datatype.FP16: "<f2",
    Datatype.FP32: "<f4",
    Datatype.FP64: "<f8",
    Datatype.BF16: "<u2",
}


class Tolerances(NamedTuple):
    """An element of a floating datatype differs if |candidate - stable| > absolute + relative * |stable|.

    All others differ if they are not equal. NaN equals NaN, and nothing else does; infinity equals itself.
    """

    absolute: float
    relative: float


class Difference(NamedTuple):
    """Of one output, in one pair of answers."""

    output: str
    agrees: bool
    """The same class on top in every row, or, where there are no classes, within the tolerances."""
    within_tolerance: bool
    max_absolute: float = 0.0
    """The largest |candidate - stable|; infinite where there is no number for it."""
    max_relative: float = 0.0
    """The largest |candidate - stable| / |stable|, where stable is not 0."""
    sum_absolute: float = 0.0
    """Of those |candidate - stable| that are finite."""
    elements: int = 0
    """Compared."""
    rows: int = 0
    """With classes."""
    same_top_rows: int = 0
    divergence: float = 0.0
    """The sum of the Kullback-Leibler divergences of the candidate from stable, in nats; 0 for rows that are not
    distributions on both sides."""


class _Form(NamedTuple):
    """What is compared of an output that both have in the same form."""

    output: str
    datatype: Datatype
    elements: int
    classes: int
    """Elements of a row; 0 if it has no classes."""


def compare(
    stable: Sequence[Tensor], candidate: Iterable[Tensor], rows: int, tolerances: Tolerances
) -> list[Difference]:
    """One difference for each output of the stable version's answer to a request of so many rows.

    An output that the candidate lacks, or has with another datatype or shape, disagrees. What only the candidate has
    is no difference: a version may answer more than the one before it.
    """
    others = {tensor.name: tensor for tensor in candidate}
    max_bytes = MAX_COMPARED_BYTES // max(1, len(stable))
    return [_difference(one, others.get(one.name), rows, max_bytes, tolerances) for one in stable]


def has_classes(shape: Sequence[int], rows: int) -> bool:
    """Whether an output of that shape, of a request of so many rows, has classes: its last dimension is 2 or more.

    A vector with one element for each row of the request has none.
    """
    return bool(shape) and shape[-1] >= 2 and not (len(shape) == 1 and shape[0] == rows)  # noqa: PLR2004 - as it says


def numbers(datatype: Datatype, raw: bytes, count: int) -> Numbers:
    """The first `count` elements of a tensor that is not of BYTES, with at least the precision of FP32."""
    found: NDArray[Any] = np.frombuffer(raw, _NUMPY[datatype], count)
    if datatype is Datatype.BF16:  # the upper half of an FP32
        return (found.astype("<u4") << 16).view(np.float32)
    if datatype in FLOATING:
        return found.astype(np.float32) if datatype is Datatype.FP16 else found
    return found.astype(np.float64)


def _difference(one: Tensor, other: Tensor | None, rows: int, max_bytes: int, tolerances: Tolerances) -> Difference:
    if other is None or other.datatype != one.datatype or other.shape != one.shape:
        return _incomparable(one.name)
    if one.datatype is Datatype.BYTES:
        same = one.raw == other.raw
        return Difference(one.name, same, same, max_absolute=0.0 if same else inf)
    if not (_is_whole(one) and _is_whole(other)):
        return _incomparable(one.name)
    form = _form(one, rows, max_bytes)
    compared_bytes = form.elements * ITEM_BYTES[form.datatype]
    if one.raw[:compared_bytes] == other.raw[:compared_bytes]:
        return _no_difference(form)
    return _of_numbers(form, one.raw, other.raw, tolerances)


def _incomparable(output: str) -> Difference:
    return Difference(output, agrees=False, within_tolerance=False, max_absolute=inf)


def _is_whole(tensor: Tensor) -> bool:
    """Its contents fill its shape. Workers are not checked for that."""
    return len(tensor.raw) == prod(tensor.shape) * ITEM_BYTES[tensor.datatype]


def _form(tensor: Tensor, rows: int, max_bytes: int) -> _Form:
    """As many whole rows as there is room for; the beginning of the first one, without its class, if that is larger."""
    elements, room = prod(tensor.shape), max_bytes // ITEM_BYTES[tensor.datatype]
    classes = tensor.shape[-1] if has_classes(tensor.shape, rows) and tensor.shape[-1] <= room else 0
    if elements > room:
        elements = room - room % (classes or 1)
    return _Form(tensor.name, tensor.datatype, elements, classes)


def _no_difference(form: _Form) -> Difference:
    rows = form.elements // form.classes if form.classes else 0
    return Difference(form.output, True, True, elements=form.elements, rows=rows, same_top_rows=rows)


@np.errstate(invalid="ignore", over="ignore")
def _of_numbers(form: _Form, stable: bytes, candidate: bytes, tolerances: Tolerances) -> Difference:
    a, b = (numbers(form.datatype, raw, form.elements) for raw in (stable, candidate))
    distances, sizes = _distances(a, b), np.abs(a)
    within = form.datatype in FLOATING and _all_within(distances, sizes, tolerances)
    difference = Difference(
        form.output,
        agrees=within,
        within_tolerance=within,
        max_absolute=float(distances.max(initial=0.0)),
        max_relative=_largest_ratio(distances, sizes),
        sum_absolute=float(distances.sum(where=np.isfinite(distances), dtype=np.float64)),
        elements=form.elements,
    )
    if not form.classes:
        return difference
    return _with_rows(difference, a.reshape(-1, form.classes), b.reshape(-1, form.classes))


def _distances(a: Numbers, b: Numbers) -> Numbers:
    """|b - a|; 0 where both are the same infinity or both NaN, infinite where only one is."""
    distances = np.abs(b - a)
    strange = ~np.isfinite(distances)
    if strange.any():
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        distances[strange] = np.where(same[strange], 0.0, inf)
    return distances


def _all_within(distances: Numbers, sizes: Numbers, tolerances: Tolerances) -> bool:
    allowed = tolerances.absolute + tolerances.relative * sizes
    return not ((distances > allowed) | (distances == inf)).any()


def _largest_ratio(distances: Numbers, sizes: Numbers) -> float:
    ratios = np.divide(distances, sizes, out=np.zeros_like(distances), where=sizes > 0)  # nothing is larger than NaN
    return float(np.where(np.isnan(ratios), inf, ratios).max(initial=0.0))


def _with_rows(difference: Difference, a: Numbers, b: Numbers) -> Difference:
    same = int((a.argmax(axis=1) == b.argmax(axis=1)).sum())
    return difference._replace(
        agrees=same == len(a),
        rows=len(a),
        same_top_rows=same,
        divergence=_divergence(a, b),
    )


def _divergence(a: Numbers, b: Numbers) -> float:
    """The sum of D(a ‖ b) over the rows that are distributions on both sides (Kullback, Leibler 1951)."""
    chosen = _are_distributions(a) & _are_distributions(b)
    p, q = (np.maximum(rows[chosen].astype(np.float64), LEAST_PROBABILITY) for rows in (a, b))
    return max(0.0, float((p * np.log(p / q)).sum()))


def _are_distributions(rows: Numbers) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1.0) <= SUM_TOLERANCE)
    return found
