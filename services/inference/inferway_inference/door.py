"""Refuses at the door what would not be answered in time, by what was learned, with a margin. Pure."""

from __future__ import annotations

from inferway.errors import WouldBeLate
from inferway.names import parse_version
from inferway_inference.backlog import Backlog, Newcomer
from inferway_inference.lane import Lane
from inferway_inference.work import Request

MARGIN = 1.05
"""For what is between the runner and the caller, and for batches that do not follow one another at once."""
LEAST_RETRY_SECONDS = 0.01


def work_in_time(request: Request, lane: Lane, backlog: Backlog, free_at: float) -> float:
    """Seconds of the runner's time that `request` will take; 0.0 if unknown, and then nobody is refused.

    `free_at` is when the runner can take the next batch. Raises WouldBeLate if the request, or one that waits already,
    would be late.
    """
    sizing = lane.sizing
    if sizing is None:
        return 0.0
    left, work = request.deadline - free_at, request.rows * sizing.row_seconds
    if (backlog.total_seconds + work + sizing.batch_seconds * lane.latency.caution) * MARGIN <= left:
        return work  # it is in time though it were the last of all, and so is everybody who is due later
    return work if lane.is_stale(request.received_at) else _tight_work(request, lane, backlog, free_at)


def _tight_work(request: Request, lane: Lane, backlog: Backlog, free_at: float) -> float:
    sizing, now, left = lane.sizing, request.received_at, request.deadline - free_at
    assert sizing is not None
    work = lane.work_seconds(request.rows, left)
    step = sizing.rows * sizing.row_seconds * MARGIN
    full = _sure_seconds(lane, min(lane.part_rows, lane.queue.rows + request.rows))
    backlog_waits = lane.queue.rows >= sizing.rows  # then a small batch would make others late
    own = full if backlog_waits else _sure_seconds(lane, _batch_rows(request, lane, left))
    own += max(0.0, work - step)
    newcomer = Newcomer(request.criticality, request.tenant, request.deadline, work, own, full, step / MARGIN, step)
    late_by = backlog.too_late_by(newcomer, free_at)
    if late_by > 0:
        raise _would_be_late(request, late_by, max(0.0, request.deadline - now + late_by - own))
    return work


def _sure_seconds(lane: Lane, rows: int) -> float:
    return lane.latency.caution * lane.seconds(rows) * MARGIN


def _batch_rows(request: Request, lane: Lane, left: float) -> int:
    """Rows of the batch that the request will be in: all that wait, unless that is more than it has time for."""
    most = lane.part_rows
    rows = min(most, lane.queue.rows + request.rows)
    if lane.seconds(rows) * lane.latency.caution <= left:
        return rows
    return min(rows, max(min(most, request.rows), lane.rows_within(left)))


def _would_be_late(request: Request, late_by: float, wait: float) -> WouldBeLate:
    model, number = parse_version(request.version)
    return WouldBeLate(
        f"the worker would answer {late_by * 1e3:.0f} ms after the deadline, or make others late",
        retry_after_seconds=max(late_by, LEAST_RETRY_SECONDS),
        model=model,
        version=number,
        predicted_wait_ms=round(wait * 1e3),
    )
