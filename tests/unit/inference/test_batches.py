"""Requests in several parts, and padding: the rows of each request, in order, and nobody else's."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway_inference.batches import join_inputs, join_pieces, rows_by_tenant, split_outputs
from inferway_inference.lane import cut
from inferway_inference.runner.arrays import from_numpy
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Array, Tensor
from inferway_inference.work import Batch, DispatchReason, Request
from tests.unit.inference.requests import admitted

SIGNATURE = Signature.of(
    "s",
    [TensorSpec("words", Datatype.BYTES, (-1,)), TensorSpec("x", Datatype.FP32, (-1, 2))],
    [TensorSpec("w", Datatype.BYTES, (-1,)), TensorSpec("y", Datatype.FP32, (-1, 2))],
)


def request_of(number: int, rows: int, part_rows: int) -> Request:
    """With content of its own, cut into parts."""
    request = admitted(number, rows=rows, signature=SIGNATURE)
    words = np.array([f"{number}.{row}".encode() for row in range(rows)], dtype=object)
    [text] = from_numpy(words, Datatype.BYTES, "words").parts
    numbers = np.arange(2 * rows, dtype="f4") + 1000 * number
    request.inputs = [
        Tensor("words", Datatype.BYTES, (rows,), bytes(text)),
        Tensor("x", Datatype.FP32, (rows, 2), numbers.tobytes()),
    ]
    request.outputs = (0, 1)
    request.parts = tuple(cut(request, 0, rows, part_rows))
    return request


def echoed(batch: Batch) -> list[Array]:
    """What a model that answers its inputs answers."""
    return [Array(array.datatype, array.shape, (b"".join(map(bytes, array.parts)),)) for array in join_inputs(batch)]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_parts_come_together_as_they_were(
    sizes: list[int], part_rows: int, together: int, padding: int, random: Random
):
    """Whatever batches they were in, beside whomever, in whatever order these were computed."""
    requests = [request_of(number, rows, part_rows) for number, rows in enumerate(sizes)]
    parts = [part for request in requests for part in request.parts]
    random.shuffle(parts)
    answers: dict[int, list[Tensor]] = {}
    for first in range(0, len(parts), together):
        batch = Batch(parts[first : first + together], DispatchReason.FULL)
        batch.padded_rows += padding
        for part, share in zip(batch.parts, split_outputs(batch, echoed(batch)), strict=True):
            joined = join_pieces(part.payload, part, share)
            if joined is not None:
                assert part.payload.id not in answers
                answers[part.payload.id] = joined

    assert answers.keys() == set(range(len(sizes)))
    for request in requests:
        words, numbers = answers[request.id]
        assert (words.raw, words.shape) == (request.inputs[0].raw, (request.rows,))
        assert (numbers.raw, numbers.shape) == (request.inputs[1].raw, (request.rows, 2))


def test_padding_repeats_the_last_row():
    """A row of zeros may be what a model fails on; a row that is there anyway is not."""
    request = request_of(3, 2, 2)
    batch = Batch(list(request.parts), DispatchReason.FULL)
    batch.padded_rows = 4
    _, numbers = echoed(batch)

    assert numbers.shape == (4, 2)
    assert np.frombuffer(numbers.parts[0], "f4").tolist() == [3000, 3001, 3002, 3003, 3002, 3003, 3002, 3003]


def test_each_tenant_is_told_of_its_own_rows_alone():
    """How busy the others are is nobody's business."""
    requests = [admitted(n, rows, tenant=tenant) for n, (rows, tenant) in enumerate([(2, "a"), (3, "b"), (4, "a")])]
    batch = Batch([part for request in requests for part in cut(request, 0, request.rows, 2)], DispatchReason.FULL)

    assert rows_by_tenant(batch) == {"a": 6, "b": 3}
