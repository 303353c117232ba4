"""Whether to hold a batch open although the runner is free. Pure.

It pays only while rows arrive quickly and share a cost that is worth it (see `sizing`), never makes anybody late, and
ends by itself: when enough came, when the next is overdue, or when the hold has cost as much as it can save.
"""

from __future__ import annotations

from typing import NamedTuple

from inferway_inference.lane import Lane
from inferway_inference.sizing import OVERHEAD_SECONDS, shared_seconds, wait_costs
from inferway_inference.work import DispatchReason

WORTH_HOLDING_SECONDS = 0.0005
"""A batch is not held open to save less: the timer would cost more."""
GAPS = 3
"""How many usual gaps between arrivals to wait for the next: later than that it is not coming soon."""


class Hold(NamedTuple):
    """What speaks for waiting."""

    until: float
    """Not after `now`: dispatch."""
    reason: DispatchReason = DispatchReason.IDLE
    """Why to dispatch, or why to at `until`."""
    costs_seconds: float | None = None
    """What waiting for one more row costs beyond what it saves; None if that was no question."""


NO_HOLD = Hold(0.0)


def hold(lane: Lane, now: float, most_seconds: float | None) -> Hold:
    """Whether and until when to wait for more rows of `lane`, of which some are there; at most `most_seconds`."""
    sizing, rows = lane.sizing, lane.queue.rows
    if sizing is None or rows >= sizing.rows or most_seconds == 0 or not lane.batchable:
        return NO_HOLD
    if lane.one_seconds + OVERHEAD_SECONDS < WORTH_HOLDING_SECONDS:
        return NO_HOLD  # no more than that is ever saved
    saved = shared_seconds(lane.seconds, rows)
    if saved < WORTH_HOLDING_SECONDS:
        return NO_HOLD
    costs = wait_costs(lane.seconds, rows, lane.gap_seconds)
    if costs >= 0:
        return Hold(0.0, DispatchReason.IDLE, costs)
    since = now if lane.held_since is None else lane.held_since
    bound = since + (saved if most_seconds is None else min(saved, most_seconds))
    coming = lane.arrived_at + GAPS * lane.gap_seconds
    deadline = lane.queue.next_deadline() or now
    in_time = deadline - lane.latency.caution * lane.seconds(rows + 1)
    until, reason = min(
        (bound, DispatchReason.DELAY_BOUND), (coming, DispatchReason.IDLE), (in_time, DispatchReason.DEADLINE)
    )
    return Hold(until, reason, costs)
