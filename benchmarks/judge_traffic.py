"""Traffic of a rollout on a virtual clock, second by second, as gateways would count it.

Requests arrive as a Poisson process; each has an error or not, a latency and an output. With users, they come by Zipf's
law and differ: some fail far more often, some are slow, and outputs of a user are alike. So a request says little that
the one before has not said, which is what misleads tests that count requests.

All chance is drawn beforehand (`Crowd`), so that the same crowd can be counted under other weights: what happens until
a second does not depend on the weights after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferway_registry.judge import Counts
from inferway_registry.rollouts.facts import Profile
from inferway_registry.rollouts.rollout import Thresholds

REQUESTS_PER_SECOND = 200
BASELINE_SECONDS = 30
OUTPUT = "scores"
KINDS = ("MODEL_FAILED", "above_p95", "above_p99")
FIRST_BIN = 2 + len(KINDS)
"""The first column of bins, after units, newcomers and events."""
MEDIAN_US = 10_000.0
SAMPLED = 256
"""Outputs of the baseline that a gateway keeps."""
SLOW_START_SECONDS = 10
"""Latency and outputs of both arms count from then on only, as gateways have it."""
SPREAD, USER_SPREAD = 0.3, 0.2
"""Standard deviation of the logarithm of latencies: within a user, and between users."""
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


@dataclass(frozen=True, slots=True)
class Crowd:
    """One run, request by request in the order of time, with the chance that befalls each; nothing is assigned yet."""

    second: NDArray[np.int64]
    """Before 0 the stable version is watched alone."""
    unit: NDArray[np.int64]
    sticky: bool
    by_request: bool
    place: Series
    """Where the unit stands between 0 and 1: below the canary's share it is the canary's."""
    loss: Series
    trouble: Series
    """The chance of an error on the stable arm."""
    luck: Series
    pace: Series
    """The logarithm of the latency on the stable arm, in medians."""
    output: Series


def draw(traffic: Traffic, seconds: int, rng: np.random.Generator) -> Crowd:
    """Draws a run of so many seconds after the baseline."""
    load, trouble = _weather(traffic, BASELINE_SECONDS + seconds, rng)
    second = np.repeat(np.arange(len(load)), rng.poisson(REQUESTS_PER_SECOND * load))
    unit, place, frailty, pace, taste = _units(traffic, len(second), rng)
    own = rng.standard_normal(len(second))
    return Crowd(
        second - BASELINE_SECONDS,
        unit,
        bool(traffic.users),
        traffic.by_request,
        place[unit],
        rng.random(len(second)),
        trouble[second] * frailty[unit],
        rng.random(len(second)),
        SPREAD * rng.standard_normal(len(second)) + pace[unit] + np.log(load[second]) / 2,
        (taste[unit] + own) / np.sqrt(2) if traffic.users else own,
    )


def profile(crowd: Crowd) -> Profile:
    """What gateways tell of the baseline, in which all requests go to the stable version."""
    watched = crowd.second < 0
    micros = MEDIAN_US * np.exp(crowd.pace[watched])
    buckets, counts = np.unique(np.ceil(np.log(micros / 10) / np.log(1.05)).astype(int), return_counts=True)
    latency = dict(zip(buckets.tolist(), counts.tolist(), strict=True))
    outputs = crowd.output[watched]
    return Profile(latency, {OUTPUT: tuple(outputs[:SAMPLED].tolist())}, {OUTPUT: len(outputs)})


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

    counts: NDArray[np.int64]
    """By second, arm and column: units, newcomers, KINDS, bins."""
    requests: NDArray[np.int64]
    """The same, but for requests in place of units; the last column are those that a gate would call too slow."""

    def between(self, start: int, end: int) -> list[tuple[Counts, Counts]]:
        """What both arms have met since second `start`, at the end of each second before `end`."""
        rows = (self.counts[start + 1 : end + 1] - self.counts[start]).tolist()
        return [(_counts(stable), _counts(canary)) for stable, canary in rows]


def _counts(row: list[int]) -> Counts:
    events = dict(zip(KINDS, row[2:FIRST_BIN], strict=True))
    return Counts(row[0], row[1], events, {OUTPUT: tuple(row[FIRST_BIN:])})


def record(crowd: Crowd, effect: Effect, shares: Series, thresholds: Thresholds) -> Tape:
    """Counts a crowd with so large a canary in each second, units as `Counts` wants them and requests as gates do."""
    canary = (crowd.second >= 0) & (crowd.place < shares[np.maximum(crowd.second, 0)])
    kept = (crowd.second >= 0) & ~(canary & (crowd.loss < effect.dropped))
    canary, second, unit = canary[kept], crowd.second[kept], crowd.unit[kept]
    failed = crowd.luck[kept] < crowd.trouble[kept] * np.where(canary, effect.error_share / BASE_ERRORS, 1.0)
    micros = MEDIAN_US * np.exp(crowd.pace[kept]) * np.where(canary, effect.latency_factor, 1.0)
    edges = np.array(thresholds.edges[OUTPUT])
    where = np.searchsorted(edges, crowd.output[kept] + canary * effect.output_shift, side="right")
    answered = ~failed & (second >= SLOW_START_SECONDS)
    every = np.ones(len(second), dtype=np.bool_)
    slow = [answered & (micros > limit) for limit in (thresholds.p95_us, thresholds.p99_us)]
    bins = [answered & (where == number) for number in range(len(edges) + 1)]
    marks = [every, every, failed, *slow, *bins]
    cell = second * 2 + canary
    plain = _tally(cell, [*marks, ~failed & (micros > GATE_MARGIN * thresholds.p99_us)], len(shares))
    if not crowd.sticky or crowd.by_request:
        return Tape(plain[:, :, :-1], plain)
    phase = np.concatenate([[0], np.cumsum(np.diff(shares) != 0)])[second]
    first_output = _first(unit, answered)
    firsts = [_first(unit * 64 + phase, every), _first(unit, every)]
    firsts += [_first(unit, mark) for mark in marks[2:FIRST_BIN]] + [first_output & mark for mark in bins]
    return Tape(_tally(cell, firsts, len(shares)), plain)


def _first(unit: NDArray[np.int64], mark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the marked requests the first of each unit."""
    where = np.flatnonzero(mark)
    result = np.zeros(len(unit), dtype=np.bool_)
    result[where[np.unique(unit[where], return_index=True)[1]]] = True
    return result


def _tally(cell: NDArray[np.int64], marks: list[NDArray[np.bool_]], seconds: int) -> NDArray[np.int64]:
    columns = [np.bincount(cell[mark], minlength=2 * seconds).reshape(seconds, 2) for mark in marks]
    sums = np.cumsum(np.stack(columns, axis=2), axis=0)
    return np.concatenate([np.zeros_like(sums[:1]), sums]).astype(np.int64)
