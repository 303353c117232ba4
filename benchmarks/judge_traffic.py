"""Traffic of a rollout on a virtual clock, second by second, as gateways would count it.

Requests arrive as a Poisson process; each has an error or not, a latency and an output. With users, they come by Zipf's
law and differ: some fail far more often, some are slow, and outputs of a user are alike. So a request says little that
the one before has not said, which is what misleads tests that count requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inferway_registry.judge import Counts, Phase

REQUESTS_PER_SECOND = 200
BINS = 10
KINDS = ("error", "above_p95", "above_p99")
RAMP = (0.01, 0.05, 0.10, 0.25, 0.50)
SPREAD, USER_SPREAD = 0.3, 0.2
"""Standard deviation of the logarithm of latencies: within a user, and between users."""
NORMAL_95, NORMAL_99 = 1.6449, 2.3263
DECILES = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])
GATE_MARGIN = 1.25
"""A gate on latency allows so many times the p99 before."""

Series = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests come, and what befalls both arms."""

    name: str
    users: int = 0
    """None: every request is a unit."""
    swing: float = 0.0
    """Rate, errors and latencies rise and fall by this share over ten minutes."""
    bursts: float = 0.0
    """In one second of ten the rate is higher by so many times, and so are errors."""
    outage: bool = False
    """For a minute, 30 % of all requests fail."""
    by_request: bool = False
    """Counts requests where units should be counted."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What is different on the canary."""

    name: str
    error_share: float = 0.005
    latency_factor: float = 1.0
    output_shift: float = 0.0
    """In standard deviations."""
    dropped: float = 0.0
    """Of the canary's units, what share is lost before it is counted."""


NO_EFFECT = Effect("nothing")
BASE_ERRORS = 0.005


@dataclass(slots=True)
class Requests:
    """One run, request by request, in the order of time."""

    second: NDArray[np.int64]
    unit: NDArray[np.int64]
    canary: NDArray[np.bool_]
    bin: NDArray[np.int64]
    marks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """The kinds of events, and `above_gate`."""


def requests(traffic: Traffic, effect: Effect, shares: Series, rng: np.random.Generator) -> Requests:
    """Draws a run of as many seconds as there are shares of the canary."""
    load, trouble = _weather(traffic, len(shares), rng)
    second = np.repeat(np.arange(len(shares)), rng.poisson(REQUESTS_PER_SECOND * load))
    unit, place, frailty, pace, taste = _units(traffic, len(second), rng)
    canary = place[unit] < shares[second]
    kept = ~canary | (rng.random(len(second)) >= effect.dropped)
    second, unit, canary = second[kept], unit[kept], canary[kept]
    errors = trouble[second] * frailty[unit] * np.where(canary, effect.error_share / BASE_ERRORS, 1.0)
    noise = SPREAD * rng.standard_normal(len(second)) + pace[unit] + np.log(load[second]) / 2
    latency = noise + np.where(canary, np.log(effect.latency_factor), 0.0)
    own = rng.standard_normal(len(second))
    output = (taste[unit] + own) / np.sqrt(2) if traffic.users else own
    run = Requests(second, unit, canary, np.searchsorted(DECILES, output + canary * effect.output_shift))
    spread = np.hypot(SPREAD, USER_SPREAD if traffic.users else 0.0)
    run.marks["error"] = rng.random(len(second)) < errors
    run.marks["above_p95"] = latency > NORMAL_95 * spread
    run.marks["above_p99"] = latency > NORMAL_99 * spread
    run.marks["above_gate"] = latency > NORMAL_99 * spread + np.log(GATE_MARGIN)
    return run


def _weather(traffic: Traffic, seconds: int, rng: np.random.Generator) -> tuple[Series, Series]:
    """For each second how much more than usual comes, and how many of a hundred fail on both arms."""
    time = np.arange(seconds)
    load = 1 + traffic.swing * np.sin(2 * np.pi * (time / 600 + rng.random()))
    load *= np.where(rng.random(seconds) < 0.1, 1 + traffic.bursts, 1.0)
    trouble = BASE_ERRORS * load
    if traffic.outage:
        start = int(rng.integers(0, seconds - 60))
        trouble[start : start + 60] = 0.3
    return load, trouble


def _units(
    traffic: Traffic, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Series, Series, Series, Series]:
    """Who sends each request; and of each unit the place in the split, frailty, pace and taste."""
    if not traffic.users:
        still = np.zeros(count)
        return np.arange(count), rng.random(count), np.ones(count), still, still
    weights = 1 / np.arange(1, traffic.users + 1) ** 1.1
    unit = rng.choice(traffic.users, size=count, p=weights / weights.sum())
    frailty = rng.lognormal(-(1.5**2) / 2, 1.5, traffic.users)
    pace = USER_SPREAD * rng.standard_normal(traffic.users)
    return unit, rng.random(traffic.users), frailty, pace, rng.standard_normal(traffic.users)


@dataclass(frozen=True, slots=True)
class Tape:
    """What was counted until the end of each second; arrays begin with zeros. Arm 0 is stable, 1 the canary."""

    shares: Series
    counts: NDArray[np.int64]
    """By second, arm and column: units, newcomers, KINDS, bins."""
    requests: NDArray[np.int64]
    """The same, but for requests in place of units; the last column is `above_gate`."""

    def looks(self) -> Iterator[list[Phase]]:
        """What a judge sees each second."""
        starts = [0, *(np.flatnonzero(np.diff(self.shares)) + 1).tolist()]
        done: list[Phase] = []
        for start, end in zip(starts, [*starts[1:], len(self.shares)], strict=True):
            share, counts = float(self.shares[start]), (self.counts[start + 1 : end + 1] - self.counts[start]).tolist()
            for stable, canary in counts:
                phase = Phase(share, _counts(stable), _counts(canary))
                yield [*done, phase]
            done.append(phase)


def _counts(row: list[int]) -> Counts:
    events = dict(zip(KINDS, row[2:5], strict=True))
    return Counts(row[0], row[1], events, {"output": tuple(row[5 : 5 + BINS])})


def record(traffic: Traffic, effect: Effect, shares: Series, rng: np.random.Generator) -> Tape:
    """Draws a run and counts it, units as `Counts` wants them and requests as gates do."""
    run = requests(traffic, effect, shares, rng)
    every = np.ones(len(run.second), dtype=np.bool_)
    marks = [every, every, *(run.marks[kind] for kind in KINDS), *(run.bin == number for number in range(BINS))]
    by_request = [*marks, run.marks["above_gate"]]
    plain = _tally(run, by_request, len(shares))
    if not traffic.users or traffic.by_request:
        return Tape(shares, plain[:, :, :-1], plain)
    phase = np.concatenate([[0], np.cumsum(np.diff(shares) != 0)])[run.second]
    first = _first(run.unit, every)
    outputs = [first & mark for mark in marks[5:]]
    firsts = [_first(run.unit * 64 + phase, every), first, *(_first(run.unit, mark) for mark in marks[2:5]), *outputs]
    return Tape(shares, _tally(run, firsts, len(shares)), plain)


def _first(unit: NDArray[np.int64], mark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the marked requests the first of each unit."""
    where = np.flatnonzero(mark)
    result = np.zeros(len(unit), dtype=np.bool_)
    result[where[np.unique(unit[where], return_index=True)[1]]] = True
    return result


def _tally(run: Requests, marks: list[NDArray[np.bool_]], seconds: int) -> NDArray[np.int64]:
    cell = run.second * 2 + run.canary
    columns = [np.bincount(cell[mark], minlength=2 * seconds).reshape(seconds, 2) for mark in marks]
    sums = np.cumsum(np.stack(columns, axis=2), axis=0)
    return np.concatenate([np.zeros_like(sums[:1]), sums]).astype(np.int64)
