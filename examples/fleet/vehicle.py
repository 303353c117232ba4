"""A vehicle: drives one trip after another, tells where it is, and is told when it will arrive.

It moves by the clock, whatever becomes of its messages: positions that cannot be sent now are sent later, in order.
Each trip is a session of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from examples.eta import numpy_model
from examples.eta.drives import STEP_MINUTES
from examples.fleet.audit import Sent, SessionAudit, Totals
from examples.fleet.journal import Journal
from examples.fleet.latencies import Latencies
from examples.fleet.tracks import Floats, Tracks
from inferway_client import Client, InferwayError, Prediction, PredictionStream, ReconnectPolicy

ENDPOINT = "fleet-eta"
ITEM_SECONDS = 60.0
"""A position is worth an answer for so long."""
RECONNECT = ReconnectPolicy(max_backoff_seconds=0.25)
"""More eager than the default, which thinks of thousands of clients: somebody watches."""
GOLDEN_RATIO = 0.618
"""Its multiples spread vehicles evenly within a step, however many there are."""
PAUSE_SECONDS = 0.25
"""Before a new session, when one was lost or could not begin."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all vehicles share."""

    client: Client
    tracks: Tracks
    weights: numpy_model.Weights
    totals: Totals
    latencies: Latencies
    journal: Journal
    clock: Callable[[], float]
    """Seconds since the start."""
    step_seconds: float
    """Between two positions."""


class Vehicle:
    """See the module; `run` drives."""

    def __init__(self, number: int, name: str, surroundings: Surroundings) -> None:
        """Stands where its first trip begins."""
        self._number, self.name, self._around = number, name, surroundings
        self._leaving = asyncio.Event()
        self._answered_at: float | None = None
        self._begin()

    @property
    def step(self) -> float:
        """Where in its trip it is now, in steps."""
        return min(max(0.0, self._around.clock() - self._began_at) / self._around.step_seconds, self.trip.steps)

    @property
    def position(self) -> Floats:
        """[2] km, now."""
        return self.trip.position(self.step)

    @property
    def predicted_minutes(self) -> float | None:
        """Until the arrival, as it was told last; None before the first answer of the trip."""
        arrival = self._arrival_step
        return None if arrival is None else max(0.0, arrival - self.step) * STEP_MINUTES

    @property
    def gap_seconds(self) -> float:
        """Since the last answer."""
        return 0.0 if self._answered_at is None else self._around.clock() - self._answered_at

    async def run(self) -> None:
        """Drives until `leave`, and returns when every position that was sent is answered."""
        while not self._leaving.is_set():
            await self._drive()
            if self._next_step >= self.trip.steps:
                self._begin()

    def leave(self) -> None:
        """Sends no more."""
        self._leaving.set()

    def _begin(self) -> None:
        around = self._around
        self.trip = around.tracks.next_trip(self._number)
        self._began_at = around.clock() + self._number * GOLDEN_RATIO % 1 * around.step_seconds
        self._next_step = 0
        self._arrival_step: float | None = None
        self.version = 0

    async def _drive(self) -> None:
        """One session: the trip, or what is left of it if a session was lost on the way, or could not begin."""
        around, first_step = self._around, self._next_step
        audit = SessionAudit(around.weights, around.totals)
        try:
            async with (
                around.client.stream(ENDPOINT, timeout=ITEM_SECONDS, reconnect=RECONNECT) as stream,
                asyncio.TaskGroup() as tasks,
            ):
                tasks.create_task(self._send(stream, audit))
                tasks.create_task(self._read(stream, audit))
        except* InferwayError as errors:
            if self._next_step > first_step:
                around.journal.event(f"a session is lost: {_first(errors).message}")
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            audit.end()

    async def _send(self, stream: PredictionStream, audit: SessionAudit) -> None:
        while self._next_step < self.trip.steps and not await self._leaves_before(self._next_step):
            step = self._next_step
            x = self.trip.features[step : step + 1]
            number = await stream.send({"x": x})
            audit.sent(number, Sent(x, self._due(step), step))
            self._next_step += 1
        if not self._leaving.is_set():
            await self._leaves_before(self.trip.steps)
        await stream.finish()

    def _due(self, step: int) -> float:
        """When the vehicle is there: what an answer takes counts from then, also if the item had to wait to be sent."""
        return self._began_at + step * self._around.step_seconds

    async def _leaves_before(self, step: int) -> bool:
        """Waits until the vehicle is there, unless it leaves."""
        try:
            async with asyncio.timeout(max(0.0, self._due(step) - self._around.clock())):
                await self._leaving.wait()
        except TimeoutError:
            return False
        return True

    async def _read(self, stream: PredictionStream, audit: SessionAudit) -> None:
        async for result in stream:
            if result.prediction is not None:
                self._answered(audit, result.id, result.prediction)
            else:
                audit.failed(result.id)
                self._around.journal.event(f"an error came instead of an answer: {result.error}")

    def _answered(self, audit: SessionAudit, number: int, prediction: Prediction) -> None:
        around, now = self._around, self._around.clock()
        eta_minutes = float(np.asarray(prediction.outputs["eta_minutes"]).item())
        item = audit.answered(number, eta_minutes)
        if item is None:
            return
        around.latencies.add(now, now - item.at)
        if self._answered_at is not None:
            around.journal.gap(now - self._answered_at)
        self._answered_at = now
        self._arrival_step = item.step + eta_minutes / STEP_MINUTES
        self.version = prediction.version


def _first(errors: BaseExceptionGroup[InferwayError]) -> InferwayError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
