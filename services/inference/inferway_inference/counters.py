"""Counters of one version since the worker's start, with Triton's meaning: sums over requests, in nanoseconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from inferway_inference.work import Batch


@dataclass(slots=True)
class BatchCounters:
    """Batches of one size."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class VersionCounters:
    """What one version did."""

    successes: int = 0
    failures: int = 0
    rows: int = 0
    executions: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    success_ns: int = 0
    failure_ns: int = 0
    last_inference_ms: int = 0
    batches: dict[int, BatchCounters] = field(default_factory=dict)

    def succeeded(self, batch: Batch, input_ns: int, infer_ns: int, output_ns: int, now: float) -> None:
        """A batch was answered; its costs count once for each of its requests, as Triton does."""
        requests = len(batch.requests)
        received = sum(request.received_at for request in batch.requests)
        self.last_inference_ms = int(time.time() * 1000)
        self.successes += requests
        self.rows += batch.rows
        self.executions += 1
        self.queue_ns += int((requests * batch.dispatched_at - received) * 1e9)
        self.success_ns += int((requests * now - received) * 1e9)
        self.input_ns += requests * input_ns
        self.infer_ns += requests * infer_ns
        self.output_ns += requests * output_ns
        size = self.batches.setdefault(batch.rows, BatchCounters())
        size.count += 1
        size.input_ns += input_ns
        size.infer_ns += infer_ns
        size.output_ns += output_ns

    def failed(self, received_at: float, now: float) -> None:
        """A request was answered with an error."""
        self.last_inference_ms = int(time.time() * 1000)
        self.failures += 1
        self.failure_ns += int((now - received_at) * 1e9)
