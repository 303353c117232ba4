"""Copies show how another version would have answered, and nobody who waits for an answer can tell."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import NamedTuple

import pytest

from inferway.datatypes import Datatype
from inferway.errors import (
    Cancelled,
    DeadlineExceeded,
    InferwayError,
    InvalidField,
    MemoryPressure,
    ModelFailed,
    QueueFull,
    RunnerCrashed,
    WorkerLost,
)
from inferway_gateway.envelope import Envelope
from inferway_gateway.lane import Flight
from inferway_gateway.rollouts.copier import (
    GATHER_SECONDS,
    MAX_BYTES,
    MAX_COPIES,
    PAUSE_SECONDS,
    TURN_SECONDS,
    CopyObserver,
)
from inferway_gateway.rollouts.mirror import MAX_COPIES_OF_ONE, SHADOW
from inferway_gateway.routing import bucket_of
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.state import StatePlan, StateSpec
from inferway_gateway.tensors import Answer, Tensor, WorkerTiming
from tests.unit.gateway.bench import V1
from tests.unit.gateway.builders import ECHO, FakeLoop, envelope, version
from tests.unit.gateway.mirror_bench import SIDES, V2, MirrorBench, answered, copier, plan

FINE = answered(0.1, 0.9)
BROKEN = ModelFailed("broken here")


async def test_a_copy_is_sent_when_the_user_has_the_answer_and_not_before() -> None:
    """The user's answer must not wait for anything that is done for the rollout."""
    bench = MirrorBench()
    flight = bench.send()
    bench.end(flight, FINE)
    before = bench.copies()
    bench.turn()

    assert flight.result.done()
    assert before == []
    assert len(bench.copies()) == 1


async def test_a_copy_asks_the_other_version_the_same_and_comes_last() -> None:
    """Workers serve it when nobody else waits, and can tell it from a user's request."""
    bench = MirrorBench()
    flight = bench.send()
    asked = flight.envelope.inputs
    bench.now = 0.25
    bench.end(flight, FINE)
    bench.turn()
    (copy,) = bench.sent

    assert (copy.version.name, copy.inputs, copy.signature) == (V2, asked, "serving_default")
    assert (copy.caller.criticality, copy.caller.tenant, copy.arm, copy.propensity) == (4, SHADOW, SHADOW, 0)
    assert copy.prediction_id == f"p-{SHADOW}"
    assert copy.received_at == 0.25
    assert copy.deadline - copy.received_at == pytest.approx(2.0), "twice what the user gave it"
    assert bench.admitted == [4], "memory is asked as for any request of its class"


@pytest.mark.parametrize(("budget", "seconds"), [(0.1, 0.2), (4.0, 8.0), (7.0, 10.0), (60.0, 60.0)])
async def test_a_copy_has_twice_the_time_but_not_for_ever(budget: float, seconds: float) -> None:
    """It is served last; and a model that takes a minute needs it for copies, too."""
    bench = MirrorBench()
    flight = bench.send()
    flight.envelope.deadline = budget
    bench.end(flight, FINE)
    bench.turn()
    (copy,) = bench.sent

    assert copy.deadline - copy.received_at == pytest.approx(seconds)


async def test_the_error_of_a_copy_is_nobodys_business() -> None:
    """asyncio complains of errors that nobody looks at, and operators would look for a cause."""
    complaints = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    bench = MirrorBench()
    bench.pair(FINE, BROKEN)
    await asyncio.sleep(0)
    del bench
    gc.collect()

    assert complaints == []


async def test_the_same_units_are_copied_everywhere_whatever_arm_they_have() -> None:
    """Two gateways copy the same users, and of both halves of them alike."""
    units = [f"user-{number}" for number in range(2000)]
    copied = []
    for bench in (MirrorBench(plan(sample=3000)), MirrorBench(plan(sample=3000))):
        for bench.unit in units:
            bench.end(bench.send(prediction_id=bench.unit), FINE)
            bench.turn()
            for copy in bench.copies():
                bench.end(copy, FINE)
        copied.append({each.prediction_id.removesuffix(f"-{SHADOW}") for each in bench.sent})

    assert copied[0] == copied[1]
    assert len(copied[0]) == pytest.approx(600, abs=80)
    assert len({unit for unit in copied[0] if bucket_of("salt", unit) < 5000}) == pytest.approx(300, abs=60)


async def test_requests_without_a_unit_are_sampled_one_by_one() -> None:
    """Most models are asked by nobody in particular."""
    bench = MirrorBench(plan(sample=5000))
    for number in range(200):
        bench.end(bench.send(prediction_id=f"request-{number}"), FINE)
    bench.turn()

    assert len(bench.sent) == pytest.approx(100, abs=35)


async def test_what_the_mirrored_version_answers_itself_is_not_copied() -> None:
    """It would be compared with itself."""
    bench = MirrorBench()
    bench.end(bench.send(V2), FINE)
    bench.turn()

    assert bench.sent == []


async def test_sessions_are_not_copied() -> None:
    """Their state would have to be doubled, too."""
    bench = MirrorBench()
    spec = StateSpec("x", "y", Datatype.FP32, (4,), b"\0" * 16)
    bench.versions[V2] = replace(version(2), stateful={"serving_default": StatePlan(ECHO, (spec,))})
    bench.end(bench.send(), FINE)
    bench.turn()

    assert bench.sent == []


@pytest.mark.parametrize(
    "signatures",
    [
        {"other": ECHO},
        {"serving_default": Signature("serving_default", (TensorSpec("z", Datatype.FP32, (-1, 4)),), ECHO.outputs)},
        {"serving_default": Signature("serving_default", (TensorSpec("x", Datatype.FP32, (-1, 5)),), ECHO.outputs)},
    ],
    ids=["no such signature", "another input", "another shape"],
)
async def test_what_the_mirrored_version_cannot_be_asked_is_not_copied(signatures: dict[str, Signature]) -> None:
    """A version may take what the other does not: that is no error of either."""
    bench = MirrorBench()
    bench.versions[V2] = replace(version(2), signatures=signatures)
    bench.end(bench.send(), FINE)
    bench.turn()

    assert bench.sent == []


async def test_a_version_that_is_gone_gets_no_copies() -> None:
    """A snapshot may take it away before it ends the rollout."""
    bench = MirrorBench()
    del bench.versions[V2]
    bench.end(bench.send(), FINE)
    bench.turn()

    assert bench.sent == []


@pytest.mark.parametrize(
    "error", [InvalidField("bad"), Cancelled("gone"), QueueFull("full"), DeadlineExceeded("late", stage="queue")]
)
async def test_errors_that_are_no_versions_fault_are_not_copied(error: InferwayError) -> None:
    """They say nothing about a version, and to copy what is shed would double an overload."""
    bench = MirrorBench()
    bench.end(bench.send(), error)
    bench.turn()

    assert bench.sent == []


async def test_two_answers_are_compared() -> None:
    """What shadowing is for: would users have got the same?"""
    bench = MirrorBench()
    bench.pair(answered(0.1, 0.9), answered(0.2, 0.8))
    bench.pair(answered(0.1, 0.9), answered(0.8, 0.2))
    figures, output = bench.figures, bench.figures.outputs["y"]

    assert (figures.pairs, figures.agreeing, figures.primary_errors, figures.mirrored_errors) == (2, 1, 0, 0)
    assert (output.pairs, output.rows, output.same_top_rows) == (2, 2, 1)
    assert output.max_absolute == pytest.approx(0.7)
    assert sum(figures.primary_latency.counts.values()) == 2
    assert max(figures.primary_latency.counts) > max(figures.mirrored_latency.counts), "half a second and a quarter"
    assert [round(example.distance, 3) for example in figures.examples.worst] == [0.7, 0.1]
    assert (bench.copier.copies, bench.copier.byte_count) == (0, 0)


async def test_after_the_switch_the_stable_version_is_still_the_reference() -> None:
    """The candidate answers users then, and is still what is judged."""
    bench = MirrorBench()
    bench.mirrors.follow(plan(V1), SIDES)
    bench.end(bench.send(V2), answered(2.0))
    bench.turn()
    bench.end(bench.copies(V1)[0], answered(1.0))
    bench.turn()
    after = bench.mirrors.figures[1]

    assert (after.primary_version, after.mirrored_version) == (V2, V1)
    assert after.outputs["y"].max_relative == pytest.approx(1.0), "twice the stable answer, not half the candidate's"


async def test_only_one_of_two_failing_is_counted_against_it() -> None:
    """Pairs that only one side fails are what errors are judged by."""
    bench = MirrorBench()
    bench.pair(BROKEN, FINE)
    bench.pair(FINE, BROKEN)
    bench.pair(FINE, BROKEN)
    figures = bench.figures

    assert (figures.pairs, figures.agreeing, figures.primary_errors, figures.mirrored_errors) == (3, 0, 1, 2)
    assert not figures.primary_latency.counts


async def test_two_failures_are_no_pair() -> None:
    """There is nothing to compare: neither must an outage of both hold a rollout up, nor help it on."""
    bench = MirrorBench()
    bench.pair(BROKEN, BROKEN)

    assert (bench.figures.pairs, bench.figures.dropped, bench.copier.copies) == (0, 0, 0)


async def test_a_user_who_gave_too_little_time_is_no_evidence_if_the_copy_took_as_long() -> None:
    """The copy has twice the time, and that must not make it look better."""
    late = DeadlineExceeded("late", stage="worker")
    for seconds, primary_errors in ((0.9, 1), (1.1, 0)):
        bench = MirrorBench()
        bench.end(bench.send(), late)
        bench.turn()
        bench.now += seconds
        bench.end(bench.copies()[0], FINE)
        bench.turn()

        assert bench.figures.primary_errors == primary_errors


async def test_a_copy_that_is_shed_is_dropped_and_no_error() -> None:
    """Copies are the first to be shed, by design: that says nothing about the version."""
    bench = MirrorBench()
    bench.pair(FINE, QueueFull("full"))

    assert (bench.figures.pairs, bench.figures.mirrored_errors, bench.figures.dropped) == (0, 0, 1)


@pytest.mark.parametrize(
    ("error", "seconds", "errors"),
    [
        (WorkerLost("gone"), 0.25, 0),
        (DeadlineExceeded("it waited too long", stage="worker"), 1.9, 0),
        (DeadlineExceeded("it was computed for too long", stage="worker"), 2.0, 1),
        (RunnerCrashed("crashed"), 0.25, 1),
    ],
)
async def test_what_users_would_not_have_met_is_no_error_of_a_copy(
    error: InferwayError, seconds: float, errors: int
) -> None:
    """A worker that is restarted, or is busy with users, would roll a sound candidate back: theirs are repeated."""
    bench = MirrorBench()
    bench.end(bench.send(), FINE)
    bench.turn()
    bench.now += seconds
    bench.end(bench.copies()[0], error)
    bench.turn()

    assert (bench.figures.mirrored_errors, bench.figures.dropped) == (errors, 1 - errors)


async def test_copies_are_dropped_while_memory_is_short() -> None:
    """Users' requests have it first."""

    def refuse(criticality: int) -> None:
        raise MemoryPressure(f"none for {criticality}")

    full = copier(_unsent, refuse)
    assert not full.take(_Copy(1), 4)
    assert full.copies == 0


async def test_so_many_copies_are_kept_and_newer_ones_dropped() -> None:
    """A version that does not answer must cost what was agreed upon, and no more."""
    bench = MirrorBench()
    for _ in range(MAX_COPIES_OF_ONE + 20):
        bench.end(bench.send(), FINE)
    bench.turn()
    dropped = bench.figures.dropped
    for copy in bench.copies():
        bench.end(copy, FINE)
    bench.turn()
    bench.pair(FINE, FINE)

    assert dropped == 20
    assert len(bench.sent) == MAX_COPIES_OF_ONE + 1, "there is room again"
    assert bench.figures.pairs == MAX_COPIES_OF_ONE + 1


async def test_so_many_copies_of_all_versions_are_kept_and_newer_ones_dropped() -> None:
    """However many rollouts there are."""
    idle = copier(_unsent)
    taken = [idle.take(_Copy(1), 4) for _ in range(MAX_COPIES + 1)]

    assert taken == [True] * MAX_COPIES + [False]


async def test_while_there_is_no_room_answers_are_not_even_read() -> None:
    """Reading copies them, before their users get them; and a version that hangs leaves no room for long."""
    bench = MirrorBench()
    for _ in range(MAX_COPIES_OF_ONE):
        bench.end(bench.send(), FINE)
    flight = bench.send()
    bench.end(flight, _Unreadable())

    assert flight.result.done()
    assert bench.figures.dropped == 1


async def test_so_many_bytes_are_kept_and_no_more() -> None:
    """A thousand copies of images would be gigabytes."""
    idle = copier(_unsent)
    large = MAX_BYTES // 4 + 1
    taken = [idle.take(_Copy(large), 4) for _ in range(5)]

    assert taken == [True, True, True, False, False]
    assert idle.byte_count == 3 * large
    assert idle.take(_Copy(large - 10), 4), "a smaller one still fits"


async def test_both_answers_are_counted_into_the_bytes() -> None:
    """They wait until they are compared."""
    bench = MirrorBench()
    bench.end(bench.send(), answered(*range(100)))

    assert bench.copier.byte_count == 16 + 2 * 400


async def test_a_copy_is_never_repeated_and_takes_nothing_from_the_budget_for_repeats() -> None:
    """Retries are for somebody who waits."""
    bench = MirrorBench()
    bench.pair(FINE, WorkerLost("gone"))

    assert len(bench.sent) == 1
    assert bench.outcomes.of("echo", "v1", V1).retries == 0


async def test_copies_are_in_no_count_of_the_endpoint() -> None:
    """What operators are called for is what users met."""
    bench = MirrorBench()
    bench.pair(FINE, BROKEN)

    assert {key.arm: arm.by_code for key, arm in bench.outcomes.arms.items()} == {"v1": {"OK": 1}}


async def test_a_copy_that_crashes_a_runner_convicts_nobody() -> None:
    """It was not sent alone, and whoever asks the same of the version tomorrow must not be refused for it."""
    bench = MirrorBench()
    for _ in range(3):
        bench.pair(FINE, RunnerCrashed("crashed"))
    user = bench.send(V2)

    assert bench.figures.mirrored_errors == 3
    assert not bench.dispatcher.guard.known
    assert user.suspicion is None


async def test_a_copy_of_what_crashed_a_runner_for_a_user_is_not_in_his_way() -> None:
    """Suspects go one at a time: one that nobody waits for would keep those waiting who are waited for."""
    bench = MirrorBench()
    bench.fail(bench.send(V2), RunnerCrashed("crashed"))
    known = len(bench.dispatcher.guard.known)
    bench.end(bench.send(), FINE)
    bench.turn()

    assert known == 1
    assert [copy.suspicion for copy in bench.copies()] == [None]


async def test_a_version_that_is_ready_nowhere_fails_its_copies_and_nobody_else() -> None:
    """A refusal at once must end the copy as one that comes later does."""
    bench = MirrorBench()
    bench.dispatcher.set_ready(bench.lanes[V2], [])
    bench.versions[V2] = replace(version(2), unloaded=True)
    bench.end(bench.send(), FINE)
    bench.turn()

    assert (len(bench.sent), bench.copier.copies) == (1, 0)
    assert bench.codes() == {"OK": 1}


async def test_figures_go_on_when_the_plan_comes_back() -> None:
    """Counts are cumulative: a registry that hears less than before would think that somebody has forgotten."""
    bench = MirrorBench()
    bench.pair(FINE, FINE)
    bench.mirrors.follow(None, SIDES)
    bench.end(bench.send(), FINE)
    bench.turn()
    paused = len(bench.sent)
    bench.mirrors.follow(plan(), SIDES)
    bench.pair(FINE, FINE)

    assert paused == 1
    assert [figures.pairs for figures in bench.mirrors.figures] == [2]


async def test_a_turn_takes_little_time_and_the_rest_waits_for_the_next() -> None:
    """A user's answer may be next in the event loop, whatever copies have piled up."""
    loop, sent = FakeLoop(), list[Envelope]()

    def submit(copy: Envelope) -> Flight:
        sent.append(copy)
        return Flight(copy, loop.create_future())

    busy = copier(submit, clock=_Clock(TURN_SECONDS * 0.4), loop=loop)
    for _ in range(10):
        busy.take(_Copy(1), 4)
    loop.timers[0].fire()

    assert 0 < len(sent) < 4
    assert [timer.delay for timer in loop.timers] == [GATHER_SECONDS, PAUSE_SECONDS], "one turn at a time"


async def test_a_pair_that_cannot_be_compared_stops_nobody_else() -> None:
    """Whatever a worker answers, the next copy is sent."""
    loop = FakeLoop()
    one = copier(_unsent, loop=loop)
    bad, good = _Copy(1, fails=True), _Copy(1)
    for copy in (bad, good):
        one.take(copy, 4)
        one.answered(copy, FINE, 0.1)
    with pytest.raises(ZeroDivisionError):
        loop.timers[0].fire()
    with pytest.raises(LookupError):
        loop.timers[1].fire()

    assert good.compared == [0.1]
    assert one.copies == 0, "the one that failed leaves its room, too"


class _Unreadable(NamedTuple):
    """An answer that is nobody's business but its user's."""

    timing: WorkerTiming = None  # type: ignore[assignment] # nobody reads it

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Nobody does."""
        raise AssertionError


class _Clock:
    """Time goes on whenever somebody looks."""

    def __init__(self, step: float) -> None:
        self._step, self._now = step, 0.0

    def __call__(self) -> float:
        self._now += self._step
        return self._now


class _Copy:
    """A copy of which nothing but its size matters."""

    def __init__(self, byte_count: int, *, fails: bool = False) -> None:
        self.byte_count, self._fails = byte_count, fails
        self.compared: list[float] = []

    def envelope(self, now: float, observer: CopyObserver) -> Envelope:
        """Any."""
        del now, observer
        return envelope()

    def compare(self, outcome: Answer | InferwayError, seconds: float) -> None:
        """Notes the time."""
        del outcome
        if self._fails:
            raise ZeroDivisionError
        self.compared.append(seconds)


def _unsent(copy: Envelope) -> Flight:
    raise LookupError(copy.prediction_id)
