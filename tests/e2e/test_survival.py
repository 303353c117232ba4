"""Real processes are killed, drained and replaced under traffic; callers are answered."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from inferway import errors
from inferway.registry.v1 import registry_service_pb2 as pb
from inferway.registry.v1 import resources_pb2
from inferway.worker.v1 import worker_service_pb2
from tests.testbed.calls import decoded, model_infer, tiny_request, traffic
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.alone, pytest.mark.tensorflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def pair(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with two workers, for this module to break and mend."""
    with Stack(tmp_path_factory.mktemp("pair"), workers_count=2) as running:
        publish_tiny(running, saved_models)
        for worker in running.workers:
            worker.wait_serving("model/tiny@1")
        running.gateway.wait_serving("model/tiny")
        yield running


def publish_tiny(stack: Stack, saved_models: Path) -> None:
    """In a process of its own, and there in a second: what is broken here are processes and ways, not TensorFlow."""
    publish(stack.registry.target, "tiny", saved_models / "litert" / "tiny", runtime=resources_pb2.RUNTIME_LITERT)


def kill(processes: list[psutil.Process]) -> None:
    for each in processes:
        os.kill(each.pid, signal.SIGKILL)


def registry_call(stack: Stack, method: str, request: Any, response: Any) -> Any:
    with grpc.insecure_channel(stack.registry.target) as channel:
        call = channel.unary_unary(
            f"/inferway.registry.v1.RegistryService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request, timeout=10)


async def test_a_killed_worker_costs_no_call(pair: Stack) -> None:
    """What it held is repeated elsewhere; nothing is lost, nothing hangs."""
    victim = pair.workers[0]
    async with traffic(pair.gateway.target) as calls:
        await calls.until("version 1", 200)
        await asyncio.to_thread(victim.kill)
        await calls.until("version 1", 200)
        victim.start()
        await asyncio.to_thread(victim.wait_serving, "model/tiny@1")
        await calls.until("version 1", 200)

    assert calls.failures == {}


async def test_a_killed_runner_is_replaced_without_an_operator(pair: Stack) -> None:
    """A model that crashes its process takes nothing else along."""
    runners = pair.workers[0].children()
    assert runners
    async with traffic(pair.gateway.target) as calls:
        await calls.until("version 1", 100)
        await asyncio.to_thread(pair.workers[0].wait_mended, "model/tiny@1", lambda: kill(runners))
        await calls.until("version 1", 100)

    assert calls.failures == {}
    assert pair.workers[0].alive


async def test_a_drained_worker_costs_no_call(pair: Stack) -> None:
    """SIGTERM is how every deployment begins."""
    worker = pair.workers[1]
    async with traffic(pair.gateway.target) as calls:
        await calls.until("version 1", 100)
        worker.terminate()
        assert await asyncio.to_thread(worker.wait) == 0
        await calls.until("version 1", 100)
        worker.start()
        await asyncio.to_thread(worker.wait_serving, "model/tiny@1")

    assert calls.failures == {}


async def test_a_lone_worker_that_is_started_again_soon_costs_no_call(saved_models: Path, tmp_path: Path) -> None:
    """What comes in while nobody can answer waits a few seconds for whoever was there a moment ago."""
    with Stack(tmp_path) as stack:
        publish_tiny(stack, saved_models)
        stack.gateway.wait_serving("model/tiny")
        (worker,) = stack.workers
        runners = worker.children()
        async with traffic(stack.gateway.target) as calls:
            await calls.until("version 1", 100)
            await asyncio.to_thread(worker.wait_mended, "model/tiny@1", lambda: kill(runners))
            await calls.until("version 1", 100)

    assert calls.failures == {}


async def test_predictions_go_on_without_the_registry_even_through_restarts(pair: Stack) -> None:
    """The control plane is not in the path: gateway and worker start from disk."""
    async with traffic(pair.gateway.target) as calls:
        await calls.until("version 1", 50)
        await asyncio.to_thread(pair.registry.kill)
        await calls.until("version 1", 100)
        await asyncio.to_thread(pair.workers[0].kill)
        pair.workers[0].start()
        await asyncio.to_thread(pair.workers[0].wait_serving, "model/tiny@1")
        await calls.until("version 1", 100)
    assert calls.failures == {}

    await asyncio.to_thread(pair.gateway.kill)
    pair.gateway.start()
    await asyncio.to_thread(pair.gateway.wait_serving, "model/tiny")
    async with traffic(pair.gateway.target) as calls:
        await calls.until("version 1", 50)
    pair.registry.start()
    await asyncio.to_thread(pair.registry.wait_serving)

    assert calls.failures == {}


async def test_a_new_version_takes_over_without_a_failed_call(pair: Stack, saved_models: Path) -> None:
    """Versions roll out under traffic and nobody notices."""
    async with traffic(pair.gateway.target) as calls:
        await calls.until("version 1", 50)
        await asyncio.to_thread(publish_tiny, pair, saved_models)
        await calls.until("version 2", 50)

    assert calls.failures == {}


async def test_a_version_that_cannot_load_leaves_the_old_one_serving_and_says_why(
    pair: Stack, saved_models: Path, tmp_path: Path
) -> None:
    """The cause is shown by the registry; traffic does not move."""
    broken = tmp_path / "broken"
    (broken / "variables").mkdir(parents=True)
    (broken / "saved_model.pb").write_bytes((saved_models / "tiny" / "saved_model.pb").read_bytes())
    for part in ("variables.index", "variables.data-00000-of-00001"):
        (broken / "variables" / part).write_bytes(b"not a checkpoint")
    async with traffic(pair.gateway.target) as calls:
        version = await asyncio.to_thread(publish, pair.registry.target, "tiny", broken)
        status = await asyncio.to_thread(wait_for_failure, pair, version.name)
        await calls.until("version 2", 50)

    assert calls.failures == {}
    assert status.error.message
    delete = pb.DeleteModelVersionRequest(name=version.name)
    registry_call(pair, "DeleteModelVersion", delete, pb.DeleteModelVersionResponse)


def wait_for_failure(stack: Stack, name: str) -> Any:
    """Follows the event-free part of the catalogue: worker states are leases, so they are polled."""
    request = pb.GetModelVersionRequest(name=name)
    for _ in range(600):
        answer = registry_call(stack, "GetModelVersion", request, pb.GetModelVersionResponse)
        for worker in answer.model_version.workers:
            if worker.status.state == worker_service_pb2.LOAD_STATE_FAILED:
                return worker.status
        signal.sigtimedwait([], 0.1)
    raise AssertionError("no worker says FAILED")


async def test_an_unloaded_version_is_refused_and_served_again_when_restored(pair: Stack) -> None:
    """Unloading is an operator's act, so the caller is told so, and not to retry."""
    name = "models/tiny/versions/2"
    state = resources_pb2.ModelVersion

    def set_state(value: Any) -> None:
        request = pb.SetModelVersionStateRequest(name=name, state=value)
        registry_call(pair, "SetModelVersionState", request, pb.SetModelVersionStateResponse)

    async with traffic(pair.gateway.target, callers=1) as calls:
        await asyncio.to_thread(set_state, state.STATE_UNLOADED)
        await calls.until(errors.VersionUnloaded.__name__, 3)
        await asyncio.to_thread(set_state, state.STATE_PUBLISHED)
        await calls.until("version 2", 3)


async def test_a_draining_gateway_answers_what_it_took(pair: Stack) -> None:
    """SIGTERM with calls in flight: each is answered before the process ends, with status 0."""
    async with grpc.aio.insecure_channel(pair.gateway.target) as channel:
        call = model_infer(channel)
        await call(tiny_request(np.ones((1, 32))), timeout=10)
        pending = [call(tiny_request(np.ones((2000, 32))), timeout=10) for _ in range(20)]
        await asyncio.gather(*(each.wait_for_connection() for each in pending))
        pair.gateway.terminate()
        for each in pending:
            try:
                assert (await each).model_version == "2"
            except grpc.aio.AioRpcError as failed:
                assert failed.code() == grpc.StatusCode.UNAVAILABLE, decoded(failed)  # noqa: PT017 - either is right
    assert await asyncio.to_thread(pair.gateway.wait) == 0
    pair.gateway.start()
    await asyncio.to_thread(pair.gateway.wait_serving, "model/tiny")


def test_a_second_stack_on_the_same_port_is_told_so(pair: Stack, tmp_path: Path) -> None:
    """Two real stacks: without this, both would answer, each for its own models."""
    for service in ("registry", "gateway", "inference"):
        taken = {"registry": pair.registry, "gateway": pair.gateway, "inference": pair.workers[0]}[service]
        prefix = f"INFERWAY_{service.upper()}_"
        second = Stack(tmp_path, settings={service: {f"{prefix}GRPC_ADDRESS": taken.target}})
        process = {"registry": second.registry, "gateway": second.gateway, "inference": second.workers[0]}[service]
        process.start()

        assert process.wait(30) == 1, process.tail()
        assert "taken" in process.tail()


def test_an_unknown_setting_refuses_to_start(tmp_path: Path) -> None:
    """Exit status 2 and the name: a misspelt setting must not be ignored."""
    stack = Stack(tmp_path, settings={"gateway": {"INFERWAY_GATEWAY_TIMEOUTT": "3"}})
    stack.gateway.start()

    assert stack.gateway.wait(30) == 2
    assert "INFERWAY_GATEWAY_TIMEOUTT" in stack.gateway.tail()
