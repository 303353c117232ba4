"""Tries ways of running a version, briefly and in turns, and chooses one.

A trial keeps one more batch at the runner than it computes at once, as the scheduler does with short batches, for some
milliseconds, and counts rows. Every way gets two turns in each size of batch, the better of which counts: whatever
else runs on the machine can only make a turn worse. A size that takes too long for the budget is left out.

The way that computes the most rows a second wins; of ways that are about as good, one with fewer callers, then the one
that is quickest with a single row, which is what callers feel while there is little load.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from inferway.errors import InferwayError, RunnerCrashed
from inferway_inference.plan import PlanTrial
from inferway_inference.runner.base import Outcome, Runner
from inferway_inference.tensors import Array

ABOUT_AS_GOOD = 0.93
CALLS = 30
"""Enough for a turn, if they take less than its share of the budget."""
SHORTEST_SECONDS = 0.01
_TURNS = 2
_PATIENCE = 3.0
"""A size is left out if few calls of it would take so many times the share of a turn."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of running a version."""

    runner: Runner
    threads: int
    callers: int


@dataclass(slots=True)
class Trial:
    """What a way reached with batches of one size."""

    way: Way
    rows: int
    rows_per_second: float = 0.0
    batch_seconds: float = 0.0
    """Median time that the runtime took."""

    def as_plan(self) -> PlanTrial:
        """For display."""
        return PlanTrial(self.way.callers, self.way.threads, self.rows, self.rows_per_second)


@dataclass(slots=True)
class _Turn:
    """Calls one after the other, several at once, until the time is up."""

    runner: Runner
    position: int
    inputs: Sequence[Array]
    ends_at: float
    seconds: list[float] = field(default_factory=list)
    failed: InferwayError | None = None
    under_way: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        self.runner.call(self.position, self.inputs, (0,), self._done)
        self.under_way += 1

    def _done(self, outcome: Outcome) -> None:
        self.under_way -= 1
        if outcome.error is not None:
            self.failed = outcome.error
        self.seconds.append((outcome.ended_ns - outcome.started_ns) / 1e9)
        if self.failed is None and time.perf_counter() < self.ends_at:
            try:
                self.begin()
            except RunnerCrashed as error:
                self.failed = error
        if not self.under_way:
            self.over.set()


async def run_trials(
    ways: Sequence[Way], position: int, batches: dict[int, list[Array]], budget_seconds: float
) -> list[Trial]:
    """Tries every way with `batches` (inputs by rows) of the signature at `position`; raises the error of a call."""
    trials = [Trial(way, rows) for rows in sorted(batches) for way in ways]
    share = budget_seconds / max(1, _TURNS * len(trials))
    ends_at = time.perf_counter() + budget_seconds
    for _ in range(_TURNS):
        for trial in trials:
            if time.perf_counter() < ends_at and _affordable(trial, trials, share):
                await _take_turn(trial, position, batches[trial.rows], share)
    return [trial for trial in trials if trial.rows_per_second]


async def _take_turn(trial: Trial, position: int, inputs: Sequence[Array], share: float) -> None:
    way = trial.way
    way.runner.set_callers(way.callers)
    began = time.perf_counter()
    seconds = min(share, max(SHORTEST_SECONDS, CALLS * trial.batch_seconds / way.callers))
    turn = _Turn(way.runner, position, inputs, began + seconds)
    for _ in range(min(way.callers + 1, way.runner.slots)):
        turn.begin()
    await turn.over.wait()
    if turn.failed is not None:
        raise turn.failed
    reached = len(turn.seconds) * trial.rows / (time.perf_counter() - began)
    if reached > trial.rows_per_second:
        trial.rows_per_second, trial.batch_seconds = reached, statistics.median(turn.seconds)


def _affordable(trial: Trial, trials: Iterable[Trial], share: float) -> bool:
    """As far as the same way with fewer rows tells."""
    smaller = [one for one in trials if one.way == trial.way and one.rows <= trial.rows and one.rows_per_second]
    if not smaller:
        return True
    seconds = max(one.batch_seconds / one.rows for one in smaller[-1:]) * trial.rows
    return seconds * (trial.way.callers + 1) / trial.way.callers < _PATIENCE * share


def choose(trials: Sequence[Trial]) -> Way | None:
    """The best way; None if nothing was tried."""
    best = {way: max(one.rows_per_second for one in trials if one.way == way) for way in _ways(trials)}
    if not best:
        return None
    enough = ABOUT_AS_GOOD * max(best.values())
    good = [way for way, rate in best.items() if rate >= enough]
    return min(good, key=lambda way: (way.callers, _single(way, trials)))


def _ways(trials: Iterable[Trial]) -> list[Way]:
    return list(dict.fromkeys(trial.way for trial in trials))


def _single(way: Way, trials: Iterable[Trial]) -> float:
    """How long a batch of the smallest size takes this way, in seconds."""
    return min((one.rows, one.batch_seconds) for one in trials if one.way == way)[1]
