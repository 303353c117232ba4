"""Synthetic inputs, and the test that batching rests on."""

from __future__ import annotations

import numpy as np
import pytest

from inferway.datatypes import ITEM_BYTES, Datatype
from inferway.errors import ModelFailed
from inferway_inference.samples import stacked, synthetic_inputs
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Array, Tensor, check_byte_strings
from inferway_inference.warmup import rows_agree


@pytest.mark.parametrize("datatype", Datatype)
def test_synthetic_inputs_fit_their_signature(datatype: Datatype):
    """Warm-up that the worker itself would refuse warms nothing."""
    signature = Signature.of("s", [TensorSpec("x", datatype, (-1, -1, 3))], [TensorSpec("y", datatype, (-1,))])
    [array] = synthetic_inputs(signature, 4, seed=1)

    assert array.shape == (4, 1, 3)
    raw = b"".join(map(bytes, array.parts))
    if datatype is Datatype.BYTES:
        check_byte_strings(Tensor("x", datatype, array.shape, raw), 12, "x")
    else:
        assert len(raw) == 12 * ITEM_BYTES[datatype]


def test_inputs_too_large_to_be_made_up_are_not_made():
    """Warming up must not take the memory that serving needs."""
    signature = Signature.of("s", [TensorSpec("x", Datatype.FP32, (2**40,))], [])
    with pytest.raises(ModelFailed):
        synthetic_inputs(signature, 1, seed=1)


def array(values: object, kind: str = "f4", datatype: Datatype = Datatype.FP32) -> Array:
    """Rows of an output."""
    own = np.array(values, kind)
    return Array(datatype, own.shape, (own.tobytes(),))


@pytest.mark.parametrize(
    ("together", "agree"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], True),
        ([[1.0, 2.000001], [3.0, 4.0]], True),
        ([[1.0, 2.1], [3.0, 4.0]], False),
        ([[3.0, 4.0], [1.0, 2.0]], False),
        ([[1.0, 2.0]], False),
    ],
)
def test_rows_together_are_compared_with_rows_alone(*, together: list[list[float]], agree: bool):
    """Rounding may differ with the size of a batch; results may not."""
    assert rows_agree(array(together), array([[1.0, 2.0]]), array([[3.0, 4.0]])) is agree


def test_integers_must_be_equal():
    """There is no rounding to excuse a difference."""
    one, two = array([1], "i8", Datatype.INT64), array([2], "i8", Datatype.INT64)
    assert rows_agree(array([1, 2], "i8", Datatype.INT64), one, two)
    assert not rows_agree(array([1, 3], "i8", Datatype.INT64), one, two)


def test_stacked_inputs_are_one_batch():
    """The two rows of the test, in their order."""
    [both] = stacked([array([[1.0]])], [array([[2.0]])])

    assert (both.shape, b"".join(map(bytes, both.parts))) == ((2, 1), np.array([1, 2], "f4").tobytes())
