"""How much of the processors a process had, and how much more it would have taken.

The kernel counts for each thread how long it ran and how long it waited although it could have run
(Documentation/scheduler/sched-stats.rst). From both follows what a process would reach on an idle machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOST = 4.0
"""A share that is smaller still says nothing."""


class Usage(NamedTuple):
    """Of one thread since it began, or of a process over some time, in nanoseconds."""

    ran_ns: int = 0
    waited_ns: int = 0

    @property
    def slowed(self) -> float:
        """How many times as long something took as it would have had it run whenever it could."""
        return (self.ran_ns + self.waited_ns) / self.ran_ns if self.ran_ns else 1.0


def usage(pid: int) -> dict[str, Usage]:
    """Of the threads of process `pid`; empty where the kernel does not tell."""
    threads: dict[str, Usage] = {}
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError, ValueError):
                ran, waited, _ = (thread / "schedstat").read_text(encoding="ascii").split()
                threads[thread.name] = Usage(int(ran), int(waited))
    return threads


def used_since(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> Usage:
    """Of all threads together. Of those that ended meanwhile nobody knows; they must not count as less than nothing."""
    ran_ns = sum(own.ran_ns - before.get(thread, Usage()).ran_ns for thread, own in after.items())
    waited_ns = sum(own.waited_ns - before.get(thread, Usage()).waited_ns for thread, own in after.items())
    return Usage(ran_ns, waited_ns)


def undisturbed(used: Usage, seconds: float, cores: int) -> float:
    """By which factor a process would have been quicker in these `seconds` without others on its `cores`.

    On an idle machine as many of its threads would have run as could have, up to the number of cores.
    """
    if not used.ran_ns:
        return 1.0
    ran, wanted = used.ran_ns / 1e9, (used.ran_ns + used.waited_ns) / 1e9
    return min(max(1.0, min(cores * seconds, wanted) / ran), MOST)
