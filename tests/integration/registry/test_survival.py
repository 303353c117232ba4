"""Restarts and kills: what was answered stays, and nothing half-made is ever seen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc import aio

from inferway.errors import ModelNotFound
from inferway.registry.v1 import registry_service_pb2 as pb
from inferway_chassis.addresses import SettingsRefused
from inferway_chassis.channel import open_channel
from tests.integration.registry.client import CALL_SECONDS, Client, refusal, request_id
from tests.integration.registry.conftest import Start
from tests.integration.registry.test_watch import events, snapshot
from tests.testbed.ports import free_ports
from tests.testbed.processes import ServiceProcess
from tests.unit.registry.graphs import model_files

WEIGHTS = "variables/variables.data-00000-of-00001"
STRIDE = 257
"""Calls between two places of death; prime, so that runs with other code do not always hit the same ones."""


async def test_a_restarted_registry_has_everything_it_answered(start: Start):
    """Models, aliases, events, half-done uploads, and answers to repeated requests."""
    again = request_id()
    async with start() as client:
        await client.push(weights=b"1", alias="champion")
        upload = await client.begin(files=model_files(b"0123456789"), request_id=again)
        await client.send(upload.name, WEIGHTS, [b"01234"])
        before = await client.model("digits"), await client.endpoint("digits"), await events(client, 0, 3)
        epoch = (await snapshot(client)).epoch

    async with start() as client:
        assert (await client.model("digits"), await client.endpoint("digits"), await events(client, 0, 3)) == before
        assert (await snapshot(client)).epoch == epoch
        assert (await client.begin(files=model_files(b"0123456789"), request_id=again)).name == upload.name
        assert (await client.progress(upload.name))[WEIGHTS] == 5
        await client.send(upload.name, WEIGHTS, [b"56789"], offset=5)
        await client.publish(upload.name)
        assert await client.download("models/digits/versions/2", WEIGHTS) == b"0123456789"


async def test_a_second_registry_on_the_same_directory_is_refused(start: Start):
    """Two processes appending to one staged file would corrupt it."""
    async with start():
        with pytest.raises(SettingsRefused, match="another registry"):
            async with start():
                pass


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A registry process that can be told to die; not started."""
    (port,) = free_ports(1)
    process = ServiceProcess(
        module="tests.integration.registry.dying_registry",
        target=f"127.0.0.1:{port}",
        environment={
            "INFERWAY_REGISTRY_GRPC_ADDRESS": f"127.0.0.1:{port}",
            "INFERWAY_REGISTRY_METRICS_ADDRESS": "",
            "INFERWAY_REGISTRY_DRAIN_SECONDS": "0",
            "INFERWAY_REGISTRY_DATA_DIR": str(tmp_path / "data"),
        },
        log=tmp_path / "registry.log",
    )
    yield process
    process.end()


@pytest.mark.slow
async def test_killed_anywhere_in_a_publishing_it_leaves_all_or_nothing(dying: ServiceProcess, tmp_path: Path):
    """Also the client that saw its call break can simply repeat it, and gets exactly one version."""
    deaths = 0
    while True:
        model, again = f"m{deaths}", request_id()
        _start(dying)
        async with _client(dying) as client:
            upload = await client.fill(model_files(os.urandom(1000)), model=model)
            (tmp_path / "data" / "die-at").write_text(str(1 + deaths * STRIDE))
            if not await _dies(client.publish(upload.name, "champion", again), dying):
                break
        deaths += 1
        _start(dying)
        async with _client(dying) as client:
            await _check_all_or_nothing(client, model)
            version = await client.publish(upload.name, "champion", again)
            assert version.name == f"models/{model}/versions/1"
            await _check_whole(client, model)

    assert deaths >= 3


def _start(process: ServiceProcess) -> None:
    if not process.alive:
        process.start()
        process.wait_serving()


@asynccontextmanager
async def _client(process: ServiceProcess) -> AsyncIterator[Client]:
    async with open_channel(process.target) as channel:
        yield Client(channel, process.target)


async def _dies(publishing: Awaitable[object], process: ServiceProcess) -> bool:
    with contextlib.suppress(aio.AioRpcError):
        await publishing
        return False
    assert process.wait() == -9
    return True


async def _check_all_or_nothing(client: Client, model: str) -> None:
    models = await client.registry.ListModels(pb.ListModelsRequest(), timeout=CALL_SECONDS)
    if f"models/{model}" in {each.name for each in models.models}:
        await _check_whole(client, model)
    else:
        assert type(await refusal(client.model(model))) is ModelNotFound
        assert model not in {version.model_version.name for version in (await snapshot(client)).versions}


async def _check_whole(client: Client, model: str) -> None:
    seen = await client.model(model)
    assert list(seen.version_numbers) == [1]
    assert [(alias.alias, alias.version) for alias in seen.aliases] == [("champion", 1)]
    assert (await client.endpoint(model)).next_version == f"{seen.name}/versions/1"
    version = await client.registry.GetModelVersion(
        pb.GetModelVersionRequest(name=f"{seen.name}/versions/1"), timeout=CALL_SECONDS
    )
    for artifact in version.model_version.manifest.artifacts:
        data = await client.download(version.model_version.name, artifact.path)
        assert len(data) == artifact.size_bytes
