"""tune, policy and model: as typed, against a registry in memory whose worker does as it is told."""

from __future__ import annotations

import json

import pytest

from inferway.registry.v1 import resources_pb2
from inferway.worker.v1 import worker_service_pb2
from tests.unit.cli.conftest import Inferway
from tests.unit.cli.fake_registry import FakeRegistry

V1 = "models/digits/versions/1"


@pytest.fixture(autouse=True)
def digits(registry: FakeRegistry) -> None:
    """Version 1 of `digits`, which takes all traffic."""
    state = resources_pb2.ModelVersion.STATE_PUBLISHED
    registry.versions[V1] = resources_pb2.ModelVersion(name=V1, version=1, state=state)


def options(registry: FakeRegistry) -> resources_pb2.ServingOptions:
    """What is stored."""
    return registry.versions[V1].serving_options


async def test_bounds_are_set_and_read_back_from_the_worker(inferway: Inferway, registry: FakeRegistry):
    """An operator sees that the change holds, not only that it was accepted."""
    done = await inferway("tune", "digits", "--max-batch-rows", "8", "--max-queue-delay", "2.5", "--buckets", "1,8")

    assert done.code == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["bound", "before", "after", "worker-0"],
        ["max_batch_rows", "auto", "8", "8"],
        ["max_queue_delay", "auto", "2.5", "2.5"],
        ["buckets", "auto", "1,8", "1,8"],
        ["instances", "auto", "auto", "1"],
    ]
    assert options(registry).max_queue_delay.ToMicroseconds() == 2_500


async def test_a_bound_that_is_not_named_stays_and_the_way_back_is_told(inferway: Inferway, registry: FakeRegistry):
    """Every change is reversible by the line that was printed."""
    await inferway("tune", "digits", "--max-batch-rows", "8", "--max-queue-delay", "0")
    before = resources_pb2.ServingOptions.FromString(options(registry).SerializeToString())

    done = await inferway("tune", "digits", "--instances", "2", "--max-batch-rows", "auto")
    assert (options(registry).max_batch_rows, options(registry).instances) == (0, 2)
    assert options(registry).HasField("max_queue_delay")

    back = done.stderr.partition("this undoes it: inferway ")[2].split()
    assert back == ["tune", "digits", "--version", "1", "--reset", "--max-batch-rows", "8", "--max-queue-delay", "0"]
    assert (await inferway(*back)).code == 0
    assert options(registry) == before


async def test_reset_hands_everything_back(inferway: Inferway, registry: FakeRegistry):
    """The worker tunes itself; a bound is an exception."""
    await inferway("tune", "digits", "--buckets", "1,8", "--instances", "3")

    done = await inferway("tune", "digits", "--reset", "--json")

    assert options(registry) == resources_pb2.ServingOptions()
    bounds = {row["bound"]: (row["before"], row["after"], row["worker-0"]) for row in json.loads(done.stdout)["bounds"]}
    assert bounds["buckets"] == ("1,8", "auto", "auto")
    assert bounds["instances"] == ("3", "auto", "1")


async def test_without_flags_nothing_changes(inferway: Inferway, registry: FakeRegistry):
    """Looking is free."""
    registry.deaf = True
    done = await inferway("tune", "digits")

    assert done.code == 0
    assert "undoes" not in done.stderr
    assert "64" in done.stdout


async def test_a_worker_that_does_not_take_them_on_is_named(inferway: Inferway, registry: FakeRegistry):
    """Stored is not done."""
    registry.deaf = True

    done = await inferway("tune", "digits", "--instances", "2", "--timeout", "0.3")

    assert done.code == 1
    assert "the bounds are stored, but worker-0 has not taken them on after 0.3 s" in done.stderr


async def test_a_version_that_nobody_has_ready_is_tuned_for_later(inferway: Inferway, registry: FakeRegistry):
    """Bounds may be set before the first worker comes up."""
    registry.load_state = worker_service_pb2.LOAD_STATE_LOADING

    done = await inferway("tune", "digits", "--instances", "2")

    assert done.code == 0
    assert "no worker has the version ready and has said how it runs it; the bounds are stored" in done.stderr


async def test_without_bounds_none_are_said_to_be_stored(inferway: Inferway, registry: FakeRegistry):
    """The command only looked."""
    registry.load_state = worker_service_pb2.LOAD_STATE_LOADING

    done = await inferway("tune", "digits")

    assert done.stderr.strip().endswith("no worker has the version ready and has said how it runs it")


async def test_copies_that_were_handed_back_are_waited_for(inferway: Inferway, registry: FakeRegistry):
    """A worker ends them one after the other; until then the reset has not happened."""
    await inferway("tune", "digits", "--instances", "33")
    registry.deaf = True

    done = await inferway("tune", "digits", "--reset", "--timeout", "0.3")

    assert done.code == 1
    assert "the bounds are stored, but worker-0 has not taken them on after 0.3 s" in done.stderr


@pytest.mark.parametrize(
    ("flag", "value", "permitted"),
    [
        ("--max-batch-rows", "many", "rows from 1 to 1048576, or auto"),
        ("--max-batch-rows", "0", "rows from 1 to 1048576, or auto"),
        ("--max-batch-rows", "99999999999", "rows from 1 to 1048576, or auto"),
        ("--max-queue-delay", "soon", "milliseconds from 0 to 10000, or auto"),
        ("--max-queue-delay", "inf", "milliseconds from 0 to 10000, or auto"),
        ("--max-queue-delay", "nan", "milliseconds from 0 to 10000, or auto"),
        ("--max-queue-delay", "10000.1", "milliseconds from 0 to 10000, or auto"),
        ("--buckets", "1,,8", "each above the last, such as 1,8,32, or auto"),
        ("--buckets", "8,1", "each above the last, such as 1,8,32, or auto"),
        ("--instances", "-5", "copies from 1 to 64, or auto"),
    ],
)
async def test_what_is_no_bound_is_wrong_usage(
    inferway: Inferway, registry: FakeRegistry, flag: str, value: str, permitted: str
):
    """Nothing is stored; the flag is named, and what it takes."""
    done = await inferway("tune", "digits", flag, value)

    assert done.code == 2
    assert flag in done.stderr
    assert permitted in " ".join(done.stderr.replace("│", " ").split())
    assert options(registry) == resources_pb2.ServingOptions()


@pytest.mark.parametrize(
    ("flags", "stored", "said"),
    [
        (("--latest", "2"), resources_pb2.VersionPolicy(latest=2), "the latest 2, and those that traffic"),
        (("--all",), resources_pb2.VersionPolicy(all=resources_pb2.AllVersions()), "all that are published (was: only"),
        (
            ("--versions", "3,1"),
            resources_pb2.VersionPolicy(specific=resources_pb2.SpecificVersions(versions=[1, 3])),
            "1, 3, and those",
        ),
    ],
)
async def test_a_policy_is_set_and_cleared(
    inferway: Inferway,
    registry: FakeRegistry,
    flags: tuple[str, ...],
    stored: resources_pb2.VersionPolicy,
    said: str,
):
    """The three policies of TensorFlow Serving, and the way back to none."""
    done = await inferway("policy", "digits", *flags)
    assert said in done.stdout, done.stderr
    assert registry.policies["models/digits"] == stored
    assert said.partition(" (was")[0] in (await inferway("policy", "digits")).stdout

    cleared = await inferway("policy", "digits", "--clear")
    assert "workers keep only those that traffic and aliases name (was:" in cleared.stdout
    assert registry.policies["models/digits"] == resources_pb2.VersionPolicy()


async def test_two_policies_at_once_are_wrong_usage(inferway: Inferway, registry: FakeRegistry):
    """Nobody could say which of the two holds."""
    assert (await inferway("policy", "digits", "--all", "--latest", "2")).code == 2
    assert (await inferway("policy", "digits", "--versions", "one")).code == 2
    assert not registry.policies


async def test_model_shows_how_a_version_runs_and_what_was_set(inferway: Inferway, registry: FakeRegistry):
    """One place that tells all of a model."""
    await inferway("tune", "digits", "--max-batch-rows", "8")
    await inferway("policy", "digits", "--latest", "2")

    shown = (await inferway("model", "digits")).stdout

    assert "workers keep loaded: the latest 2, and those that traffic and aliases name" in shown
    assert "set by an operator: batches of at most 8 rows" in shown
    assert "worker-0: READY  1 MB  process, 1 copy, 1 side by side, batches up to 8" in shown


async def test_a_version_is_named_by_number_or_alias(inferway: Inferway, registry: FakeRegistry):
    """As everywhere else; an alias that is not there is said."""
    registry.aliases["models/digits"] = {"champion": 1}

    assert (await inferway("tune", "digits", "--version", "champion", "--instances", "2")).code == 0
    assert options(registry).instances == 2
    assert "no alias 'loser'" in (await inferway("tune", "digits", "--version", "loser")).stderr
