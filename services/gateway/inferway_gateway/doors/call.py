"""What every gRPC door reads from a call itself: headers and time left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from inferway_chassis.observing import Head
from inferway_chassis.pipeline import Started
from inferway_gateway.envelope import Ask, Caller, Prediction, caller_of
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
    for key, value in head.invocation_metadata() or ():
        if key == "x-criticality":
            criticality = str(value)
        elif key == "x-tenant":
            tenant = str(value)
    return caller_of(criticality, tenant)


def has_flag(context: Context, header: str) -> bool:
    """Whether the header is there and says `true`."""
    return any(key == header and value == "true" for key, value in context.invocation_metadata() or ())


def started(predictor: Predictor, ask: Ask, to_response: Callable[[Prediction], Message]) -> Started[Prediction]:
    """Sets `ask` on its way, for a call that is answered with one message. Raises what `Predictor.submit` raises."""
    flight = predictor.submit(ask)
    return Started(flight.result, to_response, partial(predictor.abandon, flight))
