"""How a version is run: what warm-up measured and chose, and the bounds that the operator set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlanTrial:
    """One way of running a version that warm-up tried."""

    callers: int
    """Batches side by side."""
    threads: int
    """Threads that one operation could use; 0 means all cores."""
    rows: int
    """Rows in each batch."""
    rows_per_second: float
    call_path: str = ""
    """How the runtime was called, in its own terms."""


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """How a worker runs a version. What the operator bounds is in it as it holds now."""

    isolation: str = "process"
    """`process`, `group` or `inline`."""
    instances: int = 1
    """Copies of the model."""
    callers: int = 1
    """Batches that are computed side by side in each copy."""
    threads: int = 0
    """Threads that one operation may use; 0 means all cores."""
    call_path: str = ""
    """How the runtime is called, in its own terms."""
    buckets: tuple[int, ...] = ()
    """Rows to which batches are padded, ascending; empty means none."""
    max_batch_rows: int = 512
    """Rows that are batched at most."""
    max_queue_delay_us: int = 0
    """The longest that a batch is held open on purpose; 0 means never."""
    trials: tuple[PlanTrial, ...] = ()
    """What warm-up compared before it chose."""


@dataclass(frozen=True, slots=True)
class ServingBounds:
    """What the operator set, within which the worker tunes itself; None and empty are the worker's own choice."""

    max_batch_rows: int | None = None
    max_queue_delay_seconds: float | None = None
    buckets: tuple[int, ...] = ()
    """Ascending."""
    instances: int | None = None
