"""What flows through the worker: requests in, batches to the runner, answers out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from inferway.errors import InferwayError
from inferway_chassis.request_queue import Queued
from inferway_inference.credits import CreditPool
from inferway_inference.latency import CurveKey
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Tensor

NO_SIGNATURE = Signature("", (), ())
HANGS_AT_SECONDS = 10.0
"""No batch that computes for less hangs: the machine may be busy, and some content is heavier than any before it."""
HANGS_AT_TIMES = 20
"""What was expected: a batch that takes longer, and that nobody waits for any more, hangs."""
HANGS_AT_UNKNOWN_SECONDS = 10.0
"""The same where nothing was expected: the first batch of a shape may have to be compiled."""


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

    signature: Signature = NO_SIGNATURE
    outputs: tuple[int, ...] = ()
    """Positions of the wanted outputs in the signature."""
    rows: int = 0
    byte_count: int = 0
    key: Hashable = ()
    """Requests of different keys never share a batch."""
    curve: CurveKey = ("", ())
    """What is learned from its batches is learned of this."""
    credits: CreditPool | None = None
    """Where its rows go back to when it is answered; None if its version is not served here."""
    parts: tuple[Part, ...] = ()
    """Its rows as they are scheduled: one part, unless it is larger than a batch should be."""
    pieces: dict[int, list[Tensor]] | None = None
    """Of a request in several parts: the answered ones, by their first row."""
    cancelled: bool = False
    """Its caller went away."""
    ended: bool = False
    """It was answered or withdrawn; what still comes of its parts is dropped."""
    span: Any = None
    """The span of a traced request."""

    def end(self) -> None:
        """It has its answer, or needs none. What waits of it must have been withdrawn.

        It knows its parts and they know it: only a garbage collection would free it, with its inputs, seconds later.
        """
        self.ended = True
        self.parts, self.pieces = (), None


@dataclass(slots=True, eq=False)
class Part(Queued[Request]):
    """Rows of one request that are computed in one batch; `payload` is the request."""

    start: int = 0
    """The first of its rows in the request."""
    due: float = 0.0
    """Where its work is in the books of what is due when."""
    work_seconds: float = 0.0
    """The runner's time that its rows take in a batch of the best size; 0 if unknown."""


@dataclass(slots=True, eq=False)
class Batch:
    """Rows of one key that the runner computes together."""

    parts: list[Part]
    reason: DispatchReason
    rows: int = field(init=False)
    requests: list[Request] = field(init=False)
    """Whose rows are in it; once it is computed, those that were answered with it."""
    outputs: tuple[int, ...] = field(init=False)
    """Positions of the outputs that any of them wants, ascending."""
    padded_rows: int = 0
    """Rows to compute: the last row is repeated until a bucket is full."""
    dispatched_at: float = 0.0
    began_at: float = 0.0
    """As `dispatched_at`, unless it waited at the runner behind another one."""
    expected_seconds: float = 0.0
    """How long it takes; 0 if nothing is known."""
    expected_end: float = 0.0
    crowd_at: float = 0.0
    """The scheduler's measure of how many computed at once, when this one began."""
    trial: bool = False
    """It has another size than is thought best, to see whether that is still so."""
    span: Any = None

    def __post_init__(self) -> None:
        """Adds the parts up."""
        if len(self.parts) == 1:
            [part] = self.parts
            self.rows = self.padded_rows = part.rows
            self.requests, self.outputs = [part.payload], tuple(sorted(part.payload.outputs))
            return
        self.rows = self.padded_rows = sum([part.rows for part in self.parts])
        self.requests = list(dict.fromkeys([part.payload for part in self.parts]))
        wanted = {request.outputs for request in self.requests}
        self.outputs = tuple(sorted({index for outputs in wanted for index in outputs}))

    @property
    def signature(self) -> Signature:
        """The signature that all of them call."""
        return self.requests[0].signature

    def overdue_at(self, max_compute_seconds: float) -> float:
        """When it hangs, as far as anybody can tell.

        At the latest after `max_compute_seconds`. Earlier once nobody can use its answer any more, if by then it took
        many times what it should.
        """
        patience = self.expected_seconds * HANGS_AT_TIMES if self.expected_seconds else HANGS_AT_UNKNOWN_SECONDS
        worthless_at = max([part.deadline for part in self.parts])
        hangs_at = max(worthless_at, self.began_at + max(patience, HANGS_AT_SECONDS))
        return min(hangs_at, self.dispatched_at + max_compute_seconds)


@dataclass(slots=True)
class Decision:
    """What a scheduler says to do now."""

    batches: list[Batch]
    """To dispatch, in order."""
    expired: list[Request]
    """To be told that their deadline passed, or cannot be met any more."""
    wake_at: float | None = None
    """When to decide again if nothing happens before."""
    overdue: bool = False
    """A runner has computed one batch for longer than is permitted."""
