"""A load takes what others leave, but not for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferway_inference.runner.priority import LOADING_NICENESS, ProcessPriority, may_raise_again

NORMAL, IDLE, NICE = (os.SCHED_OTHER, 0), (os.SCHED_IDLE, 0), (os.SCHED_OTHER, LOADING_NICENESS)

pytestmark = pytest.mark.skipif(not may_raise_again(), reason="who may not raise a priority again does not lower it")


@pytest.fixture
def process() -> Iterator[ProcessPriority]:
    """This one's, that loses its patience soon."""
    priority = ProcessPriority(patience_seconds=0.05)
    yield priority
    priority.restore()


def test_every_thread_takes_what_others_leave_and_a_share_after_a_while(process: ProcessPriority) -> None:
    """On a machine that is busy all the time a version would never be loaded."""
    process.lower()
    lowered = of_all_threads()
    patience = process._patience
    assert patience is not None
    patience.join(timeout=30)

    assert lowered == {IDLE, NORMAL}, "the thread that waits is normal, or it would wait itself"
    assert of_all_threads() == {NICE}


def test_who_serves_is_normal_whatever_was_waited_for(process: ProcessPriority) -> None:
    """A timer that fires as a version is promoted must not take its share of the machine."""
    process.lower()
    patience = process._patience
    assert patience is not None
    process.restore()
    patience.join(timeout=30)
    process._lose_patience()

    assert of_all_threads() == {NORMAL}


def of_all_threads() -> set[tuple[int, int]]:
    threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
    return {(os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)) for thread in threads}
