"""What the vehicles drive: whole trips, recorded step by step before anybody drives them, so that the truth is known.

Here they come from the simulator of drives; `gpx` makes them of real recordings.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from examples.eta.drives import BLOCK_KM, SIDE, STEP_MINUTES, Town, Traffic

Floats = NDArray[np.float64]
MAX_VEHICLES = 52
"""As many as there are letters to name them."""
DAY = 1003
"""One that the model was not trained on."""
MINUTE = 14 * 60
"""Two in the afternoon, between the rush hours."""
KEPT_TRIPS = 32
"""Of a vehicle that nobody drives."""
HORIZON_STEPS = 600
"""Longer than any trip."""
POINTS_A_BLOCK = 8
"""Of a main street on the map."""


@dataclass(frozen=True, slots=True)
class Trip:
    """One way to a destination, in steps of STEP_MINUTES."""

    features: NDArray[np.float32]
    """[steps, 6]: what the vehicle tells in each step."""
    positions: Floats
    """[steps + 1, 2] km; the last is the destination."""

    @property
    def steps(self) -> int:
        """How many it takes."""
        return len(self.features)

    def minutes_left(self, step: float) -> float:
        """The truth, which nobody knows who drives."""
        return max(0.0, self.steps - step) * STEP_MINUTES

    def position(self, step: float) -> Floats:
        """Where the vehicle is, between two steps, too."""
        before = min(int(step), self.steps - 1)
        way = self.positions[before + 1] - self.positions[before]
        return np.asarray(self.positions[before] + way * min(step - before, 1.0))


class Tracks(Protocol):
    """Where trips come from."""

    @property
    def ground(self) -> Floats:
        """[points, 2] km: what the map shows below the vehicles, and how far it reaches."""
        ...

    def next_trip(self, vehicle: int) -> Trip:
        """The next trip of the vehicle with this number; there always is one."""
        ...

    def look_ahead(self, step: float) -> None:
        """Called often with the step, counted from the start, where vehicles are: so work is spread over time."""
        ...


class SimulatedTracks:
    """One day of traffic in a town, simulated ahead of those who drive in it."""

    def __init__(self, town: Town, day: int = DAY) -> None:
        """The same day has the same trips."""
        self._traffic = Traffic(town, MAX_VEHICLES, day, MINUTE)
        self._ready = [deque[Trip](maxlen=KEPT_TRIPS) for _ in range(MAX_VEHICLES)]
        self._features: list[list[NDArray[np.float32]]] = [[] for _ in range(MAX_VEHICLES)]
        self._positions: list[list[Floats]] = [[] for _ in range(MAX_VEHICLES)]
        self._steps = 0
        self.ground = _streets()

    def look_ahead(self, step: float) -> None:
        """See Tracks."""
        while self._steps < step + HORIZON_STEPS:
            self._step()

    def next_trip(self, vehicle: int) -> Trip:
        """See Tracks."""
        while not self._ready[vehicle]:
            self._step()
        return self._ready[vehicle].popleft()

    def _step(self) -> None:
        self._steps += 1
        traffic = self._traffic
        for vehicle, (told, position) in enumerate(zip(traffic.features(), traffic.position, strict=True)):
            self._features[vehicle].append(told)
            self._positions[vehicle].append(position)
        traffic.step()
        arrived = np.flatnonzero(traffic.arrived)
        for vehicle in arrived.tolist():
            positions = np.stack([*self._positions[vehicle], traffic.destination[vehicle]])
            self._ready[vehicle].append(Trip(np.stack(self._features[vehicle]), positions))
            self._features[vehicle], self._positions[vehicle] = [], []
        traffic.depart(arrived)


def _streets() -> Floats:
    """Every crossing, and the main streets between them."""
    size = (SIDE - 1) * BLOCK_KM
    at = np.arange(SIDE) * BLOCK_KM
    along = np.linspace(0, size, (SIDE - 1) * POINTS_A_BLOCK + 1)
    main = at[1::4]
    grids = [np.meshgrid(at, at), np.meshgrid(along, main), np.meshgrid(main, along)]
    return np.concatenate([np.stack(grid, axis=-1).reshape(-1, 2) for grid in grids])
