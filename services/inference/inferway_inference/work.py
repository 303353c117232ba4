"""What flows through the worker: requests in, batches to the runner, answers out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from inferway.errors import InferwayError
from inferway_inference.credits import CreditPool
from inferway_inference.latency import CurveKey
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Tensor

NO_SIGNATURE = Signature("", (), ())


class DispatchReason(IntEnum):
    """Why a batch closed. Values equal those of `inferway.type.v1.DispatchReason`."""

    FULL = 1
    IDLE = 2
    DEADLINE = 3
    DELAY_BOUND = 4
    UNBATCHED = 5


@dataclass(slots=True)
class Timing:
    """Where the time of one request went, in whole microseconds."""

    gateway_queue_us: int
    worker_wait_us: int
    compute_us: int
    batch_rows: int
    """Rows of the batch that belong to the caller's tenant."""
    reason: DispatchReason


@dataclass(slots=True)
class Answer:
    """Outputs, or why there are none."""

    outputs: list[Tensor] = field(default_factory=list)
    error: InferwayError | None = None
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace that a request is part of, and what its span shall say."""

    traceparent: str
    tracestate: str = ""
    prediction_id: str = ""
    endpoint: str = ""
    arm: str = ""


@dataclass(slots=True, eq=False)
class Request:
    """One request. As it comes from the network its upper part is set; `admission.admit` checks it and sets the rest.

    `reply` is called exactly once, unless the request is cancelled first.
    """

    id: int
    version: str
    signature_name: str
    inputs: list[Tensor]
    output_names: Sequence[str]
    claimed_rows: int
    """As the sender counted them, for credits."""
    received_at: float
    deadline: float
    """On the worker's clock, as `received_at`."""
    reply: Callable[[Request, Answer], None]
    criticality: int = 2
    tenant: str = ""
    gateway_queue_us: int = 0
    trace: Trace | None = None
    parameters: Hashable = ()
    stateful: bool = False

    signature: Signature = NO_SIGNATURE
    outputs: tuple[int, ...] = ()
    """Positions of the wanted outputs in the signature."""
    rows: int = 0
    byte_count: int = 0
    key: Hashable = ()
    """Requests of different keys never share a batch."""
    curve: CurveKey = ()
    """What is learned from its batches is learned of this."""
    credits: CreditPool | None = None
    """Where its rows go back to when it is answered; None if its version is not served here."""
    cancelled: bool = False
    queued: Any = None
    """The scheduler's own note of where the request is."""
    span: Any = None
    """The span of a traced request."""


@dataclass(slots=True, eq=False)
class Batch:
    """Requests of one key that the runner computes together."""

    requests: list[Request]
    reason: DispatchReason
    rows: int = field(init=False)
    outputs: tuple[int, ...] = field(init=False)
    """Positions of the outputs that any of them wants, ascending."""
    dispatched_at: float = 0.0
    span: Any = None

    def __post_init__(self) -> None:
        """Adds the requests up."""
        self.rows = sum([request.rows for request in self.requests])
        wanted = {request.outputs for request in self.requests}
        self.outputs = tuple(sorted({index for outputs in wanted for index in outputs}))

    @property
    def signature(self) -> Signature:
        """The signature that all of them call."""
        return self.requests[0].signature
