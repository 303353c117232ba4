"""The envelope: a checked request on its way to a worker, as no door's protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from inferway.errors import InferwayError, InvalidParameter
from inferway_gateway.admission import FieldNames
from inferway_gateway.matching import Headers
from inferway_gateway.routing import Decision, Selector, Version, shown
from inferway_gateway.state import StatePlan
from inferway_gateway.tensors import Answer, Tensor

CRITICALITIES = {"critical-plus": 1, "critical": 2, "sheddable-plus": 3, "sheddable": 4}
"""Values of `x-criticality`, by which a request is served first to last."""
DEFAULT_CRITICALITY = CRITICALITIES["critical"]
_MAX_TENANT_CHARACTERS = 63


class Caller(NamedTuple):
    """What the headers of a call say, for every request in it."""

    criticality: int = DEFAULT_CRITICALITY
    tenant: str = ""
    affinity_key: str = ""
    """What traffic is split by, where a message says nothing else."""
    headers: Headers = ()
    """All of them: an endpoint may have rules for some."""


StateSource = Callable[[StatePlan, int], Sequence[Tensor]]
"""Gives the state for an item of so many rows; raises InvalidBatch if the state has another number of them."""


class Ask(NamedTuple):
    """A request as a door hands it in: decoded, not yet checked against any signature."""

    selector: Selector
    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    unit: str
    """What traffic is split by; empty means this request alone."""
    timeout_seconds: float
    caller: Caller
    field_names: FieldNames
    decision: Decision | None = None
    """Where it goes, if the stream that it is part of has decided that before."""
    state: StateSource | None = None
    """The state of its session."""


class Observer(Protocol):
    """Wants to know what becomes of a request: a rollout, for one."""

    def ended(self, envelope: Envelope, outcome: Answer | InferwayError, now: float) -> None:
        """Called once, before the envelope's inputs are let go; `now` is on the gateway's clock. Must not block."""


@dataclass(slots=True)
class Envelope:
    """A request that was admitted and routed: all that a worker needs to know."""

    version: Version
    signature: str
    inputs: Sequence[Tensor]
    """In the order of the signature."""
    outputs: Sequence[str]
    rows: int
    deadline: float
    """On the gateway's clock, in seconds; so is `received_at`."""
    received_at: float
    caller: Caller
    endpoint: str
    arm: str
    generation: int
    prediction_id: str
    byte_count: int
    """Of all inputs: what the limits of queues count."""
    traceparent: str = ""
    """Set only if the request is traced."""
    tracestate: str = ""
    observer: Observer | None = None
    propensity: int = 0
    """As in the decision."""
    is_split: bool = False
    """Its answer says what was decided, as `Endpoint.is_split`."""
    is_copy: bool = False
    """Nobody waits for it: it is not repeated, and counts neither for its endpoint nor for its arm."""


class Prediction(NamedTuple):
    """An answer, with what the gateway knows about it."""

    envelope: Envelope
    answer: Answer
    gateway_queue_us: int


def caller_of(criticality: str | None, tenant: str | None, affinity_key: str = "", headers: Headers = ()) -> Caller:
    """Reads the values of `x-criticality` and `x-tenant`; raises InvalidParameter."""
    if criticality is None and tenant is None:
        return Caller(DEFAULT_CRITICALITY, "", affinity_key, headers)
    level = DEFAULT_CRITICALITY if criticality is None else CRITICALITIES.get(criticality.lower(), 0)
    if not level:
        known = ", ".join(CRITICALITIES)
        raise InvalidParameter.at(
            "x-criticality", f"{shown(criticality or '')} is none of {known}", parameter="x-criticality"
        )
    tenant = tenant or ""
    if len(tenant) > _MAX_TENANT_CHARACTERS or not tenant.isprintable():
        raise InvalidParameter.at(
            "x-tenant", f"at most {_MAX_TENANT_CHARACTERS} printable characters are permitted", parameter="x-tenant"
        )
    return Caller(level, tenant, affinity_key, headers)
