"""CPU priority of a runner: low while it loads beside others that serve, normal once it serves itself."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

LOADING_NICENESS = 5
_CAP_SYS_NICE = 23


def may_raise_again() -> bool:
    """Whether this process could undo a lowered priority: with CAP_SYS_NICE, or by its limit."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return bool(int(capabilities, 16) >> _CAP_SYS_NICE & 1) or soft_limit >= 20  # noqa: PLR2004 - 20 - nice 0


def lower_thread() -> None:
    """Lowers the priority of this thread and of all it will start; does nothing if that would be for good."""
    if may_raise_again():
        os.setpriority(os.PRIO_PROCESS, 0, LOADING_NICENESS)


def lower_process() -> None:
    """Lowers the priority of the whole process; does nothing if that would be for good."""
    if may_raise_again():
        _set_all(LOADING_NICENESS)


def restore() -> None:
    """Gives the whole process normal priority again."""
    _set_all(0)


def _set_all(niceness: int) -> None:
    """Of every thread: on Linux niceness is a thread's own, and inherited."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError, PermissionError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)
