"""How much memory this worker may still take, and whether a version fits into it.

What is free is the least of three: what the machine has (`MemAvailable`), what the container may still take (cgroup
version 2 or 1; files that are only cached do not count), and what the operator gave the worker and its processes. A
part of it is kept in reserve. Versions being loaded count with what they are expected to need until they are there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferway.errors import DoesNotFit
from inferway.names import parse_version
from inferway_chassis.memory_figures import CGROUP, PROC, container_memory, resident_bytes
from inferway_inference.versions import VersionSpec

MIB = 1024 * 1024
RUNTIME_BYTES = {"tensorflow": 450 * MIB, "onnx": 128 * MIB, "litert": 96 * MIB}
"""What a process takes before its first weights, measured; less is taken for runtimes that are not here."""
OTHER_RUNTIME_BYTES = 48 * MIB
"""Of other runtimes, and of a version that shares its process."""
ARTIFACT_FACTOR = 2.0
"""Memory for each byte of files: weights are held once as read and once as the framework wants them."""
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """What the operator permits."""

    limit_bytes: int = 0
    """For the worker and all its processes together; 0 means what the machine or the container has."""
    reserve_bytes: int = 256 * MIB
    """Kept free for requests and for whoever else is there."""


class MemoryBudget:
    """Of one worker."""

    def __init__(self, limits: MemoryLimits, proc: Path = PROC, cgroup: Path = CGROUP) -> None:
        """`proc` and `cgroup` are where the system tells its figures."""
        self._limits, self._proc, self._cgroup = limits, proc, cgroup
        self._reserved = 0
        self._measured = OrderedDict[tuple[str, str], int]()
        """By digest and isolation: what a version took that was loaded before."""

    def free_bytes(self) -> int:
        """What may still be taken; negative if too much is taken already."""
        found = [self._machine(), self._container(), self._own()]
        least = min(free for free in found if free is not None)
        return least - self._limits.reserve_bytes - self._reserved

    def needed_bytes(self, spec: VersionSpec) -> int:
        """What one copy of the version takes: as its publisher says, as it was measured here, or as files suggest."""
        measured = self._measured.get((spec.manifest.digest, spec.isolation))
        artifacts = sum(artifact.size_bytes for artifact in spec.manifest.artifacts)
        alone = spec.isolation == "process"
        runtime = RUNTIME_BYTES.get(spec.runtime, OTHER_RUNTIME_BYTES) if alone else OTHER_RUNTIME_BYTES
        return spec.memory_bytes or measured or int(runtime + ARTIFACT_FACTOR * artifacts)

    def has_room_for_spare(self, runtime: str) -> bool:
        """Whether a process with nothing but the framework leaves room for as much again."""
        return self.free_bytes() > 2 * RUNTIME_BYTES.get(runtime, OTHER_RUNTIME_BYTES)

    def learn(self, spec: VersionSpec, memory_bytes: int) -> None:
        """A copy of the version took so much."""
        key = (spec.manifest.digest, spec.isolation)
        self._measured[key] = max(memory_bytes, self._measured.pop(key, 0))
        while len(self._measured) > _REMEMBERED:
            self._measured.popitem(last=False)

    @contextmanager
    def reserved(self, spec: VersionSpec, copies: int = 1) -> Iterator[None]:
        """Holds memory for copies of the version while they are loaded; raises DoesNotFit, with the figures."""
        needed, free = copies * self.needed_bytes(spec), self.free_bytes()
        if needed > free:
            model, version = parse_version(spec.name)
            raise DoesNotFit(
                f"{spec.name} needs about {needed // MIB} MiB, and {max(0, free) // MIB} MiB are free on this worker",
                model=model,
                version=version,
                needed_bytes=needed,
                free_bytes=max(0, free),
            )
        self._reserved += needed
        try:
            yield
        finally:
            self._reserved -= needed

    def _machine(self) -> int:
        lines = (self._proc / "meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))

    def _container(self) -> int | None:
        """None if there is no limit, or none that can be read."""
        memory = container_memory(self._cgroup)
        return None if memory is None else memory.limit_bytes - memory.used_bytes

    def _own(self) -> int | None:
        if not self._limits.limit_bytes:
            return None
        return self._limits.limit_bytes - sum(resident_bytes(pid, self._proc) for pid in ("self", *self._children()))

    def _children(self) -> list[str]:
        found: list[str] = []
        for thread in (self._proc / "self" / "task").iterdir():
            try:
                found += (thread / "children").read_text(encoding="ascii").split()
            except OSError:
                continue
        return found
