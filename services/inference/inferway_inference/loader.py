"""Makes a version ready: files, runners, warm-up. Whatever goes wrong is an error that says what and which file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from inferway.errors import CorruptArtifact, VersionLoadFailed
from inferway_inference.artifacts import ArtifactStore
from inferway_inference.golden import check_golden, read_golden
from inferway_inference.memory import MemoryBudget
from inferway_inference.plan import ServingPlan
from inferway_inference.recorded import read_recorded
from inferway_inference.runner.base import LoadOrder, Runner
from inferway_inference.runner.runner_set import RunnerSet
from inferway_inference.runner.supply import RunnerSupply
from inferway_inference.runtimes.base import CPU, Placement
from inferway_inference.samples import Samples
from inferway_inference.scheduler import Scheduler, SchedulerOptions
from inferway_inference.signatures import Signature
from inferway_inference.states import LoadState
from inferway_inference.tuning import Tuned, TuningOptions, tune
from inferway_inference.versions import VersionSpec
from inferway_inference.warmup import WarmUp

MODEL_FILES = {"tensorflow": "saved_model.pb", "onnx": "model.onnx", "litert": "model.tflite"}
SIZES = (1, 8, 32)
"""Rows of the batches that warm-up tries, beside the largest."""

Advance = Callable[[LoadState], None]


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """How versions are loaded and run."""

    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    threads: int = 0
    """Threads that one operation may use; 0 lets warm-up choose."""
    timeout_seconds: float = 300.0
    """For all of a load but the download."""
    warmup_seconds: float = 2.0
    """For comparing ways of running a version; 0 turns that off."""
    placement: Placement = CPU
    runtimes: Mapping[str, str] = field(default_factory=dict)
    """Runtimes that are replaced by others."""


@dataclass(slots=True)
class Loaded:
    """A version that may answer."""

    runners: RunnerSet
    signatures: list[tuple[int, Signature]]
    """With their positions in the runners."""
    scheduler: Scheduler
    plan: ServingPlan
    """As warm-up chose it, before the operator's bounds."""


class Loader:
    """Loads versions; several may be loaded at once."""

    def __init__(
        self, store: ArtifactStore, supply: RunnerSupply, memory: MemoryBudget, options: LoaderOptions
    ) -> None:
        """Takes files from `store`, runners from `supply`, and no more than `memory` has."""
        self._store, self._supply, self._memory, self._options = store, supply, memory, options

    async def load(
        self,
        spec: VersionSpec,
        advance: Advance,
        *,
        gently: bool,
        apart: bool = False,
        like: ServingPlan | None = None,
    ) -> Loaded:
        """Tells `advance` about each step after the download.

        `gently`: others serve meanwhile, so let them go first. `apart`: its group crashed again and again, so it gets a
        process of its own, whoever is to blame. `like`: how it ran before it crashed; it is not tuned again.

        Raises InferwayError; DoesNotFit before anything is done. Leaves no process behind if it fails or is cancelled.
        """
        if apart and spec.isolation == "group":
            spec = replace(spec, isolation="process")
        with self._memory.reserved(spec):
            path = await self._store.fetch(spec.name, spec.manifest)
            advance(LoadState.LOADING)
            return await self._load(spec, path, advance, like, gently=gently)

    async def _load(
        self, spec: VersionSpec, path: Path, advance: Advance, like: ServingPlan | None, *, gently: bool
    ) -> Loaded:
        rows = spec.max_batch_rows or self._options.scheduler.max_batch_rows
        threads = like.threads if like else self._options.threads
        order = LoadOrder(self._runtime(spec), path, threads, gently, self._options.placement)

        buckets = _buckets(rows) if _compiles_each_shape(self._options.placement) else ()
        sizes = spec.bounds.buckets or buckets or _sizes(rows)

        async def prepare(runner: Runner) -> Tuned:
            began = time.monotonic()
            signatures = match_signatures(spec, await runner.load(order))
            advance(LoadState.WARMING)
            budget = 0.0 if like or spec.isolation == "group" else self._options.warmup_seconds
            fits_twice = self._memory.needed_bytes(spec) < self._memory.free_bytes()
            options = TuningOptions(budget, time.monotonic() - began, twins=fits_twice)
            return await self._warm_up(runner, order, signatures, sizes, options)

        tuned = await self._ready(spec, prepare)
        if like:
            tuned.callers, tuned.trials = like.callers, like.trials
        self._memory.learn(spec, tuned.runner.memory_bytes())
        if spec.isolation == "process":
            self._supply.loaded(order.runtime)
        scheduler = Scheduler(replace(self._options.scheduler, max_batch_rows=rows, buckets=buckets))
        for one in tuned.observed:
            scheduler.latency.observe(one.key, one.rows, one.seconds, crowded=one.crowded)
        chosen = replace(order, threads=tuned.threads, low_priority=True)
        runners = RunnerSet([tuned.runner], tuned.callers, lambda: self._another(spec, chosen, tuned.signatures))
        plan = ServingPlan(
            isolation=spec.isolation,
            callers=tuned.callers,
            threads=tuned.threads,
            buckets=buckets,
            max_batch_rows=rows,
            trials=tuned.trials,
        )
        return Loaded(runners, tuned.signatures, scheduler, plan)

    async def _ready(self, spec: VersionSpec, prepare: Callable[[Runner], Awaitable[Tuned]]) -> Tuned:
        """A new runner that `prepare` made ready in time; without success it is ended."""
        runner = await self._supply.runner(spec.name, self._runtime(spec), spec.isolation)
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                tuned = await prepare(runner)
        except TimeoutError as error:
            await asyncio.shield(runner.stop(by_force=True))
            seconds = self._options.timeout_seconds
            raise VersionLoadFailed(f"loading took longer than {seconds:g} s", cause="timeout") from error
        except BaseException:
            await asyncio.shield(runner.stop(by_force=True))
            raise
        tuned.runner.promote()
        return tuned

    async def _warm_up(
        self,
        runner: Runner,
        order: LoadOrder,
        signatures: list[tuple[int, Signature]],
        sizes: tuple[int, ...],
        options: TuningOptions,
    ) -> Tuned:
        recorded = await asyncio.to_thread(read_recorded, order.path, [signature for _, signature in signatures])
        golden = await asyncio.to_thread(read_golden, order.path)
        if golden is not None:
            await check_golden(runner, signatures, golden)
        return await tune(runner, order, signatures, Samples(recorded), sizes, options)

    async def _another(self, spec: VersionSpec, order: LoadOrder, signatures: list[tuple[int, Signature]]) -> Runner:
        """One more copy, which runs as the first was found to run best."""

        async def prepare(runner: Runner) -> Tuned:
            await runner.load(order)
            warm_up = WarmUp(runner, Samples({}), SIZES[:2])
            for position, signature in signatures:
                await warm_up.signature(position, signature)
            return Tuned(runner, signatures, 1, order.threads, (), [])

        with self._memory.reserved(spec):
            return (await self._ready(spec, prepare)).runner

    def _runtime(self, spec: VersionSpec) -> str:
        return self._options.runtimes.get(spec.runtime, spec.runtime)


def _sizes(max_rows: int) -> tuple[int, ...]:
    return (*(rows for rows in SIZES if rows < max_rows), max_rows)


def _compiles_each_shape(placement: Placement) -> bool:
    """Whether the first batch of each size is slow, so that few sizes are better than many."""
    return placement.gpu is not None or placement.xla


def _buckets(max_rows: int) -> tuple[int, ...]:
    return (*(1 << power for power in range(max_rows.bit_length()) if 1 << power < max_rows), max_rows)


def match_signatures(spec: VersionSpec, found: tuple[Signature, ...]) -> list[tuple[int, Signature]]:
    """The catalogue's signatures (all found ones, if it has none) with their positions in the runner.

    Raises CorruptArtifact if the version that was loaded is not the one that the catalogue describes.
    """
    if not spec.signatures:
        return list(enumerate(found))
    by_name = {signature.name: (position, signature) for position, signature in enumerate(found)}
    matched = []
    for signature in spec.signatures:
        position, own = by_name.get(signature.name, (-1, signature))
        if position < 0 or not own.same_tensors(signature):
            raise CorruptArtifact(
                f"signature {signature.name!r} of the catalogue is not in the loaded model, or has other tensors there",
                path=MODEL_FILES.get(spec.runtime, ""),
            )
        matched.append((position, signature))
    return matched
