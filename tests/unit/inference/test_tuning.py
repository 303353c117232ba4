"""How a copy is left running after it was warmed up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from inferway.errors import ModelFailed
from inferway_inference.runner.base import Done, LoadOrder, Outcome
from inferway_inference.samples import Samples, repeated
from inferway_inference.tensors import Array
from inferway_inference.tuning import Tuned, TuningOptions, tune
from tests.unit.inference.fake_runner import SIGNATURE, FakeRunner

ORDER = LoadOrder("fake", Path(), 0, low_priority=False)


class Machine:
    """Makes runners whose speed depends on their threads, and remembers them."""

    def __init__(self, seconds: Callable[[int, int, int], float]) -> None:
        """`seconds` by rows, callers, threads."""
        self.runners: list[FakeRunner] = []
        self._seconds = seconds

    def runner(self, threads: int = 0) -> FakeRunner:
        """One more."""
        machine = self

        class Runner(FakeRunner):
            def beside(self) -> FakeRunner:
                return machine.runner(threads=1)

        runner = Runner(lambda rows, callers: self._seconds(rows, callers, threads))
        self.runners.append(runner)
        return runner


async def tuned(machine: Machine, budget: float = 0.4, order: LoadOrder = ORDER, *, twins: bool = True) -> Tuned:
    """The first runner of the machine, tuned."""
    options = TuningOptions(budget, twins=twins, max_callers=2)
    return await tune(machine.runner(), order, [(0, SIGNATURE)], Samples({}), (1, 8, 32), options)


async def test_single_threaded_callers_side_by_side_win_where_they_do():
    """MobileNetV2 on two cores: one thread for each of two rows, and the copy with more threads goes."""
    machine = Machine(lambda rows, callers, threads: 0.004 * rows * (1.0 if threads == 1 else 0.9 * callers))
    result = await tuned(machine)

    first, twin = machine.runners
    assert (result.runner, result.callers, result.threads) == (twin, 2, 1)
    assert (first.stopped.is_set(), twin.stopped.is_set(), twin.callers) == (True, False, 2)
    assert {(one.callers, one.threads) for one in result.trials} == {(1, 0), (2, 0), (1, 1), (2, 1)}
    assert any(one.crowded for one in result.observed), "the scheduler must know how long batches take side by side"


async def test_all_threads_for_one_caller_win_where_they_do():
    """A large matrix product is quicker with all cores, and two at once get in each other's way."""
    machine = Machine(lambda rows, callers, threads: (0.004 if threads == 0 else 0.01) * callers**1.5 + 0.0001 * rows)
    result = await tuned(machine)

    assert (result.runner, result.callers, result.threads) == (machine.runners[0], 1, 0)
    assert machine.runners[1].stopped.is_set()


async def test_without_room_or_by_order_there_is_no_second_copy():
    """What does not fit twice is run as it was loaded; what the operator set is not questioned."""
    machine = Machine(lambda *_: 0.002)
    await tuned(machine, twins=False)
    await tuned(machine, order=LoadOrder("fake", Path(), 4, low_priority=False))
    assert len(machine.runners) == 2

    result = await tuned(machine, budget=0.0)
    assert (result.trials, [one.rows for one in result.observed]) == ((), [1, 8, 32])


async def test_a_model_that_fails_side_by_side_is_run_by_one_caller():
    """It can serve as it did in warm-up; a worse way is no reason to serve nothing."""

    class Jealous(FakeRunner):
        def call(
            self, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...], done: Done, traceparent: str = ""
        ) -> None:
            if self.callers > 1:
                asyncio.get_running_loop().call_soon(done, Outcome(error=ModelFailed("not two", cause="two")))
            else:
                super().call(signature, inputs, outputs, done, traceparent)

    runner = Jealous(lambda *_: 0.001)
    options = TuningOptions(0.1, twins=False, max_callers=2)
    result = await tune(runner, ORDER, [(0, SIGNATURE)], Samples({}), (1, 8), options)

    assert (result.callers, result.trials, runner.callers) == (1, (), 1)
    assert not runner.stopped.is_set()


async def test_large_batches_that_do_not_pay_are_not_tried():
    """They would cost seconds, and memory that frameworks keep."""
    machine = Machine(lambda rows, *_: 0.02 * rows)
    result = await tuned(machine, budget=0.0)

    assert [one.rows for one in result.observed] == [1, 8]


def test_recorded_rows_are_repeated_to_any_size():
    """A recording of two rows must do for a batch of five."""
    array = Array(SIGNATURE.inputs[0].datatype, (2, 1), (b"aaaabbbb",))
    five = repeated(array, 5, seed=1)

    assert (five.shape, bytes(five.parts[0])) == ((5, 1), b"bbbbaaaabbbbaaaabbbb")
