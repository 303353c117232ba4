"""Several copies of a version as one: who gets a call, and what a crash of one does to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from inferway.errors import DoesNotFit, InferwayError, RunnerCrashed, VersionLoadFailed
from inferway_inference.runner.base import Outcome
from inferway_inference.runner.runner_set import RunnerSet
from tests.unit.inference.fake_runner import FakeRunner


class Capacities:
    """What a set says of its capacity."""

    def __init__(self, runners: RunnerSet) -> None:
        """Listens."""
        self.seen: list[int] = []
        self._changed = asyncio.Condition()
        self._runners = runners
        runners.on_capacity = self._note

    async def until(self, capacity: int) -> None:
        """Returns when the capacity is this."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: self._runners.capacity == capacity)

    def _note(self, capacity: int) -> None:
        self.seen.append(capacity)
        self._task = asyncio.create_task(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def ignore(outcome: Outcome) -> None:
    """Nobody waits."""


def starting(*made: FakeRunner | InferwayError) -> Callable[[], Awaitable[FakeRunner]]:
    """Starts these one after the other."""
    remaining = list(made)

    async def start() -> FakeRunner:
        one = remaining.pop(0)
        if isinstance(one, InferwayError):
            raise one
        return one

    return start


async def test_a_call_goes_to_the_least_busy_copy():
    """A copy that computes must not be waited for while another has nothing to do."""
    first, second = FakeRunner(), FakeRunner()
    runners = RunnerSet([first, second], 2, starting())
    for _ in range(4):
        runners.call(0, [], (0,), ignore)

    assert (first.outstanding, second.outstanding, runners.capacity, first.callers) == (2, 2, 4, 2)


async def test_a_crashed_copy_is_replaced_while_the_others_serve():
    """Capacity shrinks and grows; nobody is told that the version is gone."""
    first, second, third = FakeRunner(), FakeRunner(), FakeRunner()
    runners = RunnerSet([first, second], 1, starting(third))
    capacities, ends, crashes = Capacities(runners), list[InferwayError](), list[int]()
    runners.on_exit = ends.append
    runners.on_crash = lambda: crashes.append(1)
    failed: list[Outcome] = []
    runners.call(0, [], (0,), failed.append)
    first.kill()
    await capacities.until(2)
    runners.call(0, [], (0,), ignore)
    runners.call(0, [], (0,), ignore)

    assert [type(outcome.error) for outcome in failed] == [RunnerCrashed]
    assert capacities.seen == [1, 2]
    assert (second.outstanding, third.outstanding, first.stopped.is_set()) == (1, 1, True)
    assert (ends, crashes) == ([], [1])
    await runners.stop()


async def test_the_crash_of_the_last_copy_is_told_once():
    """Then it is the version that has to be loaded again."""
    runner = FakeRunner()
    runners = RunnerSet([runner], 1, starting())
    ends: list[InferwayError] = []
    runners.on_exit = ends.append
    runner.kill()

    assert ends == [runner.ended] == [runners.ended]
    with pytest.raises(RunnerCrashed):
        runners.call(0, [], (0,), ignore)


async def test_a_crash_before_anybody_listened_is_not_lost():
    """A runner may die between its warm-up and the first request."""
    runner = FakeRunner()
    runner.ended = RunnerCrashed("early")

    assert RunnerSet([runner], 1, starting()).ended is runner.ended


async def test_copies_that_do_not_fit_are_not_had_and_the_log_says_why(caplog: pytest.LogCaptureFixture):
    """Whoever asks for more copies than there is memory for must be told, and lose none of those that serve."""
    refusal = DoesNotFit("m needs about 9 MiB, and 3 MiB are free", model="m", version=1, needed_bytes=9, free_bytes=3)
    told = asyncio.Event()
    first, second = FakeRunner(), FakeRunner()
    made: list[FakeRunner | InferwayError] = [second, refusal, refusal]

    async def start() -> FakeRunner:
        if not made:
            told.set()
            await asyncio.Event().wait()
        return await starting(made.pop(0))()

    runners = RunnerSet([first], 1, start)
    runners.resize(64)
    async with asyncio.timeout(5):
        await told.wait()

    assert list(runners.copies) == [first, second]
    assert [record.__dict__["reason"] for record in caplog.records if "cause" in record.__dict__] == [
        "DOES_NOT_FIT"
    ] * 2
    await runners.stop()


async def test_a_copy_that_cannot_be_loaded_is_tried_again():
    """A full machine may have room a moment later."""
    late = FakeRunner()
    runners = RunnerSet([FakeRunner()], 1, starting(VersionLoadFailed("no room", cause="memory"), late))
    capacities = Capacities(runners)
    runners.resize(2)
    await capacities.until(2)

    await runners.stop()
    assert late.stopped.is_set()


async def test_a_copy_leaves_after_its_last_answer():
    """Fewer copies must not cost anybody an answer."""
    first, second = FakeRunner(), FakeRunner()
    runners = RunnerSet([first, second], 1, starting())
    answered: list[Outcome] = []
    runners.call(0, [], (0,), answered.append)
    runners.call(0, [], (0,), answered.append)
    runners.resize(1)
    assert not second.stopped.is_set()
    first.finish()
    second.finish()
    async with asyncio.timeout(5):
        await second.stopped.wait()

    assert [outcome.error for outcome in answered] == [None, None]
    assert not first.stopped.is_set()
    assert runners.capacity == 1
    await runners.stop()


async def test_the_copy_that_computes_for_longest_is_the_one_that_is_killed():
    """A call that hangs must not take those of its neighbours along."""
    first, second = FakeRunner(), FakeRunner()
    runners = RunnerSet([first, second], 1, starting(FakeRunner()))
    runners.call(0, [], (0,), ignore)
    runners.call(0, [], (0,), ignore)
    first.finish()
    runners.kill_oldest()

    assert (first.ended, second.ended is None) == (None, False)
    await runners.stop()
