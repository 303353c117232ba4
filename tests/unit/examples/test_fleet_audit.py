"""The fleet's books: a demonstration that could not find a fault would prove nothing."""

from __future__ import annotations

import numpy as np
import pytest

from examples.eta import numpy_model
from examples.fleet.audit import Sent, SessionAudit, Totals

generator = np.random.default_rng(5)
UNITS = 4
WEIGHTS: numpy_model.Weights = {
    name: generator.normal(0, 0.5, shape).astype(np.float32)
    for name, shape in {
        "scale": (6,),
        "kernel": (6, 3 * UNITS),
        "recurrent_kernel": (UNITS, 3 * UNITS),
        "bias": (2, 3 * UNITS),
        "head_kernel": (UNITS, 1),
        "head_bias": (1,),
    }.items()
}
ITEMS = generator.uniform(0.5, 2, (6, 1, 6)).astype(np.float32)


def answers(order: list[int]) -> list[float]:
    """What a server tells that applies the items in this order."""
    return [float(eta) for eta in numpy_model.sessions(WEIGHTS, ITEMS[order].swapaxes(0, 1))[0][0]]


def begun(sent: int = 6) -> tuple[SessionAudit, Totals]:
    totals = Totals()
    audit = SessionAudit(WEIGHTS, totals)
    for number in range(sent):
        audit.sent(number + 1, Sent(ITEMS[number], 0.0, number))
    return audit, totals


def test_a_right_session_is_clean():
    """Every answer in order, computed as NumPy does."""
    audit, totals = begun()
    for number, eta in enumerate(answers([0, 1, 2, 3, 4, 5])):
        audit.answered(number + 1, eta)
    audit.end()

    assert (totals.clean, totals.answered, totals.sent) == (True, 6, 6)


def test_nothing_answered_is_not_clean():
    """Silence is no success."""
    assert not Totals().clean


@pytest.mark.parametrize("order", [[0, 1, 1, 2, 3, 4], [0, 2, 3, 4, 5], [0, 2, 1, 3, 4, 5]])
def test_an_item_applied_twice_never_or_early_shows_in_the_answers(order: list[int]):
    """The server's state is seen through its answers alone, even where the ids look right."""
    audit, totals = begun()
    for number, eta in enumerate(answers(order)):
        audit.answered(number + 1, eta)

    assert totals.wrong > 0
    assert not totals.clean


def test_an_answer_that_comes_twice_is_counted_and_changes_nothing():
    """Also when the first one is long gone."""
    audit, totals = begun()
    etas = answers([0, 1, 2, 3, 4, 5])
    audit.answered(1, etas[0])
    audit.answered(2, etas[1])

    assert audit.answered(1, etas[0]) is None
    audit.answered(3, etas[2])
    assert (totals.doubled, totals.wrong, totals.answered) == (1, 0, 3)


def test_an_answer_before_its_turn_is_out_of_order():
    """Items of a session are answered one after the other."""
    audit, totals = begun()
    etas = answers([0, 1, 2, 3, 4, 5])
    audit.answered(2, etas[1])

    assert totals.out_of_order == 1


def test_what_the_end_of_a_session_leaves_unanswered_is_lost():
    """Once, however often the end is told."""
    audit, totals = begun(sent=3)
    audit.answered(1, answers([0])[0])
    audit.end()
    audit.end()

    assert (totals.lost, totals.clean) == (2, False)


def test_an_item_that_failed_is_lost_and_leaves_the_state():
    """So the answers after it must be those without it."""
    audit, totals = begun(sent=3)
    first, third = answers([0, 2])
    audit.answered(1, first)
    audit.failed(2)
    audit.answered(3, third)

    assert (totals.lost, totals.wrong, totals.out_of_order) == (1, 0, 0)
