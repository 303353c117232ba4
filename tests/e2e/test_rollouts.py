"""Rollouts with real models, processes and callers: harm goes before many met it, and a good version comes to stay.

`make rollouts` prints the same at 200 calls a second with everything that docs/rollouts.md says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.rollout_scenes import (
    RATE,
    SHARE,
    Scene,
    bad_candidate,
    good_candidate,
    publish_pair,
)
from tests.testbed.rollouts import State, calling, canary, control
from tests.testbed.slow_model import WORKER_SETTINGS
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def bed(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A stack with one worker, and a gateway to break nothing of."""
    with Stack(tmp_path_factory.mktemp("rollouts"), settings={"inference": WORKER_SETTINGS}) as running:
        yield Scene(running, saved_models)


async def test_a_candidate_that_always_fails_is_gone_within_seconds(bed: Scene) -> None:
    """The brake is quicker than any controller, and the controller agrees."""
    result = await bad_candidate(bed, "broken")

    print("", result, sep="\n")
    assert result.seconds_to_zero <= 3.0
    assert result.failures <= 60


@pytest.mark.parametrize("kind", ["slow", "blank"])
async def test_a_candidate_that_is_slow_or_answers_nonsense_is_found_out(bed: Scene, kind: str) -> None:
    """By its latency against what the stable version's was, and by NaN in its outputs."""
    result = await bad_candidate(bed, kind)

    print("", result, sep="\n")
    assert result.seconds_to_zero <= 15.0
    assert result.failures == 0


async def test_a_candidate_that_crashes_on_load_never_gets_traffic(bed: Scene) -> None:
    """It is found out before anybody could be harmed, and says why."""
    names = await publish_pair(bed, "doomed", "affine", "fatal")
    async with control(bed.stack.registry.target) as registry, calling(bed.stack.gateway.target, "doomed", RATE) as met:
        await met.ends(20)
        name = await registry.start("doomed", canary(names[1], [(SHARE, 1.0)]))
        ended = await registry.until(name, {State.STATE_FAILED})
        await met.ends(50)

    assert "doomed v2" in ended.reason
    assert met.arms().keys() == {"v1"}
    assert met.failures == {}


async def test_a_good_candidate_gets_everything_and_no_call_fails(bed: Scene) -> None:
    """From the first step to the last, through the bake, with callers who repeat nothing."""
    result = await good_candidate(bed)

    print("", result, sep="\n")
    assert result.failures == {}
    assert result.last_arm == "v2"
    assert result.state == State.STATE_SUCCEEDED


async def test_an_abort_gives_everything_back_within_a_second(bed: Scene) -> None:
    """Whoever sees harm that no judge sees must be quick."""
    names = await publish_pair(bed, "aborted", "affine", "affine")
    async with (
        control(bed.stack.registry.target) as registry,
        calling(bed.stack.gateway.target, "aborted", RATE) as met,
    ):
        await met.ends(20)
        name = await registry.start("aborted", canary(names[1], [(5000, 600.0)]))
        await registry.until(name, {State.STATE_RUNNING})
        await met.until_arm("v2")
        asked = met.now()
        await registry.act("Abort", name)
        await registry.until(name, {State.STATE_ROLLED_BACK})
        await met.ends(20)

    assert met.span("v2")[1] - asked <= 1.0
    assert met.failures == {}
