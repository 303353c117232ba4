"""Batches are cut by rows, byte by byte."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway_inference.batches import join_inputs, rows_by_tenant, split_outputs, wrong_rows
from inferway_inference.runner.arrays import from_numpy, to_numpy
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Array, Tensor, cut_rows
from inferway_inference.work import Batch, DispatchReason, Request
from tests.unit.inference.requests import admitted, floats, whole

SIGNATURE = Signature.of(
    "s",
    [TensorSpec("x", Datatype.FP32, (-1, 2))],
    [TensorSpec("a", Datatype.FP32, (-1, 2)), TensorSpec("b", Datatype.BYTES, (-1,))],
)


def requests(*rows: int) -> list[Request]:
    """One request for each number of rows, with content of its own."""
    found = []
    for number, count in enumerate(rows):
        one = admitted(number, rows=count, signature=SIGNATURE, tenant="ab"[number % 2])
        one.inputs, one.outputs = [floats(count, seed=number)], (0, 1)
        found.append(one)
    return found


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_what_is_joined_and_split_is_each_request_s_own(rows: list[int]):
    """Cross-talk between callers is the worst thing that batching can do."""
    batch = Batch(whole(*requests(*rows)), DispatchReason.IDLE)
    [joined] = join_inputs(batch)
    text = b"".join(
        len(word).to_bytes(4, "little") + word
        for one in batch.requests
        for word in [f"{one.id}.{row}".encode() for row in range(one.rows)]
    )
    outputs = [
        Array(Datatype.FP32, joined.shape, (b"".join(map(bytes, joined.parts)),)),
        Array(Datatype.BYTES, (batch.rows,), (text,)),
    ]

    assert wrong_rows(batch, outputs) is None
    for one, (a, b) in zip(batch.requests, split_outputs(batch, outputs), strict=True):
        assert (a.raw, a.shape) == (one.inputs[0].raw, (one.rows, 2))
        words = to_numpy(Array(Datatype.BYTES, b.shape, (b.raw,)))
        assert list(words) == [f"{one.id}.{row}".encode() for row in range(one.rows)]


def test_each_request_gets_the_outputs_that_it_asked_for():
    """What others asked for is computed once, and not sent to those who did not."""
    first, second = requests(1, 1)
    first.outputs, second.outputs = (1,), (0,)
    batch = Batch(whole(first, second), DispatchReason.IDLE)
    floats_out = Array(Datatype.FP32, (2, 2), (bytes(16),))
    words = Array(Datatype.BYTES, (2,), (bytes(8),))

    assert batch.outputs == (0, 1)
    shares = split_outputs(batch, [floats_out, words])
    assert [[tensor.name for tensor in share] for share in shares] == [["b"], ["a"]]


def test_a_model_that_loses_rows_is_found_out():
    """Cutting its answer up would hand rows to the wrong callers."""
    batch = Batch(whole(*requests(1, 2)), DispatchReason.IDLE)
    outputs = [Array(Datatype.FP32, (2, 2), (bytes(16),)), Array(Datatype.BYTES, (3,), (bytes(12),))]
    error = wrong_rows(batch, outputs)

    assert error is not None
    assert error.message == "the model answered 3 rows with 'a' of shape [2, 2]"


def test_a_tenant_learns_of_its_own_rows_only():
    """How busy others are is their business."""
    assert rows_by_tenant(Batch(whole(*requests(1, 2, 3)), DispatchReason.IDLE)) == {"a": 4, "b": 2}


def test_a_scalar_per_row_is_cut_too():
    """The smallest rows there are."""
    array = Array(Datatype.INT64, (3,), (np.arange(3).tobytes(),))

    assert cut_rows(array, [1, 2]) == [np.arange(1).tobytes(), np.arange(1, 3).tobytes()]


@given(st.lists(st.binary(max_size=5)))
def test_byte_strings_survive_numpy(words: list[bytes]):
    """Empty ones and NULs at the end too: NumPy's own string types would drop those."""
    array = from_numpy(np.array([*words, None], dtype=object)[:-1], Datatype.BYTES, "y")

    assert list(to_numpy(array)) == words


def test_an_empty_tensor_survives_numpy():
    """A model may well answer with nothing."""
    array = from_numpy(np.empty((0, 3), "f4"), Datatype.FP32, "y")

    assert to_numpy(Array(Datatype.FP32, (0, 3), (bytes(array.parts[0]),))).shape == (0, 3)


def test_the_tensor_type_is_small():
    """Thousands are made a second."""
    assert not hasattr(Tensor("x", 1, (), b""), "__dict__")
