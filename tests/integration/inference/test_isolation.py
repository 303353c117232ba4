"""Where versions run, in how many copies, and whether they may run at all: over the worker's sockets."""

from __future__ import annotations

import asyncio
import io
import os
from struct import pack
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from inferway import errors
from inferway.registry.v1 import resources_pb2
from inferway.status import from_status
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_inference.golden import FILE as GOLDEN
from inferway_inference.recorded import FILE as RECORDED
from inferway_inference.recorded import _prediction_log, masked_crc32c
from inferway_inference.runner.priority import may_raise_again
from inferway_inference.runtimes.fake import DEADLY, POISON
from tests.integration.inference.conftest import Worker, fake_model, runners
from tests.integration.inference.fake_registry import FakeRegistry, model_version
from tests.integration.inference.gateway_side import GatewaySide, envelope, tensor, values_of

V1, V2, OTHER = "models/double/versions/1", "models/double/versions/2", "models/other/versions/1"
PROCESS, GROUP, INLINE = (
    resources_pb2.ISOLATION_PROCESS,
    resources_pb2.ISOLATION_GROUP,
    resources_pb2.ISOLATION_INLINE,
)


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random rows of the fake model's width."""
    return np.random.default_rng(seed).random((count, 4)).astype("f4")


async def publish(
    registry: FakeRegistry,
    name: str = V1,
    *,
    isolation: resources_pb2.Isolation.ValueType = PROCESS,
    memory_bytes: int = 0,
    extra: dict[str, bytes] | None = None,
    wanted: bool = True,
    **options: Any,
) -> None:
    """A fake model; `options` are the operator's."""
    files = {**fake_model(), **(extra or {})}
    config = resources_pb2.VersionConfig(isolation=isolation, memory_bytes=memory_bytes)
    serving = resources_pb2.ServingOptions(**options)
    await registry.put(model_version(name, files, config=config, serving_options=serving), files, wanted=wanted)


async def doubles(gateway: GatewaySide, number: int, version: str = V1) -> None:
    """The version answers, and rightly."""
    x = rows(2, number)
    [answer] = await gateway.call(envelope(number, version, tensor("x", x)))
    assert np.array_equal(values_of(answer), x * 2)


async def instances(registry: FakeRegistry, count: int) -> pb.VersionStatus:
    """The first version's status, once the worker has reported so many copies."""
    report = await registry.reported(lambda one: bool(one.versions) and one.versions[0].plan.instances == count)
    return report.versions[0]


def golden(outputs: NDArray[np.float32]) -> dict[str, bytes]:
    """An example file: ones, and what they are to become."""
    content = io.BytesIO()
    np.savez(content, **{"inputs/x": np.ones((2, 4), "f4"), "outputs/y": outputs})  # type: ignore[arg-type]
    return {GOLDEN: content.getvalue()}


def recording(**inputs: NDArray[np.float32]) -> bytes:
    """A file of one request, as TensorFlow Serving records it; nobody reads the checksum of the content."""
    message = _prediction_log()()
    for name, values in inputs.items():
        entry = message.predict_log.request.inputs.add(key=name).value
        entry.dtype, entry.tensor_content = 1, values.tobytes()
        for size in values.shape:
            entry.tensor_shape.dim.add(size=size)
    content: bytes = message.SerializeToString()
    head = pack("<Q", len(content))
    return head + pack("<I", masked_crc32c(head)) + content + bytes(4)


@pytest.mark.parametrize(("isolation", "processes"), [(PROCESS, 1), (GROUP, 1), (INLINE, 0)])
async def test_a_version_answers_wherever_it_runs(
    registry: FakeRegistry, worker: Worker, isolation: resources_pb2.Isolation.ValueType, processes: int
):
    """Callers must not be able to tell."""
    await publish(registry, isolation=isolation)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        status = await gateway.ready(V1)
        inputs = [rows(1 + n % 3, n) if n != 5 else np.full((1, 4), POISON, "f4") for n in range(20)]
        answers = await gateway.call(*(envelope(n + 1, V1, tensor("x", x)) for n, x in enumerate(inputs)))

        assert len(runners()) == processes
        assert status.plan.isolation == {PROCESS: "process", GROUP: "group", INLINE: "inline"}[isolation]
        assert all(np.array_equal(values_of(answers[n]), inputs[n] * 2) for n in range(20) if n != 5)
        with pytest.raises(errors.ModelFailed):
            values_of(answers[5])
        large = rows(50_000)
        response = await gateway.stub.Infer(pb.InferRequest(envelope=envelope(99, V1, tensor("x", large))))
        assert np.array_equal(values_of(response.answer), large * 2)
    assert runners() == []


async def test_versions_of_a_group_share_a_process_that_ends_with_the_last(registry: FakeRegistry, worker: Worker):
    """A hundred small models must not cost a hundred frameworks; one that leaves must not disturb the others."""
    await publish(registry, isolation=GROUP)
    await publish(registry, OTHER, isolation=GROUP)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.ready(OTHER)
        [process] = runners()
        await publish(registry, isolation=GROUP, wanted=False)
        await gateway.until(lambda: [one.version for one in gateway.hellos[-1].versions] == [OTHER])
        await doubles(gateway, 1, OTHER)
        assert runners() == [process]

        await publish(registry, OTHER, isolation=GROUP, wanted=False)
        await gateway.until(lambda: not gateway.hellos[-1].versions)
        assert runners() == []


async def test_the_crash_of_a_group_brings_all_its_versions_back(registry: FakeRegistry, worker: Worker):
    """They share a fate, and it is a short one."""
    await publish(registry, isolation=GROUP)
    await publish(registry, OTHER, isolation=GROUP)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.ready(OTHER)
        [answer] = await gateway.call(envelope(1, V1, tensor("x", np.full((1, 4), DEADLY, "f4"))))
        with pytest.raises(errors.RunnerCrashed):
            values_of(answer)
        await gateway.ready(V1, pb.LOAD_STATE_LOADING)
        for number, version in enumerate((V1, OTHER), start=2):
            await gateway.ready(version)
            await doubles(gateway, number, version)


async def test_a_runner_that_hangs_is_ended_soon_after_nobody_waits_for_it(registry: FakeRegistry, worker: Worker):
    """A request that never ends must cost its version seconds, not the minute that the slowest model may take."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await doubles(gateway, 1)
        [process] = runners()
        process.suspend()
        late = envelope(2, V1, tensor("x", rows(2)))
        late.remaining_us = 500_000
        async with asyncio.timeout(30):
            [answer] = await gateway.call(late)
            with pytest.raises(errors.InferwayError):
                values_of(answer)
            await gateway.ready(V1, pb.LOAD_STATE_LOADING)
            await gateway.ready(V1)
        await doubles(gateway, 3)


async def test_copies_come_and_go_without_a_reload(registry: FakeRegistry, worker: Worker):
    """Whoever tunes a version in service must be able to undo it, and read back what holds."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        [first] = runners()
        unset = (await instances(registry, 1)).plan.max_batch_rows
        await publish(registry, instances=2, max_batch_rows=3, buckets=[1, 3])
        status = await instances(registry, 2)
        assert (status.plan.max_batch_rows, list(status.plan.buckets)) == (3, [1, 3])
        assert len(runners()) == 2
        await doubles(gateway, 1)

        await publish(registry)
        status = await instances(registry, 1)
        assert (status.plan.max_batch_rows, list(status.plan.buckets)) == (unset, [])
        assert unset != 3
        await doubles(gateway, 2)
        async with asyncio.timeout(30):
            while runners() != [first]:
                await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())


async def test_a_killed_copy_comes_back_while_the_other_serves(registry: FakeRegistry, worker: Worker):
    """That is what a second copy is for."""
    await publish(registry, instances=2)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await instances(registry, 2)
        killed = runners()[0]
        killed.kill()
        [held] = await gateway.call(envelope(1, V1, tensor("x", rows(1))))
        assert not held.HasField("error") or isinstance(from_status(held.error), errors.RunnerCrashed)
        for number in range(2, 30):
            await doubles(gateway, number)
        await asyncio.to_thread(killed.wait, 10)
        await registry.reported(
            lambda one: one.versions[0].plan.instances == 2 and killed.pid not in [p.pid for p in runners()]
        )

        states = {one.state for hello in gateway.hellos for one in hello.versions}
        assert pb.LOAD_STATE_PENDING not in states, "the version was never away"


async def test_a_version_that_fails_its_examples_does_not_replace_the_old_one(registry: FakeRegistry, worker: Worker):
    """A wrong export must be found by the worker, not by callers."""
    await publish(registry, extra=golden(np.full((2, 4), 2, "f4")))
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await publish(registry, V2, extra=golden(np.full((2, 4), 3, "f4")))
        failed = await gateway.ready(V2, pb.LOAD_STATE_FAILED)

        assert isinstance(from_status(failed.error), errors.GoldenMismatch)
        assert "2.0 instead of 3.0 at [0, 0], and 7 more" in failed.error.message
        await doubles(gateway, 1)


async def test_recorded_requests_are_run_before_a_version_is_ready(registry: FakeRegistry, worker: Worker):
    """What the model really gets is what must not end it; here it does, and no caller meets that."""
    deadly = np.full((1, 4), DEADLY, "f4")
    await publish(registry, extra={RECORDED: recording(x=deadly)})
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        failed = await gateway.ready(V1, pb.LOAD_STATE_FAILED)

        assert "killed by SIGKILL" in failed.error.message


@pytest.mark.skipif(not may_raise_again(), reason="who may not raise a priority again does not lower it")
async def test_what_is_loaded_beside_others_lets_them_go_first(registry: FakeRegistry, worker: Worker):
    """Callers of the old version must not notice that a new one comes; once it serves, it counts as much."""
    await publish(registry)
    async with worker(warmup_seconds=0.2) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await doubles(gateway, 1)
        slow = fake_model(factor=2, batch_seconds=0.01)
        await registry.put(model_version(V2, slow), slow)
        await gateway.ready(V2, pb.LOAD_STATE_WARMING)
        beside = sorted(map(priority, runners()))
        await gateway.ready(V2)
        await doubles(gateway, 2, V2)

        assert beside == [(os.SCHED_OTHER, 0), (os.SCHED_IDLE, 0)]
        assert [priority(runner) for runner in runners()] == [(os.SCHED_OTHER, 0)] * 2


async def test_a_version_that_does_not_fit_is_refused_and_harms_nobody(registry: FakeRegistry, worker: Worker):
    """A worker that runs out of memory takes every version with it."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await publish(registry, OTHER, memory_bytes=2**50)
        failed = await gateway.ready(OTHER, pb.LOAD_STATE_FAILED)

        assert f"needs about {2**30} MiB" in failed.error.message
        await doubles(gateway, 1)


async def test_the_next_load_takes_the_spare_process(registry: FakeRegistry, worker: Worker):
    """It has imported the framework already."""
    await publish(registry)
    async with worker(spare_processes=True) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        first_two = await processes(gateway, 2)
        await publish(registry, OTHER)
        await gateway.ready(OTHER)
        await doubles(gateway, 1, OTHER)

        assert set(first_two) < set(await processes(gateway, 3))
    assert runners() == []


def priority(process: psutil.Process) -> tuple[int, int]:
    """Its class and niceness."""
    return os.sched_getscheduler(process.pid), process.nice()


async def processes(gateway: GatewaySide, count: int) -> list[psutil.Process]:
    """Runner processes, once there are so many."""
    async with asyncio.timeout(30):
        while len(found := runners()) != count:
            await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
    assert os.getpid() not in [process.pid for process in found]
    return found
