"""Loads and unloads a version again and again, and counts what is left behind.

    python -m tests.soak.loads RUNTIME FOLDER ISOLATION CYCLES        prints one line; exit status 1 if anything is left

Each cycle loads the version in FOLDER as a worker does, calls it, and unloads it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from inferway_inference.loader import Loader, LoaderOptions
from inferway_inference.memory import MemoryBudget, MemoryLimits
from inferway_inference.runner.asking import ask
from inferway_inference.runner.supply import RunnerSupply
from inferway_inference.samples import synthetic_inputs
from inferway_inference.versions import Manifest, VersionSpec

SETTLED_CYCLES = 3
"""What the first cycles take for good, as imports and pools, is no leak."""
MAX_GROWTH = 0.05
"""Of resident memory, beyond what the allocator keeps of one version."""
KEPT_BYTES = 16 * 1024 * 1024
THREADS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Held:
    """What this process has."""

    threads: int
    descriptors: int
    processes: int
    mappings: int
    """Of memory that it shared with runners."""
    resident_bytes: int

    @classmethod
    def now(cls) -> Held:
        """Counts."""
        gc.collect()
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        return cls(
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names are all that is needed
            len(psutil.Process().children(recursive=True)),
            maps.count("memfd:inferway"),
            psutil.Process().memory_info().rss,
        )

    def left_since(self, before: Held) -> list[str]:
        """In words, what there is more than before."""
        own, old = (
            {"threads": one.threads, "descriptors": one.descriptors, "processes": one.processes, "maps": one.mappings}
            for one in (self, before)
        )
        left = [f"{own[name] - old[name]} {name}" for name in own if own[name] > old[name]]
        if self.resident_bytes > before.resident_bytes * (1 + MAX_GROWTH) + KEPT_BYTES:
            left.append(f"{(self.resident_bytes - before.resident_bytes) >> 20} MiB")
        return left


class Folder:
    """Stands for the store of artifacts: every version is there already."""

    def __init__(self, path: Path) -> None:
        """It is in this folder."""
        self._path = path

    async def fetch(self, name: str, manifest: Manifest) -> Path:
        """Where the files are."""
        return self._path


async def run_cycles(runtime: str, folder: Path, isolation: str, cycles: int) -> tuple[Held, Held]:
    """What this process had when it was settled, and after as many `cycles` more."""
    threads = threading.active_count() + 1  # that of the loop's own pool, in which files are read
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    supply = RunnerSupply(spare_permitted=lambda _: True)  # as a worker with free memory
    options = LoaderOptions(warmup_seconds=0.05)
    loader = Loader(Folder(folder), supply, MemoryBudget(MemoryLimits()), options)  # type: ignore[arg-type]
    spec = VersionSpec("models/soak/versions/1", runtime, Manifest("soak", ()), (), 8, isolation=isolation)
    for _ in range(SETTLED_CYCLES):
        await cycle(loader, spec)
    before = await settled(threads, None)
    for _ in range(cycles):
        await cycle(loader, spec)
    after = await settled(threads, before)
    await supply.stop()
    return before, after


async def cycle(loader: Loader, spec: VersionSpec) -> None:
    """One version comes, answers and goes."""
    loaded = await loader.load(spec, lambda _: None, gently=False)
    position, signature = loaded.signatures[0]
    [runner] = loaded.runners.copies
    await ask(runner, position, synthetic_inputs(signature, 2, seed=7), len(signature.outputs))
    await loaded.runners.stop()


async def settled(threads: int, before: Held | None) -> Held:
    """Now, or when the threads of the last unload have ended: when there are no more than `threads`."""
    ends_at = time.monotonic() + THREADS_SECONDS
    while time.monotonic() < ends_at:
        held = Held.now()
        if held.threads <= threads and (before is None or not held.left_since(before)):
            break
        await asyncio.sleep(0.05)
    return Held.now()


def main(runtime: str, folder: str, isolation: str, cycles: str) -> int:
    """Entry point; returns the exit status."""
    began = time.monotonic()
    before, after = uvloop.run(run_cycles(runtime, Path(folder), isolation, int(cycles)))
    seconds = (time.monotonic() - began) / (int(cycles) + SETTLED_CYCLES)
    left = after.left_since(before)
    growth = (after.resident_bytes - before.resident_bytes) / 2**20
    words = ", ".join(left) or "nothing"
    print(f"{runtime} {isolation}: {cycles} cycles of {seconds:.2f} s, {growth:+.1f} MiB, left behind: {words}")
    return int(bool(left))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
