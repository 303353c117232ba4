"""Admission and contents: the checks that need no socket to be tried."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway.errors import ContentsMismatch, InvalidBatch, InvalidBytesTensor, InvalidField, ShapeMismatch
from inferway_gateway.admission import MAX_ROWS, FieldNames, admit, checked_shape
from inferway_gateway.contents import pack
from inferway_gateway.envelope import Caller, caller_of
from inferway_gateway.signature import MAX_PASSED, Signature, TensorSpec
from inferway_gateway.tensors import Tensor

NAMES = FieldNames("endpoint", "signature", "inputs[{}].raw", "outputs[{}]")
FP32 = Datatype.FP32


def signature(*inputs: TensorSpec, output_shape: tuple[int, ...] | None = (-1,)) -> Signature:
    return Signature("s", inputs, (TensorSpec("y", FP32, output_shape),))


def test_inputs_are_put_into_the_order_of_the_signature() -> None:
    """The worker reads them by position."""
    both = signature(TensorSpec("a", FP32, (-1,)), TensorSpec("b", FP32, (-1,)))
    tensors = [Tensor("b", FP32, (1,), b"bbbb"), Tensor("a", FP32, (1,), b"aaaa")]

    assert [tensor.name for tensor in admit(both, tensors, (), NAMES).inputs] == ["a", "b"]


def test_headers_that_passed_once_still_have_their_order_and_their_lengths_checked() -> None:
    """Headers are remembered so that checking is cheap; what they do not say must be looked at every time."""
    both = signature(TensorSpec("a", FP32, (-1,)), TensorSpec("b", FP32, (-1,)))

    def admitted(a: bytes, b: bytes) -> list[bytes]:
        tensors = [Tensor("b", FP32, (2,), b), Tensor("a", FP32, (2,), a)]
        found = admit(both, tensors, (), NAMES)
        assert (found.rows, found.byte_count) == (2, 16)
        return [tensor.raw for tensor in found.inputs]

    assert admitted(b"aaaaaaaa", b"bbbbbbbb") == [b"aaaaaaaa", b"bbbbbbbb"]
    assert admitted(b"cccccccc", b"dddddddd") == [b"cccccccc", b"dddddddd"]
    with pytest.raises(ContentsMismatch) as caught:
        admitted(b"cccccccc", b"dddd")
    assert caught.value.violations[0].field == "inputs[0].raw"


def test_what_a_signature_remembers_is_bounded() -> None:
    """A caller who sends another shape each time must not fill the memory."""
    one = signature(TensorSpec("x", FP32, (-1,)))

    for rows in range(1, MAX_PASSED + 3):
        admit(one, [Tensor("x", FP32, (rows,), b"\0" * 4 * rows)], (), NAMES)

    assert 0 < len(one.passed) <= MAX_PASSED


@pytest.mark.parametrize(
    ("input_shape", "output_shape", "given_shape", "rows"),
    [((-1, 2), (-1,), (3, 2), 3), ((-1, 2), (), (3, 2), 1), ((3, 2), (-1,), (3, 2), 1), (None, (-1,), (3, 2), 1)],
)
def test_rows_are_counted_only_where_every_tensor_has_a_batch_dimension(
    input_shape: tuple[int, ...] | None, output_shape: tuple[int, ...], given_shape: tuple[int, ...], rows: int
) -> None:
    """A signature that reduces over its first dimension must never be batched."""
    one = signature(TensorSpec("x", FP32, input_shape), output_shape=output_shape)

    assert admit(one, [Tensor("x", FP32, given_shape, b"\0" * 24)], (), NAMES).rows == rows


def test_a_signature_without_inputs_takes_one_row() -> None:
    """Constants and generators exist."""
    assert admit(signature(), [], (), NAMES).rows == 1


def test_a_bytes_tensor_must_at_least_hold_its_length_prefixes() -> None:
    """The rest only the worker can check."""
    text = signature(TensorSpec("x", Datatype.BYTES, (-1,)))

    with pytest.raises(InvalidBytesTensor):
        admit(text, [Tensor("x", Datatype.BYTES, (1_000_000,), b"\0\0\0\0")], (), NAMES)


def test_shapes_whose_product_overflows_any_integer_are_only_wrong_lengths() -> None:
    """Python's integers are exact."""
    any_shape = signature(TensorSpec("x", FP32, None))

    with pytest.raises(ContentsMismatch):
        admit(any_shape, [Tensor("x", FP32, (2**63 - 1,) * 16, b"")], (), NAMES)


@pytest.mark.parametrize("dimensions", [[1] * 17, [-1], [0, -1], [-(2**63)]])
def test_no_tensor_has_such_a_shape(dimensions: list[int]) -> None:
    """Whatever the signature says."""
    with pytest.raises(ShapeMismatch):
        checked_shape(dimensions, 0, "x")


CODES = {
    Datatype.UINT8: "B",
    Datatype.UINT16: "H",
    Datatype.UINT32: "I",
    Datatype.UINT64: "Q",
    Datatype.INT8: "b",
    Datatype.INT16: "h",
    Datatype.INT32: "i",
    Datatype.INT64: "q",
}


@given(datatype=st.sampled_from(list(CODES)), values=st.lists(st.integers(-(2**64), 2**64), max_size=5))
def test_integers_are_packed_exactly_or_refused(datatype: Datatype, values: list[int]) -> None:
    """A value that wraps round silently is a wrong prediction."""
    try:
        expected = struct.pack(f"<{len(values)}{CODES[datatype]}", *values)
    except struct.error:
        with pytest.raises(InvalidField):
            pack(datatype, values, (len(values),), "f", "x")
    else:
        assert pack(datatype, values, (len(values),), "f", "x") == expected


@given(values=st.lists(st.floats(width=32), max_size=5))
def test_floats_keep_their_bits(values: list[float]) -> None:
    """NaN and infinities included."""
    assert pack(FP32, values, (len(values),), "f", "x") == struct.pack(f"<{len(values)}f", *values)


def test_truth_values_take_a_byte_each() -> None:
    """As the protocol says."""
    assert pack(Datatype.BOOL, [True, False], (2,), "f", "x") == b"\1\0"


@given(values=st.lists(st.binary(max_size=9), max_size=5))
def test_byte_strings_get_their_length_before_them(values: list[bytes]) -> None:
    """Four bytes, little-endian."""
    expected = b"".join(struct.pack("<I", len(value)) + value for value in values)

    assert pack(Datatype.BYTES, values, (len(values),), "f", "x") == expected


def test_headers_make_a_caller() -> None:
    """Absent headers mean the default."""
    assert caller_of(None, None) == Caller(criticality=2, tenant="")
    assert caller_of("Sheddable", "acme") == Caller(criticality=4, tenant="acme")


@pytest.mark.parametrize("tenant", ["a" * 64, "a\nb"])
def test_a_tenant_must_be_fit_for_labels_and_logs(tenant: str) -> None:
    """It becomes a key of maps and a word in logs."""
    with pytest.raises(Exception, match="x-tenant"):
        caller_of(None, tenant)


def test_rows_without_contents_are_bounded() -> None:
    """They cost their sender nothing, and their number is taken off the credits of a link."""
    one = signature(TensorSpec("x", FP32, (-1, -1)))

    assert admit(one, [Tensor("x", FP32, (MAX_ROWS, 0), b"")], (), NAMES).rows == MAX_ROWS
    with pytest.raises(InvalidBatch, match="at most"):
        admit(one, [Tensor("x", FP32, (2**63 - 1, 0), b"")], (), NAMES)
