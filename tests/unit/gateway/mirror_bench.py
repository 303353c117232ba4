"""Copies on a bench: a real dispatcher, one worker for each version, and turns of the copier when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from inferway.datatypes import Datatype
from inferway.errors import InferwayError
from inferway_chassis.clock import Clock
from inferway_gateway.envelope import Envelope
from inferway_gateway.lane import Flight, Lane
from inferway_gateway.rollouts.copier import GATHER_SECONDS, PAUSE_SECONDS, Copier
from inferway_gateway.rollouts.mirror import Mirrors
from inferway_gateway.rollouts.mirror_figures import MirrorFigures
from inferway_gateway.rollouts.plan import ExamplePolicy, MirrorPlan, Sides
from inferway_gateway.routing import Version
from inferway_gateway.tensors import Answer, Tensor, WorkerTiming
from inferway_gateway.workers import Worker
from tests.unit.gateway.bench import V1, Bench
from tests.unit.gateway.builders import FakeLoop, envelope, lane, version

V2 = "models/echo/versions/2"
SIDES = Sides(stable=V1, candidate=V2)


def plan(of: str = V2, sample: int = 10_000, examples: ExamplePolicy = ExamplePolicy.OUTPUTS) -> MirrorPlan:
    """Copies for version 2 of everything."""
    return MirrorPlan(of, sample, 1e-5, 1e-3, examples)


class Answered(NamedTuple):
    """What a worker answered."""

    outputs: tuple[Tensor, ...]
    timing: WorkerTiming = None  # type: ignore[assignment] # nobody reads it


def answered(*values: float) -> Answered:
    """One row of output `y`."""
    return Answered((Tensor("y", Datatype.FP32, (1, len(values)), np.array(values, "<f4").tobytes()),))


def copier(
    submit: Callable[[Envelope], Flight],
    admit: Callable[[int], None] = lambda criticality: None,
    clock: Clock = lambda: 0.0,
    loop: FakeLoop | None = None,
) -> Copier:
    """One that finds room unless `admit` raises, on a loop that turns when a test says so."""
    return Copier(loop or FakeLoop(), clock, submit, admit)  # type: ignore[arg-type]


class MirrorBench(Bench):
    """Version 1 has users, version 2 is theirs, too, if a test says so; whoever did not answer gets a copy."""

    def __init__(self, mirror: MirrorPlan | None = None, salt: str = "salt") -> None:
        super().__init__()
        self.versions: dict[str, Version] = {V1: version(1), V2: version(2)}
        self.lanes = {name: self._lane(name) for name in self.versions}
        self.admitted: list[int] = []
        self.sent: list[Envelope] = []
        """Copies, also those that were refused."""
        self.copier = copier(self._submit, self.admitted.append, lambda: self.now, self.loop)
        self.mirrors = Mirrors(salt, self.versions.get, self.copier, self.dispatcher.is_away)
        self.mirrors.follow(mirror or plan(), SIDES)
        self.unit = ""

    @property
    def figures(self) -> MirrorFigures:
        """Of the first version that got copies."""
        return self.mirrors.figures[0]

    def ended(self, envelope: Envelope, outcome: Answer | InferwayError, now: float) -> None:
        """As the observer of users' requests."""
        self.mirrors.offer(envelope, self.unit, outcome, now - envelope.received_at)

    def send(self, of: str = V1, prediction_id: str = "p", **fields: int) -> Flight:
        """A user's request is on its way."""
        request = envelope(self.versions[of], **fields)
        request.observer, request.prediction_id, request.propensity = self, prediction_id, 10_000
        request.received_at, request.deadline = self.now, self.now + 1.0
        return self.dispatcher.submit(request)

    def end(self, flight: Flight, outcome: Answer | InferwayError) -> None:
        """The worker that holds `flight` says so."""
        if isinstance(outcome, InferwayError):
            self.fail(flight, outcome)
        else:
            assert flight.lane is not None
            self.dispatcher.answered(flight.lane, flight.ticket, outcome)

    def copies(self, of: str = V2) -> list[Flight]:
        """What the worker of that version holds of copies."""
        return [flight for flight in self.lanes[of].flights if flight.envelope.is_copy]

    def turn(self) -> None:
        """The copier has its turns until it wants no more."""
        while due := [t for t in self.loop.timers if t.delay in (GATHER_SECONDS, PAUSE_SECONDS) and not t.cancelled]:
            due[0].fire()

    def pair(self, primary: Answer | InferwayError, copied: Answer | InferwayError) -> None:
        """A user's request of version 1 and its copy end so, half a second and a quarter after they began."""
        flight = self.send()
        self.now += 0.5
        self.end(flight, primary)
        self.turn()
        self.now += 0.25
        self.end(self.copies()[0], copied)
        self.turn()

    def _submit(self, copy: Envelope) -> Flight:
        self.sent.append(copy)
        return self.dispatcher.submit(copy)

    def _lane(self, name: str) -> Lane:
        one = lane(Worker(f"127.0.0.1:{len(self.dispatcher.workers) + 1}"), max_envelope_bytes=1 << 30)
        self.dispatcher.workers.append(one.worker)
        self.dispatcher.set_ready(one, [name])
        self.dispatcher.grant(one, name, 10_000)
        return one
