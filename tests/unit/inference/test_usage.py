"""How much quicker a process would have been alone on the machine."""

from __future__ import annotations

import os
import threading
import time

import pytest

from inferway_inference.runner.usage import MOST, Usage, undisturbed, usage, used_since

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("ran", "waited", "factor"),
    [
        pytest.param(1.0, 0.0, 1.0, id="one thread that nobody disturbed"),
        pytest.param(0.5, 0.5, 2.0, id="one thread that had half a core"),
        pytest.param(1.0, 1.0, 2.0, id="two threads that shared what was left, one core of two"),
        pytest.param(2.0, 2.0, 1.0, id="four threads that had both cores and waited for one another"),
        pytest.param(0.01, 1.0, MOST, id="next to nothing says nothing"),
        pytest.param(0.0, 0.0, 1.0, id="unknown"),
    ],
)
def test_only_what_others_took_is_reckoned_back(ran: float, waited: float, factor: float):
    """Else a busy machine would make all ways of running a model look alike."""
    used = Usage(int(ran * SECOND), int(waited * SECOND))

    assert undisturbed(used, seconds=1.0, cores=2) == pytest.approx(factor)


def test_a_thread_that_ends_takes_nothing_from_the_others():
    """Its account goes with it: a caller that left made the process seem to have run for less than no time."""
    before = {"1": Usage(5, 5), "2": Usage(900, 900)}

    assert used_since(before, {"1": Usage(8, 6), "3": Usage(2, 1)}) == Usage(5, 2)
    assert used_since(before, {}) == Usage()


def test_what_ran_half_of_the_time_was_slowed_by_two():
    """Of a thread of which nothing is known nothing is reckoned back."""
    assert (Usage(3, 3).slowed, Usage().slowed) == (2.0, 1.0)


def test_the_kernel_counts_what_all_threads_ran():
    """A runner computes in threads that are not its first."""

    def compute() -> None:
        ends_at = time.thread_time() + 0.05
        while time.thread_time() < ends_at:
            pass
        computed.set()
        stop.wait(10)

    computed, stop = threading.Event(), threading.Event()
    before = usage(os.getpid())
    thread = threading.Thread(target=compute)
    thread.start()
    try:
        assert computed.wait(10)
        after = usage(os.getpid())
    finally:
        stop.set()
        thread.join()

    assert used_since(before, after).ran_ns >= 0.03 * SECOND


def test_a_process_that_is_gone_has_no_usage():
    """A runner may crash during a trial; that is told by the call, not by its accounts."""
    assert usage(0) == {}
