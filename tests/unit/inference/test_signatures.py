"""Requests against signatures: envelopes come from the network, so every lie is refused and named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inferway import errors
from inferway.datatypes import Datatype
from inferway_inference.admission import admit
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Tensor
from inferway_inference.work import Request
from tests.unit.inference.requests import ignore

FLOATS = TensorSpec("a", Datatype.FP32, (-1, 2), forbid_nan=True)
TEXT = TensorSpec("b", Datatype.BYTES, (-1,))
OUTPUTS = [TensorSpec("y", Datatype.FP32, (-1, 2)), TensorSpec("z", Datatype.INT64, (-1,))]
SIGNATURE = Signature.of("serving_default", [FLOATS, TEXT], OUTPUTS)

GOOD_FLOATS = Tensor("a", Datatype.FP32, (1, 2), np.array([1, 2], "f4").tobytes())
GOOD_TEXT = Tensor("b", Datatype.BYTES, (1,), b"\x02\x00\x00\x00hi")


def request(*inputs: Tensor, rows: int = 1, **fields: object) -> Request:
    """A request for the signature, unchecked."""
    values = {"deadline": 10.0, "received_at": 0.0, "reply": ignore, "output_names": [], **fields}
    return Request(1, "models/m/versions/1", "serving_default", list(inputs), claimed_rows=rows, **values)  # type: ignore[arg-type]


def admitted(*inputs: Tensor, **fields: object) -> Request:
    """The same, admitted."""
    one = request(*inputs, **fields)  # type: ignore[arg-type]
    admit(one, {"serving_default": SIGNATURE})
    return one


def test_a_good_request_is_measured():
    """The scheduler counts rows and bytes, and batches by key."""
    one = admitted(GOOD_FLOATS, GOOD_TEXT)

    assert (one.rows, one.byte_count, one.outputs) == (1, 14, (0, 1))


@pytest.mark.parametrize(
    ("inputs", "error", "field"),
    [
        ((GOOD_FLOATS,), errors.MissingInput, "inputs"),
        ((GOOD_TEXT, GOOD_FLOATS), errors.MissingInput, "inputs"),
        ((GOOD_FLOATS, GOOD_FLOATS), errors.MissingInput, "inputs"),
        ((GOOD_FLOATS, replace(GOOD_TEXT, name="c")), errors.UnknownInput, "inputs[1].name"),
        ((GOOD_FLOATS, GOOD_TEXT, replace(GOOD_TEXT, name="c")), errors.UnknownInput, "inputs[2].name"),
        ((replace(GOOD_FLOATS, datatype=Datatype.FP64), GOOD_TEXT), errors.DatatypeMismatch, 'inputs["a"]'),
        ((replace(GOOD_FLOATS, datatype=99), GOOD_TEXT), errors.DatatypeMismatch, 'inputs["a"]'),
        ((replace(GOOD_FLOATS, shape=(1, 3)), GOOD_TEXT), errors.ShapeMismatch, 'inputs["a"]'),
        ((replace(GOOD_FLOATS, shape=(2,)), GOOD_TEXT), errors.ShapeMismatch, 'inputs["a"]'),
        ((replace(GOOD_FLOATS, shape=(-1, 2)), GOOD_TEXT), errors.ShapeMismatch, 'inputs["a"]'),
        ((replace(GOOD_FLOATS, shape=(1,) * 100_000), GOOD_TEXT), errors.ShapeMismatch, 'inputs["a"]'),
        ((replace(GOOD_FLOATS, shape=(2**62, 2)), GOOD_TEXT), errors.ContentsMismatch, 'inputs["a"]'),
        ((replace(GOOD_FLOATS, raw=b"1234567"), GOOD_TEXT), errors.ContentsMismatch, 'inputs["a"]'),
        ((GOOD_FLOATS, replace(GOOD_TEXT, raw=b"\x09\x00\x00\x00hi")), errors.InvalidBytesTensor, 'inputs["b"]'),
        ((GOOD_FLOATS, replace(GOOD_TEXT, raw=b"\x01\x00\x00\x00hi")), errors.InvalidBytesTensor, 'inputs["b"]'),
        ((GOOD_FLOATS, replace(GOOD_TEXT, raw=b"\x01\x00")), errors.InvalidBytesTensor, 'inputs["b"]'),
        ((GOOD_FLOATS, replace(GOOD_TEXT, shape=(2**40,))), errors.InvalidBytesTensor, 'inputs["b"]'),
        (
            (replace(GOOD_FLOATS, raw=np.array([1, np.nan], "f4").tobytes()), GOOD_TEXT),
            errors.NanNotAllowed,
            'inputs["a"]',
        ),
        ((replace(GOOD_FLOATS, shape=(0, 2), raw=b""), GOOD_TEXT), errors.InvalidBatch, 'inputs["a"]'),
        (
            (GOOD_FLOATS, replace(GOOD_TEXT, shape=(2,), raw=GOOD_TEXT.raw * 2)),
            errors.InvalidBatch,
            'inputs["b"]',
        ),
    ],
)
def test_bad_inputs_are_refused_and_named(inputs: tuple[Tensor, ...], error: type[errors.InferwayError], field: str):
    """A wrong byte that reached the runner would be computed, or would crash it, for everybody in the batch."""
    with pytest.raises(error) as caught:
        admitted(*inputs)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"rows": 2}, errors.InvalidBatch),
        ({"output_names": ["nothing"]}, errors.UnknownOutput),
        ({"deadline": 0.0}, errors.DeadlineExceeded),
    ],
)
def test_what_is_wrong_beside_the_inputs_is_refused(fields: dict[str, object], error: type[errors.InferwayError]):
    """The gateway checked all this; the worker does not take its word."""
    with pytest.raises(error):
        admitted(GOOD_FLOATS, GOOD_TEXT, **fields)


def test_an_unknown_signature_is_refused_with_those_there_are():
    """The caller cannot know them otherwise."""
    with pytest.raises(errors.UnknownSignature, match="it has other"):
        admit(request(GOOD_FLOATS, GOOD_TEXT), {"other": SIGNATURE})


@pytest.mark.parametrize("datatype", [Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16])
def test_nan_is_found_in_every_floating_datatype(datatype: Datatype):
    """NumPy has no bfloat16, so its bits are tested; infinity is no NaN."""
    bits = {Datatype.FP16: "f2", Datatype.FP32: "f4", Datatype.FP64: "f8"}

    def raw(value: float) -> bytes:
        if datatype is Datatype.BF16:
            return np.array([value], "f4").tobytes()[2:]
        return np.array([value], bits[datatype]).tobytes()

    signature = Signature.of("s", [TensorSpec("x", datatype, (1,), forbid_nan=True)], [])
    assert signature.check([Tensor("x", datatype, (1,), raw(np.inf))]) == 1
    with pytest.raises(errors.NanNotAllowed):
        signature.check([Tensor("x", datatype, (1,), raw(np.nan))])


@pytest.mark.parametrize(
    ("inputs", "outputs", "batchable"),
    [
        ([(-1, 2)], [(-1,)], True),
        ([(-1, 2)], [()], False),
        ([(1, 2)], [(-1,)], False),
        ([None], [(-1,)], False),
        ([()], [(-1,)], False),
        ([], [(-1,)], False),
    ],
)
def test_a_signature_is_batchable_if_all_tensors_have_rows(
    *, inputs: list[tuple[int, ...] | None], outputs: list[tuple[int, ...] | None], batchable: bool
):
    """One tensor without rows could not be cut up again."""

    def specs(shapes: list[tuple[int, ...] | None]) -> list[TensorSpec]:
        return [TensorSpec(f"t{number}", Datatype.FP32, shape) for number, shape in enumerate(shapes)]

    assert Signature.of("s", specs(inputs), specs(outputs)).batchable is batchable


def test_requests_of_other_widths_or_parameters_have_other_keys():
    """What cannot be one array must not be one batch, nor what the model is to treat differently."""
    wide = Signature.of("s", [TensorSpec("x", Datatype.FP32, (-1, -1))], [TensorSpec("y", Datatype.FP32, (-1,))])

    def key(width: int, **fields: object) -> object:
        one = request(Tensor("x", Datatype.FP32, (1, width), bytes(4 * width)), **fields)  # type: ignore[arg-type]
        admit(one, {"serving_default": wide})
        return one.key

    assert key(2) == key(2)
    assert len({key(2), key(3), key(2, parameters=("p",))}) == 3
