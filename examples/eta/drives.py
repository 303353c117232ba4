"""Simulated drives: vehicles in the streets of a small town, with lights, rush hours and jams that nobody announces.

The town is a grid of streets, each vehicle follows a route of its own, and all of them move together, step by step.
Everything is deterministic: the town by its seed, the jams by the day, a route by day, vehicle and trip. Positions are
km from the south-west corner, speeds km/min, and times minutes since midnight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SIDE = 16
"""Streets in either direction; a crossing is (column, row)."""
BLOCK_KM = 0.3
STEP_MINUTES = 1 / 12
"""Five seconds."""
FEATURES = ("dx", "dy", "speed", "limit", "left_km", "map_minutes")
"""What a vehicle tells in each step: the way to its destination as the crow flies, its speed and that which its street
permits, the rest of its route, and the minutes which that would take on empty streets with green lights. How dense the
traffic is, it does not know."""
MIN_BLOCKS, MAX_BLOCKS = 6, 18
_ACCELERATION = 6.0  # km/min per minute, 1.7 m/s²
_TURN_SPEED = 0.3
_TURN_KM = 0.03
_STOP_LINE_KM = 1e-6
_RUSH_HOURS = ((8 * 60, 70), (17 * 60 + 30, 90))
_JAMS_AN_HOUR = 4


@dataclass(frozen=True, slots=True)
class Town:
    """What stays the same from day to day."""

    free_speed: Floats
    """[2, SIDE]: of the streets that lead east, by row, and of those that lead north, by column."""
    cycle: Floats
    """[SIDE, SIDE]: minutes of a light's cycle."""
    offset: Floats
    """[SIDE, SIDE]: where in its cycle a light is at midnight, 0 to 1."""
    share: Floats
    """[SIDE, SIDE]: the part of the cycle in which east and west have green."""

    @classmethod
    def build(cls, seed: int = 1) -> Town:
        """Every fourth street is a main street."""
        generator = np.random.default_rng(seed)
        main = np.arange(SIDE) % 4 == 1
        grid = (SIDE, SIDE)
        return cls(
            free_speed=np.where(main, 0.9, 0.55) * generator.uniform(0.9, 1.1, (2, SIDE)),
            cycle=generator.uniform(0.9, 1.6, grid),
            offset=generator.random(grid),
            share=generator.uniform(0.4, 0.6, grid),
        )

    def limit(self, crossings: Ints, headings: Ints) -> Floats:
        """The speed that the streets permit which lead from the crossings [..., 2] in the directions [..., 2]."""
        axis = np.abs(headings[..., 1])
        street = np.where(axis == 0, crossings[..., 1], crossings[..., 0])
        return np.asarray(self.free_speed[axis, street])

    def green(self, crossings: Ints, axis: Ints, minute: float) -> Bools:
        """Whether who comes along `axis` (0 east or west, 1 north or south) may pass the crossings [..., 2]."""
        at = (crossings[..., 0], crossings[..., 1])
        east_west = (minute / self.cycle[at] + self.offset[at]) % 1.0 < self.share[at]
        return np.asarray(east_west == (axis == 0))


@dataclass(frozen=True, slots=True)
class Day:
    """How dense the traffic is: rush hours towards the centre, and jams that come and go somewhere."""

    centre: Floats
    """[jams, 2] km."""
    peak: Floats
    """[jams] minutes since midnight."""

    @classmethod
    def build(cls, number: int) -> Day:
        """Another number is another day."""
        generator = np.random.default_rng((7, number))
        size = (SIDE - 1) * BLOCK_KM
        return cls(
            generator.uniform(0, size, (_JAMS_AN_HOUR * 24, 2)), generator.uniform(0, 24 * 60, _JAMS_AN_HOUR * 24)
        )

    def flow(self, points: Floats, minute: float) -> Floats:
        """The part of the free speed that is left at points [..., 2] km."""
        middle = (SIDE - 1) * BLOCK_KM / 2
        from_middle = np.square(points - middle).sum(-1) / 3.0
        rush = max(np.exp(-(((minute % 1440 - peak) / width) ** 2)) for peak, width in _RUSH_HOURS)
        late = ((minute % 1440 - self.peak) / 40) ** 2
        felt = late < 6  # the others would cost most of the time and change nothing
        near = np.square(points[..., None, :] - self.centre[felt]).sum(-1) / 1.5
        jam = np.exp(-near - late[felt]).max(-1, initial=0.0)
        return np.asarray((1 - 0.6 * rush * np.exp(-from_middle)) * (1 - 0.75 * jam))


class Traffic:
    """Vehicles under way on one day. All arrays have one row a vehicle, in the same order for ever."""

    def __init__(self, town: Town, vehicles: int, day: int, minute: float) -> None:
        """Puts each vehicle at a crossing of its own choice, with its first trip ahead."""
        self.town = town
        self.day = Day.build(day)
        self.minute = minute
        self.trips = np.zeros(vehicles, np.int64)
        """How many trips each has finished."""
        self._seed = day
        generator = np.random.default_rng((3, day))
        self._careful = generator.uniform(0.85, 1.1, vehicles)
        self._routes = np.zeros((vehicles, MAX_BLOCKS + 1, 2), np.int64)
        self._blocks = np.zeros(vehicles, np.int64)
        self._map_minutes = np.zeros((vehicles, MAX_BLOCKS + 1))
        self._driven = np.zeros(vehicles)
        self._speed = np.zeros(vehicles)
        for vehicle, start in enumerate(generator.integers(0, SIDE, (vehicles, 2))):
            self._send(vehicle, start)

    @property
    def arrived(self) -> Bools:
        """Who stands at the destination."""
        return self._driven >= self._blocks * BLOCK_KM - _STOP_LINE_KM / 2

    @property
    def position(self) -> Floats:
        """[vehicles, 2] km."""
        block = self._block()
        within = self._driven / BLOCK_KM - block
        here = self._crossing(block)
        return np.asarray(BLOCK_KM * (here + (self._crossing(block + 1) - here) * within[:, None]))

    @property
    def velocity(self) -> Floats:
        """[vehicles, 2] km/min, as of the last step."""
        return np.asarray(self._heading(self._block()) * self._speed[:, None])

    @property
    def destination(self) -> Floats:
        """[vehicles, 2] km."""
        return np.asarray(BLOCK_KM * self._crossing(self._blocks), np.float64)

    def route(self, vehicle: int) -> Floats:
        """[blocks + 1, 2] km: the crossings of the present trip."""
        return np.asarray(BLOCK_KM * self._routes[vehicle, : self._blocks[vehicle] + 1], np.float64)

    def features(self) -> NDArray[np.float32]:
        """[vehicles, 6]: what the vehicles tell now, see FEATURES."""
        block = self._block()
        way = self.destination - self.position
        limit = self._limit(block, self._heading(block))
        left = self._blocks * BLOCK_KM - self._driven
        in_block = (block + 1) * BLOCK_KM - self._driven
        map_minutes = in_block / limit + self._map_minutes[np.arange(len(block)), block + 1]
        return np.stack([*way.T, self._speed, limit, left, map_minutes], axis=1).astype(np.float32)

    def step(self) -> None:
        """Moves everybody on by STEP_MINUTES; who has arrived stays."""
        block = self._block()
        ahead = (block + 1) * BLOCK_KM - self._driven
        last = block == self._blocks - 1
        heading = self._heading(block)
        target = self._target_speed(block, heading, ahead, last)
        speed = np.clip(target, 0.0, self._speed + _ACCELERATION * STEP_MINUTES)
        red = ~self.town.green(self._crossing(block + 1), np.abs(heading[:, 1]), self.minute)
        room = np.where(last, ahead, np.where(red, np.maximum(ahead - _STOP_LINE_KM, 0.0), np.inf))
        advance = np.where(self.arrived, 0.0, np.minimum(speed * STEP_MINUTES, room))
        self._driven += advance
        self._speed = advance / STEP_MINUTES
        self.minute += STEP_MINUTES

    def depart(self, vehicles: Ints) -> None:
        """Sends these, who have arrived, on to another destination."""
        for vehicle in vehicles.tolist():
            self.trips[vehicle] += 1
            self._send(vehicle, self._routes[vehicle, self._blocks[vehicle]])

    def _target_speed(self, block: Ints, heading: Ints, ahead: Floats, last: Bools) -> Floats:
        speed = self._limit(block, heading) * self.day.flow(self.position, self.minute) * self._careful
        turns = ~last & (ahead < _TURN_KM) & (self._heading(block + 1) != heading).any(-1)
        return np.where(turns, np.minimum(speed, _TURN_SPEED), speed)

    def _limit(self, block: Ints, heading: Ints) -> Floats:
        return self.town.limit(self._crossing(block), heading)

    def _send(self, vehicle: int, start: Ints) -> None:
        generator = np.random.default_rng((5, self._seed, vehicle, int(self.trips[vehicle])))
        route = _route(start, _destination(start, generator), generator)
        self._routes[vehicle, : len(route)] = route
        self._blocks[vehicle] = len(route) - 1
        minutes = BLOCK_KM / self.town.limit(route[:-1], np.diff(route, axis=0))
        self._map_minutes[vehicle] = 0.0
        self._map_minutes[vehicle, : len(minutes)] = minutes[::-1].cumsum()[::-1]
        self._driven[vehicle] = self._speed[vehicle] = 0.0

    def _block(self) -> Ints:
        """The block of its route in which each vehicle is."""
        return np.minimum((self._driven / BLOCK_KM).astype(np.int64), self._blocks - 1)

    def _crossing(self, number: Ints) -> Ints:
        return self._routes[np.arange(len(number)), np.minimum(number, self._blocks)]

    def _heading(self, block: Ints) -> Ints:
        return self._crossing(block + 1) - self._crossing(block)


def _destination(start: Ints, generator: np.random.Generator) -> Ints:
    """A crossing that is neither around the corner nor at the other end of the town."""
    columns, rows = np.indices((SIDE, SIDE))
    blocks = np.abs(columns - start[0]) + np.abs(rows - start[1])
    candidates = np.argwhere((blocks >= MIN_BLOCKS) & (blocks <= MAX_BLOCKS))
    return np.asarray(generator.choice(candidates))


def _route(start: Ints, destination: Ints, generator: np.random.Generator) -> Ints:
    """The crossings from start to destination: a part of one way, all of the other, and the rest."""
    way = destination - start
    first = int(generator.integers(0, 2))
    begin = int(generator.integers(0, abs(int(way[first])) + 1))
    legs = [(first, begin), (1 - first, abs(int(way[1 - first]))), (first, abs(int(way[first])) - begin)]
    moves = np.zeros((int(np.abs(way).sum()), 2), np.int64)
    at = 0
    for axis, blocks in legs:
        moves[at : at + blocks, axis] = np.sign(way[axis])
        at += blocks
    return np.concatenate([start[None], start + moves.cumsum(axis=0)])


@dataclass(frozen=True, slots=True)
class Recording:
    """Whole drives, step by step."""

    features: NDArray[np.float32]
    """[drives, steps, 6]."""
    eta_minutes: NDArray[np.float32]
    """[drives, steps]: what was left of the drive."""
    under_way: Bools
    """[drives, steps]: False from the arrival on."""


def record(town: Town, days: range, vehicles: int, steps: int) -> Recording:
    """The first `steps` of one drive of each vehicle, on each day from an hour of its own on."""
    parts = [_record_day(town, day, vehicles, steps) for day in days]
    return Recording(*(np.concatenate([getattr(part, name) for part in parts]) for name in Recording.__slots__))


def _record_day(town: Town, day: int, vehicles: int, steps: int) -> Recording:
    """Goes on until everybody has arrived: to leave out who is late would teach that nobody is."""
    traffic = Traffic(town, vehicles, day, float(np.random.default_rng((11, day)).uniform(6 * 60, 20 * 60)))
    features: list[NDArray[np.float32]] = []
    steps_taken = np.zeros(vehicles)
    while len(features) < steps or not traffic.arrived.all():
        features.append(traffic.features())
        steps_taken += ~traffic.arrived
        traffic.step()
    left = np.maximum(steps_taken[:, None] - np.arange(steps), 0)
    return Recording(np.stack(features[:steps], axis=1), (left * STEP_MINUTES).astype(np.float32), left > 0)
