"""Domain objects for the gateway's unit tests, from a few words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from inferway.datatypes import Datatype
from inferway_gateway.envelope import Caller, Envelope, Prediction
from inferway_gateway.lane import Flight, Lane
from inferway_gateway.routing import Version
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.tensors import Tensor
from inferway_gateway.workers import Worker

ECHO = Signature(
    "serving_default",
    (TensorSpec("x", Datatype.FP32, (-1, 4)),),
    (TensorSpec("y", Datatype.FP32, (-1, 4)),),
)


def version(number: int = 1, *, idempotent: bool = True, unloaded: bool = False, wanted: bool = True) -> Version:
    """A version of `echo`."""
    return Version(
        f"models/echo/versions/{number}",
        "echo",
        number,
        {"serving_default": ECHO},
        idempotent=idempotent,
        unloaded=unloaded,
        wanted=wanted,
    )


def envelope(
    of: Version | None = None, *, rows: int = 1, deadline: float = 10.0, byte_count: int = 16, criticality: int = 2
) -> Envelope:
    """A request for one version, received at 0."""
    return Envelope(
        version=of or version(),
        signature="serving_default",
        inputs=[Tensor("x", Datatype.FP32, (rows, 4), b"\0" * byte_count)],
        outputs=(),
        rows=rows,
        deadline=deadline,
        received_at=0.0,
        caller=Caller(criticality),
        endpoint="echo",
        arm="v1",
        generation=1,
        prediction_id="p",
        byte_count=byte_count,
    )


T = TypeVar("T")


class FakeLoop:
    """Futures of the running loop, and timers that a test fires."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []

    def create_future(self) -> asyncio.Future[Prediction]:
        """A real future."""
        return asyncio.get_running_loop().create_future()

    def call_later(self, delay: float, callback: Callable[[T], object], argument: T) -> FakeTimer:
        """Remembers the timer."""
        timer = FakeTimer(delay, lambda: callback(argument))
        self.timers.append(timer)
        return timer


class FakeTimer:
    """A timer that goes off when a test says so."""

    def __init__(self, delay: float, fire: Callable[[], object]) -> None:
        self.delay, self._fire, self.cancelled = delay, fire, False

    def cancel(self) -> None:
        """It will not go off."""
        self.cancelled = True

    def fire(self) -> None:
        """The time has come, once."""
        if not self.cancelled:
            self.cancelled = True
            self._fire()


class FakeCarrier:
    """Remembers what it was asked to do."""

    def __init__(self) -> None:
        self.woken = 0
        self.large: list[Flight] = []
        self.large_cancelled: list[Flight] = []

    def wake(self) -> None:
        """Counts."""
        self.woken += 1

    def carry_large(self, flight: Flight) -> Callable[[], object]:
        """Notes the flight, and later its cancellation."""
        self.large.append(flight)
        return lambda: self.large_cancelled.append(flight)


class FakeAnswer:
    """An answer of which nobody reads anything."""

    outputs = ()
    timing = None


def lane(worker: Worker | None = None, max_envelope_bytes: int = 1000) -> Lane:
    """An open lane without credits."""
    worker = worker or Worker("127.0.0.1:1")
    worker.links_up += 1
    return Lane(worker, max_envelope_bytes, FakeCarrier())
