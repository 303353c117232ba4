"""What the system tells of memory: of this process, and of the container it is in."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


class ContainerMemory(NamedTuple):
    """Of all processes in the container."""

    limit_bytes: int
    used_bytes: int
    """Without files that are only cached."""


def container_memory(cgroup: Path = CGROUP) -> ContainerMemory | None:
    """By cgroup version 2, or 1; None if there is no limit, or none that can be read."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit_bytes = int((cgroup / limit).read_text(encoding="ascii"))
            used_bytes = int((cgroup / used).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        return ContainerMemory(limit_bytes, used_bytes - _statistic((cgroup / limit).parent, cached))
    return None


def resident_bytes(pid: str = "self", proc: Path = PROC) -> int:
    """What a process has in memory; 0 if there is none."""
    try:
        return int((proc / pid / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def used_share(limit_bytes: int, proc: Path = PROC, cgroup: Path = CGROUP) -> Callable[[], float]:
    """Returns what reads how much is used: of the process's own limit, or, if that is 0, of its container's.

    Without either the answer is 0.
    """

    def of_container() -> float:
        memory = container_memory(cgroup)
        return 0.0 if memory is None else memory.used_bytes / memory.limit_bytes

    if limit_bytes:
        return lambda: resident_bytes(proc=proc) / limit_bytes
    return of_container if container_memory(cgroup) is not None else lambda: 0.0


def give_back_memory() -> None:
    """Lets the C library return what it keeps of freed memory, where it can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _statistic(folder: Path, name: str) -> int:
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
