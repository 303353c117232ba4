"""CPU priority of a runner: low while it loads beside others that serve, normal once it serves itself.

A process that loads begins with SCHED_IDLE: to whoever wakes up, a processor that has nothing but such work is a free
one, while beside a merely nice process it would wait for another to become free. On a machine without a moment to spare
work of that class would never be done, so after a while it gets the small share that niceness gives.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOADING_NICENESS = 5
PATIENCE_SECONDS = 10.0
"""How long a process has only what nobody else wants."""
_CAP_SYS_NICE = 23


def may_raise_again() -> bool:
    """Whether this process could undo a lowered priority: with CAP_SYS_NICE, or by its limit."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return bool(int(capabilities, 16) >> _CAP_SYS_NICE & 1) or soft_limit >= 20  # noqa: PLR2004 - 20 - nice 0


def lower_thread() -> None:
    """Lowers the priority of this thread and of all it will start; does nothing if that would be for good.

    By niceness alone: what it starts may be there to serve, and stays as it is.
    """
    if may_raise_again():
        os.setpriority(os.PRIO_PROCESS, 0, LOADING_NICENESS)


class ProcessPriority:
    """Of all threads of this process."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Normal, so far."""
        self._patience_seconds = patience_seconds
        self._changing = threading.Lock()
        self._patience: threading.Timer | None = None

    def lower(self) -> None:
        """To nothing but what others leave, then to little; does nothing if that would be for good."""
        if not may_raise_again():
            return
        with self._changing:
            self._end_patience()
            _of_every_thread(_idle)
            timer = self._patience = threading.Timer(self._patience_seconds, self._lose_patience)
            timer.daemon = True
            timer.start()
            _normal(timer.native_id or 0)  # it, too, would have to wait

    def be_nice(self) -> None:
        """To little, for good if it may not be raised again."""
        with self._changing:
            self._end_patience()
            _of_every_thread(_nice)

    def restore(self) -> None:
        """To normal."""
        with self._changing:
            self._end_patience()
            _of_every_thread(_normal)

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        with self._changing:
            if self._patience is threading.current_thread():
                _of_every_thread(_nice)


def _idle(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _nice(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, thread, LOADING_NICENESS)


def _normal(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, thread, 0)


def _of_every_thread(change: Callable[[int], None]) -> None:
    """On Linux class and niceness are a thread's own, and inherited."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError, PermissionError):
            change(int(thread.name))


PROCESS = ProcessPriority()
"""This one's."""
