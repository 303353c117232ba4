"""Answers of two versions are compared as people would: by what they mean, and within what was permitted."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, nan, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway_gateway.rollouts.compare import MAX_COMPARED_BYTES, Difference, Tolerances, compare, has_classes, numbers
from inferway_gateway.tensors import Tensor

TOLERANCES = Tolerances(1e-5, 1e-3)


def tensor(
    values: Any, datatype: Datatype = Datatype.FP32, dtype: str = "<f4", *, name: str = "y", shape: Sequence[int] = ()
) -> Tensor:
    """An output with those elements."""
    array = np.array(values, dtype)
    return Tensor(name, datatype, tuple(shape or array.shape), array.tobytes())


def difference(stable: Tensor, candidate: Tensor, rows: int = 1) -> Difference:
    """The only one there is."""
    (found,) = compare([stable], [candidate], rows, TOLERANCES)
    return found


def test_the_same_class_on_top_agrees_though_the_scores_differ() -> None:
    """A better model has other scores: what counts is what it says."""
    found = difference(tensor([[0.6, 0.4], [0.3, 0.7]]), tensor([[0.9, 0.1], [0.45, 0.55]]), rows=2)

    assert found.agrees
    assert not found.within_tolerance
    assert (found.rows, found.same_top_rows, found.elements) == (2, 2, 4)
    assert found.max_absolute == pytest.approx(0.3)
    assert found.max_relative == pytest.approx(0.75)
    assert found.sum_absolute == pytest.approx(0.3 + 0.3 + 0.15 + 0.15)


def test_one_row_with_another_class_on_top_disagrees() -> None:
    """A batch is as good as its worst row."""
    found = difference(tensor([[0.6, 0.4], [0.3, 0.7]]), tensor([[0.6, 0.4], [0.7, 0.3]]), rows=2)

    assert not found.agrees
    assert (found.rows, found.same_top_rows) == (2, 1)


def test_numbers_without_classes_agree_within_the_tolerances() -> None:
    """A regression has nothing on top."""
    assert difference(tensor([[1.0], [100.0]]), tensor([[1.0009], [100.09]]), rows=2).agrees
    assert not difference(tensor([[1.0], [100.0]]), tensor([[1.002], [100.0]]), rows=2).agrees
    assert difference(tensor([[0.0]]), tensor([[0.9e-5]])).agrees
    assert not difference(tensor([[0.0]]), tensor([[1.1e-5]])).agrees


def test_the_stable_version_is_the_reference() -> None:
    """What is relative must be relative to something that does not depend on who was asked first."""
    assert difference(tensor([2.0]), tensor([1.0])).max_relative == pytest.approx(0.5)
    assert difference(tensor([1.0]), tensor([2.0])).max_relative == pytest.approx(1.0)
    assert difference(tensor([0.0]), tensor([2.0])).max_relative == 0.0


def test_a_vector_with_an_element_for_each_row_has_no_classes() -> None:
    """Five scores of five rows are not five classes of one."""
    assert not has_classes((5,), rows=5)
    assert has_classes((5,), rows=1)
    assert has_classes((5, 10), rows=5)
    assert not has_classes((5, 1), rows=5)
    assert not has_classes((), rows=1)


@pytest.mark.parametrize(
    ("stable", "candidate", "same"),
    [(nan, nan, True), (nan, 1.0, False), (1.0, nan, False), (inf, inf, True), (inf, -inf, False), (1.0, inf, False)],
)
def test_what_is_no_number_equals_only_itself(stable: float, candidate: float, *, same: bool) -> None:
    """A candidate that answers NaN where stable does is not worse, and one that does elsewhere is."""
    found = difference(tensor([[2.0], [stable]]), tensor([[2.0001], [candidate]]), rows=2)

    assert found.agrees == found.within_tolerance == same
    assert found.max_absolute == (pytest.approx(1e-4, rel=0.01) if same else inf)
    assert found.sum_absolute == pytest.approx(1e-4, rel=0.01), "the mean of the others is still a number"


def test_integers_must_be_equal_however_large() -> None:
    """Ids next to each other have nothing in common, and above 2^53 a float does not tell them apart."""
    one, other = (tensor([[2**53 + n]], Datatype.INT64, "<i8") for n in (0, 1))

    assert not difference(one, other).within_tolerance
    assert not difference(one, other).agrees
    assert difference(one, one).agrees


def test_texts_must_be_equal() -> None:
    """Nothing is known of what they mean."""
    one, other = (Tensor("y", Datatype.BYTES, (1,), b"\x03\0\0\0" + text) for text in (b"cat", b"dog"))

    assert difference(one, one).agrees
    assert not difference(one, other).agrees
    assert difference(one, other).max_absolute == inf


@pytest.mark.parametrize(
    "candidate",
    [
        tensor([1.0, 2.0, 3.0]),
        tensor([1.0, 2.0], Datatype.FP64, "<f8"),
        tensor([1.0, 2.0], name="z"),
        Tensor("y", Datatype.FP32, (2,), b"\0" * 7),
    ],
    ids=["shape", "datatype", "name", "contents"],
)
def test_another_form_disagrees(candidate: Tensor) -> None:
    """A caller who reads the one cannot read the other, and nothing is raised over it."""
    found = difference(tensor([1.0, 2.0]), candidate, rows=2)

    assert (found.agrees, found.within_tolerance, found.max_absolute) == (False, False, inf)


def test_a_candidate_may_answer_more() -> None:
    """A new version may have further outputs: users of the old one do not see them."""
    found = compare([tensor([1.0])], [tensor([5.0], name="more"), tensor([1.0])], 1, TOLERANCES)

    assert [each.output for each in found] == ["y"]
    assert found[0].agrees


def test_the_divergence_of_distributions_is_kullbacks_and_leiblers() -> None:
    """Scores that are no probabilities have none."""
    p, q = [0.5, 0.5], [0.25, 0.75]
    expected = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)

    found = difference(tensor([p, [3.0, -1.0]]), tensor([q, [3.0, -2.0]]), rows=2)

    assert found.divergence == pytest.approx(expected, rel=1e-5)
    assert difference(tensor([p]), tensor([[0.0, 1.0]])).divergence < inf


def test_half_and_brain_floats_are_read_as_numbers() -> None:
    """NumPy has no bfloat16."""
    brain = (np.array([1.5, -2.0], "<f4").view("<u4") >> 16).astype("<u2").tobytes()

    assert list(numbers(Datatype.BF16, brain, 2)) == [1.5, -2.0]
    assert list(numbers(Datatype.FP16, np.array([0.5, 3.0], "<f2").tobytes(), 2)) == [0.5, 3.0]


def test_of_a_large_answer_the_first_whole_rows_are_compared() -> None:
    """The event loop has callers; half a row has no class."""
    stable = np.zeros((1000, 300), "<f4")
    candidate = stable.copy()
    candidate[999, 0] = 1.0
    rows = MAX_COMPARED_BYTES // (300 * 4)

    found = difference(tensor(stable), tensor(candidate), rows=1000)

    assert found.agrees, "it differs only where nobody looks"
    assert (found.rows, found.elements) == (rows, rows * 300)


def test_of_a_row_that_is_too_large_the_beginning_is_compared() -> None:
    """Better than nothing, and never the whole."""
    elements = MAX_COMPARED_BYTES // 4
    stable = np.zeros((1, 4 * elements), "<f4")
    candidate = stable.copy()
    candidate[0, 5] = 1.0

    found = difference(tensor(stable), tensor(candidate))

    assert (found.agrees, found.elements, found.rows) == (False, elements, 0)


def test_numbers_that_are_too_large_to_be_added_are_compared_all_the_same() -> None:
    """NumPy would warn, and a log would be full of it."""
    found = difference(tensor([[3e38, 3e38]]), tensor([[3e38, -3e38]]))

    assert (found.agrees, found.max_absolute, found.divergence) == (True, inf, 0.0)


@given(
    st.lists(st.floats(width=32), min_size=6, max_size=6),
    st.lists(st.floats(width=32), min_size=6, max_size=6),
    st.sampled_from([(6,), (2, 3), (6, 1), (1, 2, 3)]),
)
def test_any_two_answers_can_be_compared(one: list[float], other: list[float], shape: tuple[int, ...]) -> None:
    """Whatever a model makes up, what is reported are counts within bounds, and distances that can be ordered."""
    found = difference(tensor(one, shape=shape), tensor(other, shape=shape), rows=shape[0])

    for figure in (found.max_absolute, found.max_relative, found.sum_absolute, found.divergence):
        assert figure >= 0
    assert 0 <= found.same_top_rows <= found.rows <= prod(shape)
    assert found.within_tolerance or found.max_absolute > 0
    assert difference(tensor(one, shape=shape), tensor(one, shape=shape)).within_tolerance
