"""Finds out how one copy of a version runs best on this machine, and leaves it running that way.

The version is loaded once more beside itself where another number of threads is worth a comparison, and the loser is
unloaded. A comparison that does not fit into time or memory is left out: a large model starts as it was loaded.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from inferway.errors import InferwayError, ModelFailed
from inferway_inference.latency import curve_key
from inferway_inference.plan import PlanTrial
from inferway_inference.runner.base import LoadOrder, Runner
from inferway_inference.runner.host import MAX_CALLERS, cores
from inferway_inference.samples import Samples
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array
from inferway_inference.trials import Trial, Way, choose, run_trials
from inferway_inference.warmup import Observed, WarmUp

_LOG = logging.getLogger(__name__)

TWIN_BUDGETS = 15
"""A second copy may take as many budgets, and twice as long as the first did: the version waits for it."""
_DEFAULT_SIGNATURE = "serving_default"


@dataclass(slots=True)
class Tuned:
    """A copy that is ready, and how it runs."""

    runner: Runner
    signatures: list[tuple[int, Signature]]
    """With their positions in the runner."""
    callers: int
    threads: int
    trials: tuple[PlanTrial, ...]
    observed: list[Observed]
    """How long batches took, run this way."""


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """Within which tuning happens."""

    budget_seconds: float = 2.0
    """For trials, and some times as long for a model of which the calls take long; 0 turns them off."""
    load_seconds: float = math.inf
    """How long the first copy took to load."""
    twins: bool = True
    """Whether there is memory for a second copy."""
    max_callers: int = field(default_factory=lambda: min(cores(), MAX_CALLERS))


async def tune(
    runner: Runner,
    order: LoadOrder,
    signatures: Sequence[tuple[int, Signature]],
    samples: Samples,
    sizes: tuple[int, ...],
    options: TuningOptions,
) -> Tuned:
    """Warms up and tries what `runner` has loaded by `order`, with batches of `sizes`.

    Raises VersionLoadFailed if the version cannot compute at all, and RunnerCrashed if the runner ends.
    """
    found, warmed = await _warm_up(runner, signatures, samples, sizes)
    main = _main_signature(found, warmed.usable)
    alone = Tuned(runner, found, 1, order.threads, (), warmed.observed)
    if main is None or not options.budget_seconds or options.max_callers == 1:
        return alone
    sizes = tuple(one.rows for one in warmed.observed if one.key[0] == main[1].name)
    copies = [(runner, order.threads, warmed.observed)]
    try:
        if options.twins and not order.threads:
            copies += await _twin(runner, order, found, samples, sizes, options)
        best = await _compare(alone, copies, main, samples, sizes, options)
        for copy, _, _ in copies:
            if copy is not best.runner:
                await copy.stop()
    except BaseException:
        for copy, _, _ in copies:
            await asyncio.shield(copy.stop(by_force=True))
        raise
    return best


_Loaded = tuple[Runner, int, list[Observed]]
"""A copy, its threads, and how long its batches took."""


async def _warm_up(
    runner: Runner, signatures: Sequence[tuple[int, Signature]], samples: Samples, sizes: tuple[int, ...]
) -> tuple[list[tuple[int, Signature]], WarmUp]:
    warm_up = WarmUp(runner, samples, sizes)
    return [(position, await warm_up.signature(position, one)) for position, one in signatures], warm_up


async def _twin(
    runner: Runner,
    order: LoadOrder,
    signatures: Sequence[tuple[int, Signature]],
    samples: Samples,
    sizes: tuple[int, ...],
    options: TuningOptions,
) -> list[_Loaded]:
    """A copy of one thread; none if it takes too long, or fails."""
    twin = runner.beside()
    try:
        async with asyncio.timeout(min(TWIN_BUDGETS * options.budget_seconds, 2 * options.load_seconds)):
            await twin.load(replace(order, threads=1))
            _, warmed = await _warm_up(twin, signatures, samples, sizes)
    except (InferwayError, TimeoutError):
        await asyncio.shield(twin.stop())
        return []
    except BaseException:
        await asyncio.shield(twin.stop())
        raise
    return [(twin, 1, warmed.observed)]


async def _compare(
    alone: Tuned,
    runners: Sequence[_Loaded],
    main: tuple[int, Signature],
    samples: Samples,
    sizes: tuple[int, ...],
    options: TuningOptions,
) -> Tuned:
    position, signature = main
    ways = [
        Way(runner, threads, callers) for runner, threads, _ in runners for callers in _callers(options.max_callers)
    ]
    batches = {rows: samples.inputs(signature, rows, seed=4) for rows in sizes}
    trials = await _tried(ways, position, batches, options.budget_seconds)
    best = choose(trials) or ways[0]
    best.runner.set_callers(best.callers)
    seen = next(observed for runner, _, observed in runners if runner is best.runner)
    key = curve_key(signature.name, [array.shape for array in batches[min(batches)]])
    tried = [
        Observed(key, trial.rows, trial.batch_seconds, crowded=best.callers > 1)
        for trial in trials
        if trial.way == best
    ]
    shown = tuple(map(Trial.as_plan, trials))
    return replace(
        alone, runner=best.runner, callers=best.callers, threads=best.threads, trials=shown, observed=[*seen, *tried]
    )


async def _tried(
    ways: Sequence[Way], position: int, batches: Mapping[int, list[Array]], budget_seconds: float
) -> list[Trial]:
    """Nothing, if a call failed that did not fail alone: then it is run as it was."""
    try:
        return await run_trials(ways, position, batches, budget_seconds)
    except ModelFailed as error:
        _LOG.warning("how a version runs best was not found out", extra={"cause": error.message})
        return []


def _callers(most: int) -> list[int]:
    """Numbers of callers to try: powers of two, and the most."""
    return sorted({1 << power for power in range(most.bit_length()) if 1 << power <= most} | {most})


def _main_signature(signatures: Sequence[tuple[int, Signature]], usable: set[str]) -> tuple[int, Signature] | None:
    """The one that stands for all: the default one, or else the first that can be tried."""
    found = [(position, one) for position, one in signatures if one.name in usable and one.outputs]
    return min(found, key=lambda pair: pair[1].name != _DEFAULT_SIGNATURE, default=None)
