"""Takes the parts of a lane that go into its next batch. Pure."""

from __future__ import annotations

from inferway_inference.holding import Hold
from inferway_inference.lane import Lane
from inferway_inference.work import Batch, DispatchReason, Part


def fill(lane: Lane, why: Hold, free: int, max_bytes: int, now: float) -> Batch:
    """The next batch of a lane in which something waits, given that `free` callers have nothing to do.

    It has the best number of rows, or as many as leave all of its requests in time, and at least one part.
    """
    first = lane.take()
    assert first is not None
    if not lane.batchable:
        return Batch([first], DispatchReason.UNBATCHED)
    if not lane.queue.items:
        return Batch([first], DispatchReason.FULL if first.rows >= lane.part_rows > 1 else why.reason)
    trial = lane.trial_rows(first, now)
    most = trial or max(first.rows, lane.batch_rows(free, first.rows))
    takes = 0.0 if trial or lane.sizing is None else lane.latency.caution * lane.seconds(most)
    filling = _Filling(lane, first, most, max_bytes, (now, now + takes))
    head = lane.peek()
    while head is not None and filling.takes(head):
        lane.take()
        head = lane.peek()
    if filling.cut_short:
        return Batch(filling.parts, DispatchReason.DEADLINE)
    full = head is not None or most - filling.room >= lane.part_rows
    return Batch(filling.parts, DispatchReason.FULL if full else why.reason, trial=trial is not None)


class _Filling:
    """A batch that is being filled."""

    __slots__ = ("_bytes", "_in_time", "_lane", "_now", "cut_short", "parts", "room")

    def __init__(self, lane: Lane, first: Part, most: int, max_bytes: int, lasts: tuple[float, float]) -> None:
        self._lane = lane
        self.parts = [first]
        self.room = most - first.rows
        self.cut_short = False
        """It has fewer rows than would be best, for somebody's deadline."""
        self._bytes = max_bytes - first.byte_count
        self._now, self._in_time = lasts
        """From when until when it lasts at most: whoever is due later is in time however many join."""
        if first.deadline < self._in_time:
            self._limit(first.deadline)

    def takes(self, part: Part) -> bool:
        """Adds the part if it fits."""
        if part.deadline < self._in_time:
            self._limit(part.deadline)
        if part.rows > self.room or part.byte_count > self._bytes:
            return False
        self.parts.append(part)
        self.room -= part.rows
        self._bytes -= part.byte_count
        return True

    def _limit(self, deadline: float) -> None:
        """Only as many rows as leave somebody in time who is due then."""
        rows = sum([part.rows for part in self.parts])
        within = self._lane.rows_within(deadline - self._now)
        if within < rows + self.room:
            self.room = max(0, within - rows)
            self.cut_short = True
