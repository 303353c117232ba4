"""Tries ways of running a version, briefly and in turns, and chooses one.

A trial keeps one more batch at the runner than it computes at once, as the scheduler does with short batches, and
counts the rows that come back meanwhile. First comes a look at each way and size of batch: a few calls, which say how
long calls take. Then all take turns, as long as calls need to be told apart: some milliseconds each for a small model,
half a second for one whose calls take 20 ms. The middle one counts. A size that takes too long for the budget is left
out.

What others took of the machine meanwhile is reckoned back: where half of it is taken two callers reach no more than
one, and would never be chosen. Of calls of one thread that take long only what the model took counts, and never the
time until the next one: if this process has to wait for a processor, that says nothing of the model. The threads of one
call wait for one another, too, so there it cannot be told apart.

The way that computes the most rows a second wins; of ways that are about as good, one with fewer callers, then the one
that is quickest with a single row, which is what callers feel while there is little load. Where others kept the whole
machine busy nobody knows how well one call would use all cores, so that it is easily overrated; then one with more
callers of one thread each wins, even if it seems somewhat slower: too few of them halve what a version can do, too many
cost little.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from inferway.errors import InferwayError, RunnerCrashed
from inferway_inference.plan import PlanTrial
from inferway_inference.runner.base import Outcome, Runner
from inferway_inference.runner.host import cores
from inferway_inference.runner.usage import Usage, undisturbed, usage, used_since
from inferway_inference.tensors import Array

_LOG = logging.getLogger(__name__)

ABOUT_AS_GOOD, GOOD_IN_DOUBT = 0.93, 0.7
BUSY = 1.1
"""A machine on which every way of running a version takes at least so many times as long as it should."""
TURNS = 3
ENOUGH_CALLS = 20
"""In a turn; more would not tell more."""
TURN_SECONDS = (0.007, 0.7)
"""At least and at most."""
SLOW_BUDGETS = 4.0
"""A model of which the calls take long may take so many times the budget."""
LONG_CALL_SECONDS = 0.001
"""The hop to the runner and back is a tenth of that."""
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
    """On an idle machine."""
    batch_seconds: float = 0.0
    """Median time that the runtime took."""
    slowed: float = 1.0
    """How many times as long calls took because their threads had to wait for a processor; of long calls only."""
    _turns: list[tuple[float, float, float]] = field(default_factory=list)

    def note(self, rows_per_second: float, batch_seconds: float, slowed: float = 1.0) -> None:
        """After a turn. The look counts only until there are others: few calls may be quick by chance."""
        self._turns.append((rows_per_second, batch_seconds, slowed))
        rates, seconds, slowings = zip(*(self._turns[1:] or self._turns), strict=True)
        self.rows_per_second, self.batch_seconds = statistics.median(rates), min(seconds)
        self.slowed = statistics.median(slowings)

    def as_plan(self) -> PlanTrial:
        """For display."""
        return PlanTrial(self.way.callers, self.way.threads, self.rows, self.rows_per_second)


@dataclass(slots=True)
class Turn:
    """Calls one after the other, several at once, until the time is up and each caller has had its least."""

    way: Way
    position: int
    inputs: Sequence[Array]
    least_seconds: float
    began: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """That the calls took."""
    in_time: int = 0
    """Calls that came back before the end."""
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
        self.seconds.append((outcome.ended_ns - outcome.started_ns) / 1e9)
        if not self.ended and not self.failed:
            self._go_on()
        if not self.under_way:
            self.over.set()

    @property
    def long(self) -> bool:
        """Whether the hops between calls are next to nothing."""
        return statistics.fmean(self.seconds) >= LONG_CALL_SECONDS

    def calls_per_second(self, used: Usage, seconds: float, cores: int) -> float:
        """On an idle machine, given what its process `used` in the `seconds` until no call was under way any more."""
        if not used.ran_ns or not self.long or self.way.threads != 1:
            return undisturbed(used, seconds, cores) * self.in_time / (self.ended - self.began)
        side_by_side = self.way.callers / statistics.fmean(self.seconds) * used.slowed
        return min(side_by_side, cores * len(self.seconds) / (used.ran_ns / 1e9))

    def _go_on(self) -> None:
        self.in_time += 1
        now = time.perf_counter()
        if now - self.began >= self.least_seconds and self.in_time >= _LEAST_CALLS * self.way.callers:
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
    ends_at = time.perf_counter() + SLOW_BUDGETS * budget_seconds
    trials = await _looked(ways, position, batches, SLOW_BUDGETS * budget_seconds)
    wanted = TURNS * sum(map(_worth, trials))
    left = ends_at - time.perf_counter()
    if min(wanted, left) > budget_seconds:
        _LOG.info("ways of running a slow model are compared", extra={"seconds": round(min(wanted, left), 1)})
    for trial in trials * TURNS:
        if time.perf_counter() < ends_at:
            await _take_turn(trial, ways, position, batches[trial.rows], _worth(trial) * min(1.0, left / wanted))
    return trials


async def _looked(
    ways: Sequence[Way], position: int, batches: Mapping[int, list[Array]], budget_seconds: float
) -> list[Trial]:
    """A first turn of each way with each size that the budget permits."""
    share = budget_seconds / max(1, (TURNS + 1) * len(ways) * len(batches))
    ends_at = time.perf_counter() + budget_seconds
    trials: list[Trial] = []
    for rows in sorted(batches):
        for way in ways:
            if time.perf_counter() < ends_at and _affordable(way, rows, trials, share):
                trial = Trial(way, rows)
                await _take_turn(trial, ways, position, batches[rows], 0.0)
                trials.append(trial)
    return trials


async def _take_turn(
    trial: Trial, ways: Iterable[Way], position: int, inputs: Sequence[Array], least_seconds: float
) -> None:
    """Copies in one process share its callers: those whose turn it is not have none."""
    trial.way.runner.set_callers(trial.way.callers)
    for way in ways:
        if way.runner is not trial.way.runner:
            way.runner.set_callers(0)
    before = usage(trial.way.runner.pid)
    turn = Turn(trial.way, position, inputs, least_seconds)
    await turn.take()
    used = used_since(before, usage(trial.way.runner.pid))
    reached = turn.calls_per_second(used, time.perf_counter() - turn.began, cores())
    trial.note(reached * trial.rows, statistics.median(turn.seconds), used.slowed if turn.long else 1.0)


def _worth(trial: Trial) -> float:
    """How long a turn should take, in seconds."""
    least, most = TURN_SECONDS
    return min(max(ENOUGH_CALLS * trial.batch_seconds / trial.way.callers, least), most)


def _affordable(way: Way, rows: int, trials: Iterable[Trial], share: float) -> bool:
    """As far as the same way with fewer rows tells."""
    tried = [one for one in trials if one.way == way]
    if not tried:
        return True
    return _LEAST_CALLS * tried[-1].batch_seconds / tried[-1].rows * rows < _PATIENCE * share


def choose(trials: Sequence[Trial]) -> Way | None:
    """The best way; None if nothing was tried."""
    best = {way: max(one.rows_per_second for one in trials if one.way == way) for way in _ways(trials)}
    if not best:
        return None
    if min(trial.slowed for trial in trials) >= BUSY:
        return max(_good(best, GOOD_IN_DOUBT), key=lambda way: (way.callers, way.threads > 0, best[way]))
    return min(_good(best, ABOUT_AS_GOOD), key=lambda way: (way.callers, _single(way, trials)))


def _good(best: Mapping[Way, float], share: float) -> list[Way]:
    enough = share * max(best.values())
    return [way for way, rate in best.items() if rate >= enough]


def _ways(trials: Iterable[Trial]) -> list[Way]:
    return list(dict.fromkeys(trial.way for trial in trials))


def _single(way: Way, trials: Iterable[Trial]) -> float:
    """How long a batch of the smallest size takes this way, in seconds."""
    return min((one.rows, one.batch_seconds) for one in trials if one.way == way)[1]
