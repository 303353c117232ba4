"""Decisions in words."""

from __future__ import annotations

import pytest

from inferway_inference.decision_log import LAST, Cause, DecisionLog, Dispatch, in_words
from inferway_inference.work import DispatchReason


def dispatch(reason: DispatchReason, cause: Cause = Cause.USUAL, **numbers: float) -> Dispatch:
    values = {"waited_seconds": 0.0, "expected_seconds": 0.01, "left_rows": 0, "held_seconds": 0.0, **numbers}
    costs = values.pop("wait_costs_seconds", None)
    return Dispatch(0.0, "s", 3, 8, reason, cause, wait_costs_seconds=costs, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (dispatch(DispatchReason.IDLE), "idle: the model was free, and nothing was to be gained by waiting"),
        (
            dispatch(DispatchReason.IDLE, wait_costs_seconds=0.00031),
            "idle: the model was free, and waiting would have cost 0.31 ms more than it saved",
        ),
        (
            dispatch(DispatchReason.FULL, left_rows=5),
            "full: more than 8 rows would not pay or fit; 5 rows left for the next",
        ),
        (dispatch(DispatchReason.DEADLINE), "deadline: waiting for more would have made a request late"),
        (dispatch(DispatchReason.DEADLINE, left_rows=2), "deadline: more than 8 rows would have made a request late"),
        (
            dispatch(DispatchReason.DELAY_BOUND, held_seconds=0.004),
            "delay bound: it was held open for 4 ms; longer does not pay or is not permitted",
        ),
        (dispatch(DispatchReason.UNBATCHED), "unbatched: requests of this signature are computed one by one"),
        (
            dispatch(DispatchReason.IDLE, Cause.SUSPECT),
            "it runs alone because the model crashed while it was computed",
        ),
    ],
)
def test_each_reason_is_a_sentence_with_units(decision: Dispatch, words: str):
    """They are read by people who have not seen the code."""
    assert in_words(decision) == words


def test_one_row_is_not_rows():
    """Most batches of an idle service have one."""
    single = dispatch(DispatchReason.FULL, left_rows=1)
    single.rows = 1

    assert in_words(single) == "full: more than 1 row would not pay or fit; 1 row left for the next"


def test_only_the_last_decisions_are_kept():
    """However many there were: it is memory, and nobody reads more."""
    log = DecisionLog()
    for number in range(LAST + 5):
        log.dispatched(dispatch(DispatchReason.IDLE, waited_seconds=number))

    assert [one.waited_seconds for one in log] == list(range(5, LAST + 5))
