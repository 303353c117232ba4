"""endpoint: as typed, against a registry in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inferway.registry.v1 import resources_pb2
from tests.unit.cli.conftest import Inferway
from tests.unit.cli.fake_registry import FakeRegistry


async def test_endpoint_shows_where_traffic_goes_and_what_streams_do(inferway: Inferway, saved_model: Path):
    """Before a deploy one wants to know both."""
    await inferway("push", "affine", str(saved_model))
    done = await inferway("endpoint", "affine")
    traffic, streams = done.stdout.splitlines()
    assert traffic == "affine: v1 affine/1 100%, following the newest version"
    assert streams.endswith("stay with their version if the model is stateful, and move on otherwise")


@pytest.mark.parametrize("automatic", [True, False])
async def test_endpoint_sets_what_streams_do_and_leaves_traffic_alone(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path, automatic: bool
):
    """The rest of the endpoint is not this command's business."""
    registry.automatic = automatic
    await inferway("push", "affine", str(saved_model))
    done = await inferway("endpoint", "affine", "--streams", "finish", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["streams"] == "finish"
    assert registry.automatic is automatic
    assert registry.stream_policies == {"endpoints/affine": resources_pb2.STREAM_POLICY_FINISH}
    assert "for ten minutes at most" in (await inferway("endpoint", "affine")).stdout


async def test_a_manual_endpoint_keeps_its_traffic_until_it_is_automatic_again(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """What is published next must not reach users before somebody, or a rollout, brings it to them."""
    await inferway("push", "affine", str(saved_model))
    kept = await inferway("endpoint", "affine", "--manual")
    was_automatic = registry.automatic
    again = await inferway("endpoint", "affine", "--automatic")
    both = await inferway("endpoint", "affine", "--automatic", "--manual")

    assert kept.stdout.splitlines()[0] == "affine: v1 affine/1 100%"
    assert (was_automatic, registry.automatic) == (False, True)
    assert again.stdout.splitlines()[0].endswith("following the newest version")
    assert both.code == 2


async def test_endpoint_shows_what_each_arm_has_had_and_what_that_means(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """Whoever split traffic by hand compares the arms by hand, and must know when they cannot be compared."""
    await inferway("push", "affine", str(saved_model))
    arms = [resources_pb2.SplitArm(arm=arm, units=units, answered=units) for arm, units in (("v1", 6000), ("v2", 2000))]
    registry.split = resources_pb2.SplitCheck(
        arms=arms, mismatch=resources_pb2.SplitCheck.MISMATCH_ASSIGNED, explanation="srm: look for it."
    )
    shown = await inferway("endpoint", "affine")
    told = json.loads((await inferway("endpoint", "affine", "--json")).stdout)

    assert shown.stdout.splitlines()[1:3] == ["units so far: v1 6,000 (75.00%), v2 2,000 (25.00%)", "srm: look for it."]
    assert told["split"] == {
        "verdict": "srm",
        "units": {"v1": 6000, "v2": 2000},
        "answered": {"v1": 6000, "v2": 2000},
        "explanation": "srm: look for it.",
    }


async def test_push_says_that_traffic_will_move(inferway: Inferway, saved_model: Path):
    """The first version moves nobody; the second one takes everybody along."""
    first = await inferway("push", "affine", str(saved_model))
    second = await inferway("push", "affine", str(saved_model))
    await inferway("endpoint", "affine", "--manual")
    third = await inferway("push", "affine", str(saved_model))

    told = ["--manual" in done.stderr for done in (first, second, third)]
    assert told == [False, True, False]


async def test_push_does_not_wait_for_what_nobody_will_load(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """With manual traffic a new version is loaded when a rollout, an alias or a policy asks for it."""
    registry.automatic = False
    alone = await inferway("push", "affine", str(saved_model), "--wait")
    aliased = await inferway("push", "affine", str(saved_model), "--wait", "--alias", "rival")
    registry.policies["models/affine"] = resources_pb2.VersionPolicy(latest=2)
    kept = await inferway("push", "affine", str(saved_model), "--wait")

    assert (alone.code, aliased.code, kept.code) == (1, 0, 0)
    assert "`inferway rollout start affine --to 1` brings it to users" in alone.stderr


async def test_endpoint_says_what_is_not_there(inferway: Inferway):
    """With the way to find out what is."""
    done = await inferway("endpoint", "nothing", "--streams", "migrate")
    assert done.code == 1
    assert "`inferway models` lists what there is" in done.stderr
