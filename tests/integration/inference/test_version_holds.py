"""Versions that nothing routes to any more, and that streams go on with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inferway.registry.v1.resources_pb2 import ModelVersion
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_inference.runtimes.fake import DEADLY
from tests.integration.inference.conftest import Worker, fake_model, runners
from tests.integration.inference.fake_registry import FakeRegistry, model_version
from tests.integration.inference.gateway_side import GatewaySide, envelope, tensor, values_of

V1, V2 = "models/double/versions/1", "models/double/versions/2"
FILES = fake_model()
ROW = np.ones((1, 4), "f4")


async def publish(registry: FakeRegistry, name: str, *, wanted: bool = True) -> None:
    """A fake model."""
    await registry.put(model_version(name, FILES), FILES, wanted=wanted)


async def deploy(registry: FakeRegistry, gateway: GatewaySide) -> None:
    """Version 2 takes the place of version 1; returns once the worker has acted on it."""
    await publish(registry, V1, wanted=False)
    await publish(registry, V2)
    await gateway.ready(V2)


async def assert_answers(gateway: GatewaySide, number: int) -> None:
    """Version 1 does."""
    [answer] = await gateway.call(envelope(number, V1, tensor("x", ROW)))
    assert np.array_equal(values_of(answer), ROW * 2)


def gone(gateway: GatewaySide) -> Callable[[], bool]:
    """Whether the worker has no version 1 any more."""
    return lambda: V1 not in {status.version for status in gateway.hellos[-1].versions}


async def test_a_version_stays_while_streams_need_it_and_goes_when_they_do_not(registry: FakeRegistry, worker: Worker):
    """A stream that finishes on the old version of a deploy would otherwise be cut off by the deploy."""
    await publish(registry, V1)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.hold(V1, "models/unknown/versions/1")
        await assert_answers(gateway, 1)
        await deploy(registry, gateway)
        await assert_answers(gateway, 2)
        await gateway.hold()

        await gateway.until(gone(gateway))


async def test_a_version_that_streams_need_is_loaded_again_when_its_runner_crashes(
    registry: FakeRegistry, worker: Worker
):
    """Its sessions survive a crash, as those of any other version do."""
    await publish(registry, V1)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.hold(V1)
        await assert_answers(gateway, 1)
        await deploy(registry, gateway)
        await gateway.call(envelope(2, V1, tensor("x", np.full((1, 4), DEADLY, "f4"))))
        await gateway.ready(V1, pb.LOAD_STATE_LOADING)
        await gateway.ready(V1)

        await assert_answers(gateway, 3)


async def test_what_a_lost_gateway_held_is_there_when_it_comes_back(registry: FakeRegistry, worker: Worker):
    """A gateway that is restarted, or a client that goes on by another one, is a matter of seconds."""
    await publish(registry, V1)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        async with GatewaySide(f"127.0.0.1:{server.port}") as lost:
            await lost.hold(V1)
            await assert_answers(lost, 1)
        await deploy(registry, gateway)

        await assert_answers(gateway, 2)


async def test_an_operator_who_unloads_a_version_does_not_wait_for_streams(registry: FakeRegistry, worker: Worker):
    """Who unloads needs the memory, or wants to be rid of a version that does harm."""
    await publish(registry, V1)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.hold(V1)
        await assert_answers(gateway, 1)
        await deploy(registry, gateway)
        unloaded = model_version(V1, FILES)
        unloaded.state = ModelVersion.STATE_UNLOADED
        await registry.put(unloaded, FILES, wanted=False)

        await gateway.until(gone(gateway))
        assert len(runners()) == 1


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "made again"])
async def test_a_version_that_was_deleted_is_not_held(registry: FakeRegistry, worker: Worker, again: bool):
    """Streams must not go on with files that another version of the same name has replaced."""
    await publish(registry, V1)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.hold(V1)
        await assert_answers(gateway, 1)
        await deploy(registry, gateway)
        if again:
            other = fake_model(factor=3)
            await registry.put(model_version(V1, other), other, wanted=False)
        else:
            await registry.remove(V1)

        await gateway.until(gone(gateway))


async def test_no_version_is_held_for_longer_than_the_operator_permits(registry: FakeRegistry, worker: Worker):
    """Old versions would pile up behind streams that never end."""
    await publish(registry, V1)
    async with worker(hold_seconds=0) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.hold(V1)
        await assert_answers(gateway, 1)
        await publish(registry, V1, wanted=False)

        await gateway.until(gone(gateway))
