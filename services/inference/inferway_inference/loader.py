"""Makes a version ready: files, runner, warm-up. Whatever goes wrong is an error that says what and which file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from inferway.errors import CorruptArtifact, VersionLoadFailed
from inferway_inference.artifacts import ArtifactStore
from inferway_inference.runner.process import LoadOrder, RunnerProcess
from inferway_inference.scheduler import Scheduler, SchedulerOptions
from inferway_inference.signatures import Signature
from inferway_inference.states import LoadState
from inferway_inference.versions import VersionSpec
from inferway_inference.warmup import warm_up


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """How versions are loaded and run."""

    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    threads: int = 0
    timeout_seconds: float = 300.0
    """For all of a load but the download."""
    runtimes: Mapping[str, str] = field(default_factory=dict)
    """Runtimes that are replaced by others."""


@dataclass(slots=True)
class Loaded:
    """A version that may answer."""

    runner: RunnerProcess
    signatures: list[tuple[int, Signature]]
    """With their positions in the runner."""
    scheduler: Scheduler


class Loader:
    """Loads versions; several may be loaded at once."""

    def __init__(self, store: ArtifactStore, options: LoaderOptions) -> None:
        """Takes files from `store`."""
        self._store, self._options = store, options

    async def load(self, spec: VersionSpec, advance: Callable[[LoadState], None], *, gently: bool) -> Loaded:
        """Tells `advance` about each step after the download. `gently`: others serve meanwhile, so let them go first.

        Raises InferwayError. Leaves no process behind if it fails or is cancelled.
        """
        path = await self._store.fetch(spec.name, spec.manifest)
        advance(LoadState.LOADING)
        runner = await _start(spec.name)
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                return await self._prepare(runner, spec, path, advance, gently=gently)
        except TimeoutError as error:
            await asyncio.shield(runner.stop(by_force=True))
            seconds = self._options.timeout_seconds
            raise VersionLoadFailed(f"loading took longer than {seconds:g} s", cause="timeout") from error
        except BaseException:
            await asyncio.shield(runner.stop(by_force=True))
            raise

    async def _prepare(
        self,
        runner: RunnerProcess,
        spec: VersionSpec,
        path: Path,
        advance: Callable[[LoadState], None],
        *,
        gently: bool,
    ) -> Loaded:
        options = self._options.scheduler
        rows = spec.max_batch_rows or options.max_batch_rows
        scheduler = Scheduler(replace(options, max_batch_rows=rows))
        runtime = self._options.runtimes.get(spec.runtime, spec.runtime)
        found = await runner.load(LoadOrder(runtime, path, self._options.threads, gently))
        advance(LoadState.WARMING)
        signatures = [
            (position, await warm_up(runner, position, signature, rows, scheduler.latency))
            for position, signature in match_signatures(spec, found)
        ]
        runner.promote()
        return Loaded(runner, signatures, scheduler)


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
                path="saved_model.pb",
            )
        matched.append((position, signature))
    return matched


async def _start(name: str) -> RunnerProcess:
    try:
        return await RunnerProcess.start(name)
    except OSError as error:
        raise VersionLoadFailed("the worker could not start a process for the version", cause="no process") from error
