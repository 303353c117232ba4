"""Rollouts with real models, processes and callers: harm goes before many met it, and a good version comes to stay.

All happen at once on one stack, as they mostly wait; `make rollouts` has one after the other, at 200 calls a second.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest

from inferway.registry.v1.resources_pb2 import ISOLATION_GROUP
from tests.testbed.rollout_scenes import (
    Aborted,
    Arrived,
    Doomed,
    Ended,
    Scene,
    aborted_candidate,
    bad_candidate,
    doomed_candidate,
    good_candidate,
)
from tests.testbed.rollouts import State
from tests.testbed.slow_model import WORKER_SETTINGS
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.alone, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(240)]

RATE, SHARE = 50.0, 2000


class Results(NamedTuple):
    """Of all scenes."""

    broken: Ended
    slow: Ended
    blank: Ended
    doomed: Doomed
    aborted: Aborted
    good: Arrived


@pytest.fixture(scope="module")
def results(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What became of each candidate; the callers repeat nothing."""

    async def play(scene: Scene) -> Results:
        (broken, slow, blank), doomed, aborted, good = await asyncio.gather(
            asyncio.gather(*(bad_candidate(scene, kind) for kind in ("broken", "slow", "blank"))),
            doomed_candidate(scene),
            aborted_candidate(scene),
            good_candidate(scene, ((SHARE, 1.0), (5000, 1.0))),
        )
        return Results(broken, slow, blank, doomed, aborted, good)

    with Stack(tmp_path_factory.mktemp("rollouts"), settings={"inference": WORKER_SETTINGS}) as running:
        played = asyncio.run(play(Scene(running, saved_models, RATE, SHARE, ISOLATION_GROUP)))
    print("", *played, sep="\n")
    return played


def test_a_candidate_that_always_fails_is_gone_within_seconds(results: Results) -> None:
    """The brake is quicker than any controller, and the controller agrees."""
    assert results.broken.seconds_to_zero <= 3.0
    assert results.broken.failures <= 60


def test_a_candidate_that_is_slow_is_found_out(results: Results) -> None:
    """By its latency against what the stable version's was."""
    assert results.slow.seconds_to_zero <= 15.0
    assert results.slow.failures == 0
    assert "slower" in results.slow.reason


def test_a_candidate_that_answers_nonsense_is_found_out(results: Results) -> None:
    """By NaN in its outputs, which no caller was told of."""
    assert results.blank.seconds_to_zero <= 15.0
    assert results.blank.failures == 0
    assert "schema" in results.blank.reason


def test_a_candidate_that_crashes_on_load_never_gets_traffic(results: Results) -> None:
    """It is found out before anybody could be harmed, and says why."""
    assert results.doomed.arms.keys() == {"v1"}
    assert results.doomed.failures == {}
    assert "doomed/2" in results.doomed.reason


def test_an_abort_gives_everything_back_within_a_second(results: Results) -> None:
    """Whoever sees harm that no judge sees must be quick."""
    assert results.aborted.seconds <= 1.0
    assert results.aborted.failures == {}


def test_a_good_candidate_gets_everything_and_no_call_fails(results: Results) -> None:
    """From the first step to the last, through the bake."""
    assert results.good.state == State.STATE_SUCCEEDED
    assert results.good.last_arm == "v2"
    assert results.good.failures == {}
