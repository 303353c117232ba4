"""Arrays survive the way to a tensor and back, whatever they hold."""

from __future__ import annotations

from contextlib import suppress

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from inferway.datatypes import Datatype
from inferway.errors import ContentsMismatch, DatatypeMismatch, InvalidBytesTensor
from inferway.type.v1 import tensor_pb2
from inferway_client.tensors import Array, datatype_of, decode, dtype_of, encode

SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NUMBERS = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)


@given(npst.arrays(NUMBERS, SHAPES))
def test_numbers_come_back_bit_for_bit(array: Array):
    """Every dtype, byte order, shape, NaN payload and negative zero."""
    tensor = encode("x", array)
    back = decode(tensor)
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


@given(npst.arrays(np.dtype(object), SHAPES, elements=st.one_of(st.binary(), st.text())))
def test_strings_come_back_as_bytes(array: Array):
    """Empty strings, zero bytes and any Unicode."""
    expected = [element.encode() if isinstance(element, str) else element for element in array.ravel().tolist()]
    back = decode(encode("s", array))
    assert back.shape == array.shape
    assert back.ravel().tolist() == expected


@given(st.binary(max_size=40), st.integers(min_value=0, max_value=4))
def test_string_lengths_that_lie_are_refused_or_right(raw: bytes, count: int):
    """No input makes the decoder read beyond its end or return a wrong number of strings."""
    tensor = tensor_pb2.Tensor(name="s", datatype=tensor_pb2.DATA_TYPE_BYTES, shape=[count], raw=raw)
    with suppress(InvalidBytesTensor):
        assert decode(tensor).shape == (count,)


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_datatype_has_a_dtype_and_the_reverse(datatype: Datatype):
    """A datatype added to the contract must be added here."""
    assert datatype_of(dtype_of(datatype)) is datatype


def test_bfloat16_comes_back():
    """With ml_dtypes installed, as beside TensorFlow."""
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    back = decode(encode("x", array))
    assert back.dtype == array.dtype
    assert back.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("values", [["a", "bc"], np.array([b"a", b"bc"]), np.array(["a", "bc"], object)])
def test_every_kind_of_string_array_is_taken(values: Array):
    """Lists, fixed-width and object arrays mean the same."""
    assert decode(encode("s", values)).tolist() == [b"a", b"bc"]


def test_views_and_transposed_arrays_are_sent_in_row_major_order():
    """The memory layout of the caller's array is not its meaning."""
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    np.testing.assert_array_equal(decode(encode("x", array.T[::2])), array.T[::2])


@pytest.mark.parametrize(
    "values", [np.array([1j]), np.array(["2026-01-01"], "datetime64[D]"), np.array([1, None], object)]
)
def test_what_no_datatype_carries_is_refused_with_the_input_named(values: Array):
    """Rather than sent as something else."""
    with pytest.raises(DatatypeMismatch, match=r"inputs\[x\]"):
        encode("x", values)


@pytest.mark.parametrize("shape", [[3], [-1, -2], [1, 2, 3]])
def test_contents_that_do_not_fit_the_shape_are_refused(shape: list[int]):
    """A broken server gives an error, not a wrong array."""
    tensor = tensor_pb2.Tensor(name="y", datatype=tensor_pb2.DATA_TYPE_FP32, shape=shape, raw=bytes(8))
    with pytest.raises(ContentsMismatch):
        decode(tensor)


def test_a_datatype_of_the_future_is_refused():
    """A newer server may know more than this client."""
    with pytest.raises(DatatypeMismatch, match="99"):
        decode(tensor_pb2.Tensor(name="y", datatype=99))  # type: ignore[arg-type]
