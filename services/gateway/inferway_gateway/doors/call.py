"""What every gRPC door reads from a call itself: headers and time left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from inferway_chassis.observing import Head
from inferway_chassis.pipeline import Metadata, Started
from inferway_gateway.envelope import Ask, Caller, Envelope, Prediction, caller_of
from inferway_gateway.predictor import Predictor

Context = aio.ServicerContext[Any, Any]
"""A call, as its servicer sees it."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long a request may take."""

    default_seconds: float = 10.0
    """For callers that set no deadline."""
    max_seconds: float = 60.0
    """For everybody."""

    def bounded(self, asked_seconds: float | None) -> float:
        """What a request gets whose caller asked for so much."""
        return self.default_seconds if asked_seconds is None else min(asked_seconds, self.max_seconds)


def caller(head: Head) -> Caller:
    """Who calls; raises InvalidParameter."""
    criticality = tenant = None
    affinity_key = ""
    headers = head.invocation_metadata() or ()
    for key, value in headers:
        if key == "x-criticality":
            criticality = str(value)
        elif key == "x-tenant":
            tenant = str(value)
        elif key == "x-affinity-key":
            affinity_key = str(value)
    return caller_of(criticality, tenant, affinity_key, headers)


def has_flag(context: Context, header: str) -> bool:
    """Whether the header is there and says `true`."""
    return any(key == header and value == "true" for key, value in context.invocation_metadata() or ())


def started(predictor: Predictor, ask: Ask, to_response: Callable[[Prediction], Message]) -> Started[Prediction]:
    """Sets `ask` on its way, for a call that is answered with one message. Raises what `Predictor.submit` raises."""
    flight = predictor.submit(ask)
    abandon = partial(predictor.abandon, flight)
    return Started(flight.result, to_response, abandon, answer_metadata(flight.envelope))


def answer_metadata(envelope: Envelope) -> Metadata:
    """What was decided, where callers may want to know: trailing metadata of the answer."""
    if not envelope.is_split:
        return ()
    return (
        ("x-inferway-arm", envelope.arm),
        ("x-inferway-version", envelope.version.name),
        ("x-inferway-generation", str(envelope.generation)),
        ("x-inferway-propensity", str(envelope.propensity)),
    )
