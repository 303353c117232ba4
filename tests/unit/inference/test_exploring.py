"""Trials of other batch sizes than the best one known."""

from __future__ import annotations

from inferway_inference.exploring import EVERY, Explorer
from inferway_inference.lane import Bounds, Lane
from inferway_inference.latency import Latency
from inferway_inference.sizing import Sizing, candidates
from tests.unit.inference.requests import admitted, whole

SIZES = candidates(64, ())
BEST = Sizing(rows=8, batch_seconds=0.010, row_seconds=0.0012, crowded=False)


def next_trial(explorer: Explorer, least: int = 1, waiting: int = 64) -> tuple[int, int]:
    """The batches until something is tried, and its size."""
    for batch in range(1, 100 * EVERY):
        rows = explorer.size(BEST, SIZES, least, waiting)
        if rows is not None:
            explorer.began()
            return batch, rows
    raise AssertionError("nothing is ever tried")


def test_the_neighbours_of_the_best_size_are_tried_in_turn():
    """Either may be the better one by now."""
    explorer, seconds = Explorer(), {4: 0.009, 16: 0.020}
    tried = []
    for _ in range(4):
        batches, rows = next_trial(explorer)
        tried.append((batches, rows))
        explorer.ended(BEST, rows, seconds[rows], capacity=1)

    assert tried == [(EVERY, 16), (2 * EVERY, 4), (EVERY, 16), (2 * EVERY, 4)]


def test_only_what_waits_can_be_tried():
    """A trial neither waits for rows nor splits what came as one."""
    assert next_trial(Explorer(), waiting=15) == (EVERY, 4)
    assert next_trial(Explorer(), least=5) == (EVERY, 16)
    explorer = Explorer()
    assert not any(explorer.size(BEST, SIZES, least=8, waiting=15) for _ in range(2 * EVERY))


def test_a_dear_trial_comes_back_the_more_seldom():
    """However slow another size is, at most one part in so many of the time is spent on finding that out again."""
    explorer = Explorer()
    _, rows = next_trial(explorer)
    explorer.ended(BEST, rows, 0.250, capacity=1)

    assert next_trial(explorer)[0] == 25 * EVERY


def test_a_size_that_turns_out_better_is_tried_again_at_once():
    """It costs nothing, and the curve must see it a few times before it says so."""
    explorer = Explorer()
    _, rows = next_trial(explorer)
    explorer.ended(BEST, rows, 0.010, capacity=1)

    assert next_trial(explorer) == (1, 16)


def test_nobody_becomes_late_by_a_trial():
    """Learning is for throughput; a deadline is a promise."""
    latency = Latency()
    for rows in (1, 8, 32):
        latency.observe(rows, 0.010 * rows)
    lane = Lane(admitted(0), latency, Bounds(32, (), 1))
    hurried, patient, behind = whole(admitted(1, deadline=0.025), admitted(2), admitted(3))
    lane.enqueue(behind)

    assert [lane.trial_rows(hurried, 0.0) for _ in range(3 * EVERY)] == [None] * 3 * EVERY
    assert lane.trial_rows(patient, 0.0) == 2
