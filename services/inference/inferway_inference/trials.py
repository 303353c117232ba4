"""Tries ways of running a version, briefly and in turns, and chooses one.

A trial keeps one more batch at the runner than it computes at once, as the scheduler does with short batches, for some
milliseconds, and counts the rows that come back meanwhile. Every way takes turns with each size of batch as long as
the budget lasts, and its best turn counts: whatever else runs on the machine can only make a turn worse. A size that
takes too long for the budget is left out.

The way that computes the most rows a second wins; of ways that are about as good, one with fewer callers, then the one
that is quickest with a single row, which is what callers feel while there is little load.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from inferway.errors import InferwayError, RunnerCrashed
from inferway_inference.plan import PlanTrial
from inferway_inference.runner.base import Outcome, Runner
from inferway_inference.tensors import Array

ABOUT_AS_GOOD = 0.93
TURNS = 2
ENOUGH_CALLS = 60
"""Of one way with one size, in so many turns at least; more would not tell more."""
SHORTEST_SECONDS = 0.01
_LEAST_CALLS = 2
"""Of each caller in a turn."""
_PATIENCE = 3.0
"""A size is left out if a turn of it would take so many times its share of the budget."""


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
    calls: int = 0
    turns: int = 0

    def as_plan(self) -> PlanTrial:
        """For display."""
        return PlanTrial(self.way.callers, self.way.threads, self.rows, self.rows_per_second)


@dataclass(slots=True)
class _Turn:
    """Calls one after the other, several at once, until the time is up and each caller has had its least."""

    way: Way
    position: int
    inputs: Sequence[Array]
    least_seconds: float
    began: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """Of the calls that came back in time."""
    failed: InferwayError | None = None
    under_way: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self) -> None:
        """Returns when no call is under way any more; raises the error of a call."""
        for _ in range(min(self.way.callers + 1, self.way.runner.slots)):
            self._begin()
        await self.over.wait()
        if self.failed is not None:
            raise self.failed

    def _begin(self) -> None:
        self.way.runner.call(self.position, self.inputs, (0,), self._done)
        self.under_way += 1

    def _done(self, outcome: Outcome) -> None:
        self.under_way -= 1
        self.failed = self.failed or outcome.error
        if not self.ended and not self.failed:
            self._count(outcome)
        if not self.under_way:
            self.over.set()

    def _count(self, outcome: Outcome) -> None:
        self.seconds.append((outcome.ended_ns - outcome.started_ns) / 1e9)
        now = time.perf_counter()
        if now - self.began >= self.least_seconds and len(self.seconds) >= _LEAST_CALLS * self.way.callers:
            self.ended = now
            return
        try:
            self._begin()
        except RunnerCrashed as error:
            self.failed = error


async def run_trials(
    ways: Sequence[Way], position: int, batches: Mapping[int, list[Array]], budget_seconds: float
) -> list[Trial]:
    """Tries every way with `batches` (inputs by rows) of the signature at `position`; raises the error of a call."""
    trials = [Trial(way, rows) for rows in sorted(batches) for way in ways]
    share = budget_seconds / max(1, TURNS * len(trials))
    ends_at = time.perf_counter() + budget_seconds
    open_trials = trials
    while open_trials and time.perf_counter() < ends_at:
        for trial in open_trials:
            if time.perf_counter() < ends_at and _affordable(trial, trials, share):
                await _take_turn(trial, position, batches[trial.rows], share)
        open_trials = [one for one in open_trials if one.turns and (one.turns < TURNS or one.calls < ENOUGH_CALLS)]
    return [trial for trial in trials if trial.turns]


async def _take_turn(trial: Trial, position: int, inputs: Sequence[Array], share: float) -> None:
    trial.way.runner.set_callers(trial.way.callers)
    worth = ENOUGH_CALLS / TURNS * trial.batch_seconds / trial.way.callers
    turn = _Turn(trial.way, position, inputs, min(share, max(SHORTEST_SECONDS, worth)))
    await turn.take()
    trial.calls += len(turn.seconds)
    trial.turns += 1
    reached = len(turn.seconds) * trial.rows / (turn.ended - turn.began)
    if reached > trial.rows_per_second:
        trial.rows_per_second, trial.batch_seconds = reached, statistics.median(turn.seconds)


def _affordable(trial: Trial, trials: Iterable[Trial], share: float) -> bool:
    """As far as the same way with fewer rows tells."""
    tried = [one for one in trials if one.way == trial.way and one.rows <= trial.rows and one.turns]
    if not tried:
        return True
    return _LEAST_CALLS * tried[-1].batch_seconds / tried[-1].rows * trial.rows < _PATIENCE * share


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
