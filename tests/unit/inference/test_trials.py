"""Which way of running a version wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from inferway.errors import ModelFailed
from inferway_inference.runner.base import Outcome
from inferway_inference.runner.usage import Usage
from inferway_inference.samples import synthetic_inputs
from inferway_inference.tensors import Array
from inferway_inference.trials import Trial, Turn, Way, choose, run_trials
from tests.unit.inference.fake_runner import SIGNATURE, FakeRunner

BATCHES = {rows: synthetic_inputs(SIGNATURE, rows, seed=1) for rows in (1, 8)}


def batching_pays(rows: int, callers: int) -> float:
    """A model that is mostly overhead: as a medium perceptron."""
    return 0.004 * callers + 0.0001 * rows


def callers_pay(rows: int, callers: int) -> float:
    """A model whose rows cost what they cost: as MobileNetV2 with one thread."""
    return 0.004 * rows


@pytest.mark.parametrize(("seconds", "callers", "rows"), [(batching_pays, 1, 8), (callers_pay, 2, 1)])
async def test_opposite_models_get_opposite_settings(seconds: Callable[[int, int], float], callers: int, rows: int):
    """Nobody tells which is which; the clock does."""
    runner = FakeRunner(seconds)
    trials = await run_trials([Way(runner, 1, 1), Way(runner, 1, 2)], 0, BATCHES, 0.6)
    best = choose(trials)

    assert best is not None
    assert best.callers == callers
    rates = {trial.rows: trial.rows_per_second for trial in trials if trial.way == best}
    if rows > 1:
        assert rates[8] > 3 * rates[1]


async def test_trials_end_with_their_budget():
    """A slow model is loaded as it is rather than not at all; sizes that take too long are not tried."""
    runner = FakeRunner(lambda rows, _: 0.05 * rows)
    trials = await run_trials([Way(runner, 1, 1)], 0, BATCHES, 0.2)

    assert [trial.rows for trial in trials] == [1]
    assert runner.outstanding == 0


async def test_a_call_that_fails_ends_the_trials():
    """A model that refuses its samples cannot be measured, and says so once."""

    class Refusing(FakeRunner):
        def _computed(self, inputs: object, done: Callable[[Outcome], None], seconds: float) -> None:
            self._computing -= 1
            done(Outcome(error=ModelFailed("no", cause="no")))
            self._compute()

    with pytest.raises(ModelFailed):
        await run_trials([Way(Refusing(lambda *_: 0.001), 1, 1)], 0, BATCHES, 0.2)


async def test_of_ways_that_are_about_as_good_the_one_with_fewer_callers_wins():
    """Noise must not cost threads."""
    runner = FakeRunner()
    one, two = Way(runner, 0, 1), Way(runner, 0, 2)
    trials = [Trial(one, 1, 95.0, 0.01), Trial(two, 1, 100.0, 0.02)]
    assert choose(trials) is one

    trials[0].rows_per_second = 80.0
    assert choose(trials) is two


async def test_on_a_busy_machine_callers_side_by_side_win_if_they_are_not_far_behind():
    """One caller with all cores was overrated there now and then, and the version did half of what it could."""
    runner = FakeRunner()
    one, two, slow = Way(runner, 0, 1), Way(runner, 1, 2), Way(runner, 0, 2)
    trials = [Trial(one, 8, 110.0, 0.3, slowed=2.5), Trial(two, 1, 91.0, 0.03, slowed=1.3)]
    assert choose(trials) is two
    assert choose([*trials, Trial(slow, 1, 95.0, 0.02, slowed=2.0)]) is two, "with all cores each is overrated, too"

    trials[1].slowed = 1.05
    assert choose(trials) is one, "one way that was not disturbed shows what the machine can do"

    trials[1].slowed, trials[1].rows_per_second = 1.3, 70.0
    assert choose(trials) is one


async def test_of_equal_ways_the_one_that_is_quickest_alone_wins():
    """With little load callers feel the time of a single row, not the throughput."""
    runner = FakeRunner()
    many, one = Way(runner, 0, 1), Way(runner, 1, 1)

    assert choose([Trial(one, 1, 100.0, 0.010), Trial(many, 1, 100.0, 0.006)]) is many
    assert choose([]) is None


async def test_a_trial_has_the_process_to_itself():
    """Copies in one process share its callers: those of the other copy would compute half of the calls tried."""

    class Sharing(FakeRunner):
        others_callers = 0

        def _compute(self) -> None:
            self.others_callers = max(self.others_callers, *(one.callers for one in runners if one is not self))
            super()._compute()

    runners = [Sharing(lambda *_: 0.001), Sharing(lambda *_: 0.001)]
    await run_trials([Way(runner, 1, callers) for runner in runners for callers in (1, 2)], 0, BATCHES, 0.2)

    assert [runner.others_callers for runner in runners] == [0, 0]


async def test_a_lucky_look_does_not_decide():
    """A few calls may be quick by chance; what counts is the turns, which are long enough to tell."""

    class Lucky(FakeRunner):
        calls = 0

        def _computed(self, inputs: Sequence[Array], done: Callable[[Outcome], None], seconds: float) -> None:
            self.calls += 1
            super()._computed(inputs, done, seconds)

    runner = Lucky(lambda *_: 0.0001 if runner.calls < 3 else 0.005)
    [trial] = await run_trials([Way(runner, 1, 1)], 0, {1: BATCHES[1]}, 0.5)

    assert trial.rows_per_second < 250


@pytest.mark.parametrize(
    ("callers", "took", "used", "rate"),
    [
        pytest.param(2, 0.015, Usage(150, 0), 2 / 0.015, id="nobody else was there"),
        pytest.param(2, 0.030, Usage(150, 150), 2 / 0.015, id="others had half of the machine"),
        pytest.param(1, 0.015, Usage(150, 0), 1 / 0.015, id="one caller leaves a core idle"),
        pytest.param(2, 0.030, Usage(300, 300), 2 / 0.030, id="callers that disturb one another keep what that costs"),
    ],
)
async def test_of_long_calls_only_the_models_time_counts(callers: int, took: float, used: Usage, rate: float):
    """On a busy machine the front waits for a processor while callers idle; MobileNetV2 was given one caller for that.

    All turns last ten times as long as ten calls take.
    """
    turn = Turn(Way(FakeRunner(), 1, callers), 0, (), 0.0, began=0.0, ended=10 * took)
    turn.seconds, turn.in_time = [took] * 10, 10

    milliseconds = Usage(*(1_000_000 * each for each in used))
    assert turn.calls_per_second(milliseconds, 10 * took, cores=2) == pytest.approx(rate)


async def test_of_short_calls_the_time_between_them_counts():
    """A tiny model is mostly hops between processes: by the model's time alone two callers would seem twice as good."""
    turn = Turn(Way(FakeRunner(), 1, 2), 0, (), 0.0, began=0.0, ended=0.01)
    turn.seconds, turn.in_time = [0.00002] * 100, 100

    assert turn.calls_per_second(Usage(10_000_000, 0), 0.01, cores=2) == pytest.approx(10_000)
