"""State bindings over a socket: read by every runtime, published, kept, and in the snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest
from onnx import helper

from inferway.errors import InvalidField
from inferway.registry.v1 import registry_service_pb2 as pb
from inferway.registry.v1 import resources_pb2 as resources
from inferway.registry.v1.resources_pb2 import StateBinding, VersionConfig
from tests.integration.registry.client import CALL_SECONDS, Client, refusal
from tests.integration.registry.conftest import Start
from tests.integration.registry.test_watch import snapshot_with
from tests.testbed.onnx_models import model, tensor
from tests.unit.registry.flatbuffer_models import FLOAT32, litert_model
from tests.unit.registry.graphs import model_files, saved_model, signature
from tests.unit.registry.graphs import tensor as tf_tensor

INITIAL = bytes(range(8))
GIVEN = StateBinding(input="state", output="next", initial=INITIAL)
PUBLISHED = StateBinding(signature="serving_default", input="state", output="next", shape=[2], initial=INITIAL)


def savedmodel_files() -> Mapping[str, bytes]:
    """x, state → y, next."""
    inputs = {"x": tf_tensor(), "state": tf_tensor(shape=(-1, 2))}
    outputs = {"y": tf_tensor(), "next": tf_tensor(shape=(-1, 2))}
    return model_files(graph=saved_model({"serving_default": signature(inputs, outputs)}))


def onnx_files() -> Mapping[str, bytes]:
    """The same."""
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["state"], ["next"])]
    inputs, outputs = (
        [tensor("x"), tensor("state", shape=("rows", 2))],
        [tensor("y"), tensor("next", shape=("rows", 2))],
    )
    return {"model.onnx": model(nodes, inputs, outputs).SerializeToString()}


def litert_files() -> Mapping[str, bytes]:
    """The same."""
    wide, narrow = (FLOAT32, (-1, 4)), (FLOAT32, (-1, 2))
    return {
        "model.tflite": litert_model({"serving_default": ({"state": narrow, "x": wide}, {"next": narrow, "y": wide})})
    }


@pytest.mark.parametrize(
    ("runtime", "files"),
    [
        (resources.RUNTIME_TENSORFLOW, savedmodel_files()),
        (resources.RUNTIME_ONNX, onnx_files()),
        (resources.RUNTIME_LITERT, litert_files()),
    ],
    ids=["tensorflow", "onnx", "litert"],
)
async def test_every_runtimes_models_may_keep_state(
    client: Client, runtime: resources.Runtime.ValueType, files: Mapping[str, bytes]
):
    """Workers know nothing of it, so nothing hangs on who executes the model."""
    upload = await client.fill(files, runtime=runtime, config=VersionConfig(state=[GIVEN]))

    version = await client.publish(upload.name)

    assert list(upload.config.state) == [GIVEN]
    assert list(version.config.state) == [PUBLISHED]
    [routed] = (await snapshot_with(client, lambda told: len(told.versions) == 1)).versions
    assert list(routed.model_version.config.state) == [PUBLISHED]


async def test_a_binding_that_the_model_does_not_permit_is_refused_when_it_is_published(client: Client):
    """Nobody shall find out when the first caller opens a stream. The upload stays, and no version is made."""
    upload = await client.fill(
        savedmodel_files(), config=VersionConfig(state=[StateBinding(input="state", output="y")])
    )

    refused = await refusal(client.publish(upload.name))

    assert type(refused) is InvalidField
    assert [violation.field for violation in refused.violations] == ["config.state[0].output"]
    assert await client.progress(upload.name)
    listed = await client.registry.ListModels(pb.ListModelsRequest(), timeout=CALL_SECONDS)
    assert not listed.models


@pytest.mark.parametrize(
    "state",
    [[GIVEN] * 65, [StateBinding(input="a", output="b", initial=bytes(40_000))] * 2],
    ids=["too many", "too long"],
)
async def test_more_than_a_snapshot_should_carry_is_refused_at_once(client: Client, state: list[StateBinding]):
    """Every gateway and worker reads every version's state."""
    refused = await refusal(client.begin(files=savedmodel_files(), config=VersionConfig(state=state)))

    assert [violation.field for violation in refused.violations] == ["config.state"]


async def test_state_outlives_a_restart_and_older_versions_have_none(start: Start, tmp_path: Path):
    """A database of last week has configurations that know nothing of state."""
    async with start() as client:
        await client.push(model="old")
        upload = await client.fill(savedmodel_files(), model="new", config=VersionConfig(state=[GIVEN]))
        await client.publish(upload.name)
    with sqlite3.connect(tmp_path / "registry.db") as database:
        database.execute("UPDATE versions SET config = json_remove(config, '$.state') WHERE model = 'old'")
    database.close()

    async with start() as client:
        routed = await snapshot_with(client, lambda told: len(told.versions) == 2)
    versions = {each.model_version.name: each.model_version for each in routed.versions}

    assert list(versions["models/new/versions/1"].config.state) == [PUBLISHED]
    assert not versions["models/old/versions/1"].config.state
