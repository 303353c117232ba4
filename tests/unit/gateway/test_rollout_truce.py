"""While a worker that went away loads both versions again, the one that comes later is not to blame."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inferway.errors import ModelFailed, NoWorker, RunnerCrashed, VersionNotReady, WorkerLost
from inferway_gateway.dispatch import REPEAT_SECONDS, Dispatcher
from inferway_gateway.lane import Lane
from inferway_gateway.rollouts.truce import MOST_SECONDS
from inferway_gateway.workers import LoadState, Standing
from tests.unit.gateway.bench import V1, Bench
from tests.unit.gateway.mirror_bench import V2, MirrorBench, answered
from tests.unit.gateway.rollout_bed import FINE, WARM, Bed

LOADING = VersionNotReady("it is being loaded")


def restart(bed: Bed) -> None:
    """The lone worker was killed; it is back with the stable version, and loads the candidate."""
    bed.away.update((V1, V2))
    bed.ask("v1", NoWorker("gone"))
    bed.away.discard(V1)


@pytest.fixture
def bed() -> Bed:
    """Half of the units go to the candidate."""
    return Bed(weight=5000)


def test_a_candidate_that_is_loaded_after_the_stable_version_is_not_stopped(bed: Bed):
    """It would be found guilty of the death of its worker: nobody fails half of its units as surely."""
    bed.ask("v2")
    restart(bed)
    for _ in range(50):
        bed.ask("v1")
        bed.ask("v2", LOADING)

    assert bed.braked == []
    assert (bed.candidate.units, bed.stable.units, bed.candidate.events) == (1, 0, {})
    assert bed.candidate.errors == {"VERSION_NOT_READY": 50}


def test_afterwards_everybody_is_judged_again(bed: Bed):
    """A truce that outlasts its reason would let a broken candidate go on."""
    restart(bed)
    bed.ask("v2", LOADING)
    bed.away.clear()
    bed.ask("v1")
    bed.ask("v2", RunnerCrashed("again"))

    assert (bed.stable.units, bed.candidate.units, bed.candidate.events) == (1, 1, {"RUNNER_CRASHED": 1})


@pytest.mark.parametrize("arm", ["v1", "v2"])
def test_what_was_under_way_when_the_worker_died_speaks_against_nobody(bed: Bed, arm: str):
    """The one version is back in time to answer it, the other is not."""
    sent = bed.send(arm)
    assert sent is not None
    restart(bed)
    request, observer = sent
    observer.ended(request, WorkerLost("gone"), bed.now)

    assert (bed.candidate.events, bed.stable.events) == ({}, {})


def test_an_answer_that_had_to_wait_for_the_worker_is_not_slow(bed: Bed):
    """Waiting requests of the candidate are answered when both are there: long after those of the stable version."""
    bed.warm_up()
    waiting = [bed.send("v2") for _ in range(2)]
    restart(bed)
    waiting += [bed.send("v2") for _ in range(2)]
    bed.now += 5.0
    bed.away.clear()
    for request, observer in filter(None, waiting):
        observer.ended(request, FINE, bed.now)

    assert bed.candidate.events == {}


def test_a_version_that_was_loaded_again_starts_slowly_again(bed: Bed):
    """Cold code answers late, and the two were not loaded at the same moment."""
    bed.warm_up()
    restart(bed)
    bed.ask("v1")
    bed.away.clear()
    bed.ask("v2", seconds=5.0)
    cold = dict(bed.candidate.events)
    bed.now += WARM
    bed.ask("v2", seconds=5.0)

    assert (cold, bed.candidate.events) == ({}, {"above_p95": 1, "above_p99": 1})


def test_a_link_that_breaks_for_a_moment_makes_nobody_cold(bed: Bed):
    """Nothing was loaded: a version that is slow must not get ten seconds more for each hiccup of a network."""
    bed.warm_up()
    bed.away.update((V1, V2))
    bed.ask("v1", NoWorker("gone"))
    bed.away.clear()
    bed.ask("v2", seconds=5.0)

    assert bed.candidate.events == {"above_p95": 1, "above_p99": 1}


def test_a_candidate_that_does_not_come_back_is_stopped_in_the_end(bed: Bed):
    """Its users meet nothing but errors, and the stable version is there for them."""
    restart(bed)
    bed.ask("v2", LOADING)
    bed.now += MOST_SECONDS
    for _ in range(30):
        bed.ask("v1")
        bed.ask("v2", LOADING)

    assert len(bed.braked) == 1


async def test_a_copy_that_finds_nobody_since_its_worker_went_away_is_no_pair():
    """Else a worker that loads the stable version first would be taken for a candidate that fails."""
    bench = MirrorBench()
    bench.pair(answered(1.0), ModelFailed("broken"))
    assert (bench.figures.mirrored_errors, bench.figures.dropped) == (1, 0)
    bench.dispatcher.lost(bench.lanes[V2])
    bench.now += REPEAT_SECONDS  # it is not waited for any more
    bench.end(bench.send(), answered(1.0))
    bench.turn()

    assert (bench.figures.mirrored_errors, bench.figures.dropped) == (1, 1)


def test_a_version_is_away_while_its_worker_is_and_until_it_is_loaded_again():
    """The death of a process and its restart are nobody's doing but the machine's."""
    bench = Bench()
    first = bench.open_lane()
    first.worker.introduce("workers/w", "one", {V1: Standing(LoadState.READY)}, {})
    assert not bench.dispatcher.is_away(V1)
    bench.dispatcher.lost(first)
    assert bench.dispatcher.is_away(V1)

    first.worker.introduce("workers/w", "two", {V1: Standing(LoadState.LOADING)}, {})
    again = bench.open_lane(worker=first.worker)
    bench.dispatcher.set_ready(again, [])
    assert bench.dispatcher.is_away(V1)
    bench.dispatcher.set_ready(again, [V1])
    assert not bench.dispatcher.is_away(V1)


@pytest.mark.parametrize(
    "standings",
    [[LoadState.READY, LoadState.PENDING], [LoadState.FAILED], [LoadState.FAILED, LoadState.LOADING]],
    ids=["its process crashed", "it cannot be loaded", "it is tried once more"],
)
def test_a_version_that_a_worker_had_or_could_not_load_is_missing_through_its_own_fault(standings: list[LoadState]):
    """It crashes, again and again: that must stop it, whatever else is excused."""
    bench = Bench()
    one = bench.open_lane()
    for standing in standings:
        one.worker.introduce("workers/w", "one", {V1: Standing(standing)}, {})
    bench.dispatcher.set_ready(one, [])

    assert not bench.dispatcher.is_away(V1)


def _drain(dispatcher: Dispatcher, lane: Lane) -> None:
    lane.draining = True
    dispatcher.set_ready(lane, ())


@pytest.mark.parametrize(
    "leave", [_drain, lambda dispatcher, lane: dispatcher.fell_silent(lane.worker)], ids=["leaves", "is silent"]
)
def test_a_worker_that_leaves_or_is_silent_takes_its_versions_with_it(leave: Callable[[Dispatcher, Lane], None]):
    """The last that it has said is that it has them ready."""
    bench = Bench()
    one = bench.open_lane()
    one.worker.introduce("workers/w", "one", {V1: Standing(LoadState.READY)}, {})
    leave(bench.dispatcher, one)

    assert bench.dispatcher.is_away(V1)
