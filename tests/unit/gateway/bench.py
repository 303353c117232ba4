"""A dispatcher on a bench: lanes, answers and time come from the test."""

from __future__ import annotations

from inferway.errors import (
    InferwayError,
)
from inferway_chassis.request_queue import QueueLimits
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.lane import Flight, Lane
from inferway_gateway.outcomes import Outcomes
from inferway_gateway.workers import Worker
from tests.unit.gateway.builders import FakeAnswer, FakeLoop, lane

V1 = "models/echo/versions/1"


class Bench:
    """A dispatcher whose time stands still until a test moves it."""

    def __init__(self, **limits: int) -> None:
        self.now = 0.0
        self.loop = FakeLoop()
        self.outcomes = Outcomes([0.1, 1.0])
        self.dispatcher = Dispatcher(self.loop, lambda: self.now, QueueLimits(**limits), self.outcomes)  # type: ignore[arg-type]

    def open_lane(self, rows: int = 100, worker: Worker | None = None) -> Lane:
        """A lane of a worker that has version 1 ready."""
        one = lane(worker)
        if one.worker not in self.dispatcher.workers:
            self.dispatcher.workers.append(one.worker)
        self.dispatcher.set_ready(one, [V1])
        self.dispatcher.grant(one, V1, rows)
        return one

    def answer(self, flight: Flight) -> None:
        """The worker that holds `flight` answers it."""
        assert flight.lane is not None
        self.dispatcher.answered(flight.lane, flight.ticket, FakeAnswer())  # type: ignore[arg-type]
        self.dispatcher.has_room_again()

    def fail(self, flight: Flight, error: InferwayError) -> None:
        """The worker that holds `flight` refuses it."""
        assert flight.lane is not None
        self.dispatcher.failed(flight.lane, flight.ticket, error)

    def codes(self) -> dict[str, int]:
        """What was counted for the arm."""
        return self.outcomes.of("echo", "v1", V1).by_code
