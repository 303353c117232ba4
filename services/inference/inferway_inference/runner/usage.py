"""How much of the processors a process had, and how much more it would have taken.

The kernel counts for each thread how long it ran and how long it waited although it could have run
(Documentation/scheduler/sched-stats.rst). From both follows what a process would reach on an idle machine.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOST = 4.0
"""A share that is smaller still says nothing."""


class Usage(NamedTuple):
    """Of all threads of a process since they began, in nanoseconds."""

    ran_ns: int = 0
    waited_ns: int = 0


def usage(pid: int) -> Usage:
    """Of process `pid`; zero where the kernel does not tell."""
    ran_ns = waited_ns = 0
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError, ValueError):
                ran, waited, _ = (thread / "schedstat").read_text(encoding="ascii").split()
                ran_ns, waited_ns = ran_ns + int(ran), waited_ns + int(waited)
    return Usage(ran_ns, waited_ns)


def undisturbed(before: Usage, after: Usage, seconds: float, cores: int) -> float:
    """By which factor a process would have been quicker in these `seconds` without others on its `cores`.

    On an idle machine as many of its threads would have run as could have, up to the number of cores.
    """
    ran, waited = (max(0.0, (late - early) / 1e9) for early, late in zip(before, after, strict=True))
    if not ran:
        return 1.0
    return min(max(1.0, min(cores * seconds, ran + waited) / ran), MOST)
