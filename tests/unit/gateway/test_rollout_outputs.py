"""What answers say for a judge."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from inferway.datatypes import Datatype
from inferway_gateway.rollouts.outputs import MOST_BYTES, OutputReader, Reading, label_of
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.tensors import Tensor

NAN, INF = float("nan"), float("inf")


class Outputs(NamedTuple):
    """An answer of which nobody reads the timing."""

    outputs: list[Tensor]
    timing: Any = None


def read(
    raw: bytes | NDArray[Any],
    shape: tuple[int, ...],
    datatype: Datatype = Datatype.FP32,
    wanted: TensorSpec | None = None,
    name: str = "y",
) -> Reading:
    """What is said of an answer with one output, whose signature is `wanted`."""
    signature = Signature("serving_default", (), (wanted or TensorSpec("y", datatype, (-1, *shape[1:])),))
    contents = raw if isinstance(raw, bytes) else raw.tobytes()
    return OutputReader(signature).read(Outputs([Tensor(name, datatype, shape, contents)]), figures=True)


def floats(*values: float, dtype: str = "<f4") -> NDArray[Any]:
    """As models answer them."""
    return np.array(values, dtype)


def test_the_figure_of_classes_is_the_one_on_top_of_the_first_row():
    """One figure for each request: rows of one request are not independent of each other."""
    assert read(floats(0.1, 0.7, 0.2, 0.9, 0.1, 0.0), (2, 3)).figures == [("y", 1.0)]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_the_figure_of_a_regression_is_its_value_for_the_first_row(shape: tuple[int, ...]):
    """Such a number is binned between quantiles."""
    assert read(floats(2.5, 9.0, 9.0), shape).figures == [("y", 2.5)]


def test_the_figure_of_what_has_no_classes_is_the_mean_of_its_first_row():
    """The last dimension is 1: nothing is on top of anything."""
    assert read(floats(1, 2, 3, 50, 60, 70), (2, 3, 1)).figures == [("y", 2.0)]


def test_an_output_without_batch_dimension_is_one_row():
    """Its first dimension is of classes already."""
    wanted = TensorSpec("y", Datatype.FP32, (3,))

    assert read(floats(0, 0, 1), (3,), wanted=wanted).figures == [("y", 2.0)]


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [
        (Datatype.UINT8, np.array([0, 9], "u1")),
        (Datatype.INT64, np.array([-5, 1 << 40], "<i8")),
        (Datatype.FP16, floats(0.5, 0.75, dtype="<f2")),
        (Datatype.FP64, floats(-1.0, 1e300, dtype="<f8")),
        (Datatype.BF16, np.array([0x3F80, 0x4000], "<u2")),
    ],
)
def test_every_datatype_of_numbers_has_a_figure(datatype: Datatype, raw: NDArray[Any]):
    """Each is larger in its second class."""
    assert read(raw, (1, 2), datatype) == Reading(breaks_schema=False, figures=[("y", 1.0)])


def test_bfloat16_is_read_as_what_it_stands_for():
    """1.0 and NaN are bit patterns of the upper half of a float32."""
    assert read(np.array([0x3F80], "<u2"), (1, 1), Datatype.BF16).figures == [("y", 1.0)]
    assert read(np.array([0x7FC0], "<u2"), (1, 1), Datatype.BF16).breaks_schema


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_nan_and_infinity_break_the_schema_and_have_no_figure(bad: float, dtype: str):
    """In any place of any row: nobody can use them."""
    datatype = {"<f2": Datatype.FP16, "<f4": Datatype.FP32, "<f8": Datatype.FP64}[dtype]

    assert read(floats(0.1, 0.2, bad, 0.3, dtype=dtype), (2, 2), datatype) == Reading(breaks_schema=True, figures=[])


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 2, 2)])
def test_another_shape_than_the_signatures_breaks_the_schema(shape: tuple[int, ...]):
    """Callers have written code for the one that was published."""
    assert read(floats(1, 2, 3, 4), shape, wanted=TensorSpec("y", Datatype.FP32, (-1, 2))).breaks_schema


def test_another_datatype_than_the_signatures_breaks_the_schema():
    """It would be read as something else."""
    assert read(floats(1, 2, dtype="<f8"), (1, 2), Datatype.FP64, TensorSpec("y", Datatype.FP32, (-1, 2))).breaks_schema


def test_contents_that_do_not_fill_the_shape_break_the_schema():
    """And must not be read beyond their end."""
    assert read(floats(1.0), (1, 2)).breaks_schema


@pytest.mark.parametrize("datatype", [Datatype.BOOL, Datatype.BYTES])
def test_texts_and_truth_values_have_no_figure(datatype: Datatype):
    """They are not judged by value; their shape is."""
    assert read(b"\1", (1,), datatype) == Reading(breaks_schema=False, figures=[])
    assert read(b"\1", (1,), datatype, TensorSpec("y", datatype, (-1, 2))).breaks_schema


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_output_without_elements_has_no_figure(shape: tuple[int, ...]):
    """A detector may find nothing."""
    assert read(b"", shape) == Reading(breaks_schema=False, figures=[])


def test_what_the_signature_does_not_name_is_not_judged():
    """Callers do not see the state of a session."""
    assert read(floats(NAN), (1, 1), name="state") == Reading(breaks_schema=False, figures=[])


def test_of_a_large_output_only_the_beginning_is_looked_at():
    """The event loop belongs to callers; most faults of numbers are everywhere."""
    seen = MOST_BYTES // 4
    late, early = np.zeros((1, 2 * seen), "<f4"), np.zeros((1, 2 * seen), "<f4")
    late[0, seen] = early[0, seen - 1] = NAN

    assert not read(late, late.shape).breaks_schema
    assert read(early, early.shape).breaks_schema


def test_a_mean_that_overflows_is_infinite_and_no_warning():
    """A warning for each request would fill the disk."""
    assert read(floats(1e308, 1e308, dtype="<f8"), (1, 2, 1), Datatype.FP64).figures == [("y", INF)]


def test_an_output_of_another_signature_is_called_by_both_names():
    """Two signatures may have outputs of one name; the default one needs no other."""
    assert label_of("serving_default", "y") == "y"
    assert label_of("embed", "y") == "embed/y"


def test_without_figures_the_schema_is_still_checked():
    """While an instance warms up its numbers are not compared; but NaN is NaN."""
    reader = OutputReader(Signature("serving_default", (), (TensorSpec("y", Datatype.FP32, (-1,)),)))
    good, bad = (Outputs([Tensor("y", Datatype.FP32, (1,), floats(value).tobytes())]) for value in (1.0, NAN))

    assert reader.read(good, figures=False) == Reading(breaks_schema=False, figures=[])
    assert reader.read(bad, figures=False).breaks_schema
