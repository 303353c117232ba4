"""A worker that batches as TensorFlow Serving and Triton do, to compare with.

    FIXED_WINDOW="ROWS SECONDS" python -m benchmarks.fixed_window_worker

It is inferway's own worker in everything but the scheduler: batches of at most ROWS go to a free caller when they are
full or the oldest request has waited for SECONDS, first come, first served. Nobody is refused.
"""

from __future__ import annotations

import os

from benchmarks.goodput import FixedWindow
from inferway_chassis.process import main
from inferway_inference import loader
from inferway_inference.allocator import keep_freed_memory
from inferway_inference.app import running
from inferway_inference.quarantine import Quarantine
from inferway_inference.scheduler import Scheduler, SchedulerOptions
from inferway_inference.settings import InferenceSettings
from inferway_inference.work import Batch, Decision, Request


class FixedWindowScheduler(Scheduler):
    """The worker's interface before a `FixedWindow`."""

    def __init__(self, options: SchedulerOptions, capacity: int = 1, quarantine: Quarantine | None = None) -> None:
        """Nothing waits."""
        super().__init__(options, capacity, quarantine)
        rows, seconds = os.environ["FIXED_WINDOW"].split()
        self._window = FixedWindow(int(rows), float(seconds), capacity)

    @property
    def idle(self) -> bool:
        """As the interface says."""
        return self._window.idle

    def set_capacity(self, capacity: int) -> None:
        """As the interface says."""
        super().set_capacity(capacity)
        self._window.capacity = capacity

    def offer(self, request: Request) -> None:
        """Takes everybody in."""
        self._window.offer(request)

    def withdraw(self, request: Request) -> bool:
        """As the interface says."""
        return self._window.withdraw(request)

    def decide(self, now: float) -> Decision:
        """As the interface says."""
        return self._window.decide(now)

    def finished(self, batch: Batch, compute_seconds: float, now: float) -> bool:
        """A caller is free."""
        return self._window.finished(batch, compute_seconds, now)


if __name__ == "__main__":
    keep_freed_memory()
    vars(loader)["Scheduler"] = FixedWindowScheduler  # this process is there to be compared with
    raise SystemExit(main(InferenceSettings, running))
