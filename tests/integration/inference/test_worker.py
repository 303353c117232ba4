"""A worker from the outside: over its sockets, with real runner processes and the fake runtime."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from numpy.typing import NDArray

from inferway import errors
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_chassis.channel import open_channel
from inferway_inference.runtimes.fake import DEADLY, FILE, POISON
from tests.integration.inference.conftest import Worker, fake_model, runners
from tests.integration.inference.fake_registry import CHUNK_BYTES, FakeRegistry, model_version
from tests.integration.inference.gateway_side import GatewaySide, envelope, tensor, values_of

V1, V2 = "models/double/versions/1", "models/double/versions/2"


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random rows of the fake model's width."""
    return np.random.default_rng(seed).random((count, 4)).astype("f4")


async def publish(registry: FakeRegistry, name: str = V1, **parameters: Any) -> None:
    """A fake model."""
    files = fake_model(**parameters)
    await registry.put(model_version(name, files), files)


async def test_a_published_version_is_loaded_and_answers(registry: FakeRegistry, worker: Worker):
    """The worker's whole purpose, over a link."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        x = rows(3)
        [answer] = await gateway.call(envelope(1, V1, tensor("x", x)))

        assert np.array_equal(values_of(answer), x * 2)
        assert answer.timing.batch_rows == 3
        reported = await registry.reported(lambda one: one.versions[0].state == pb.LOAD_STATE_READY)
        assert reported.address == f"127.0.0.1:{server.port}"


async def test_hundreds_of_requests_get_their_own_rows_back(registry: FakeRegistry, worker: Worker):
    """Batches are joined and cut: nobody may see a row of another."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        inputs = {number: rows(1 + number % 5, seed=number) for number in range(1, 301)}
        answers = await gateway.call(*(envelope(number, V1, tensor("x", x)) for number, x in inputs.items()))

        for answer in answers:
            assert np.array_equal(values_of(answer), inputs[answer.id] * 2)
        status = await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
        [statistics] = status.statistics
        assert statistics.success_count == 300
        assert statistics.execution_count < 100, "requests that wait together are computed together"


async def test_an_unbatchable_model_answers_each_request_alone(registry: FakeRegistry, worker: Worker):
    """Its output has no rows to cut."""
    await publish(registry, operation="total")
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        answers = await gateway.call(*(envelope(n, V1, tensor("x", rows(2, n)), rows=1) for n in (1, 2)))

        assert [values_of(answer).item() for answer in answers] == pytest.approx([rows(2, n).sum() for n in (1, 2)])


async def test_a_model_that_mixes_rows_is_never_batched(registry: FakeRegistry, worker: Worker):
    """Its shapes promise independent rows; warm-up finds the lie before callers do."""
    await publish(registry, operation="subtract_mean")
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        answers = await gateway.call(*(envelope(n, V1, tensor("x", rows(2, n)), rows=1) for n in range(1, 9)))

        for answer in answers:
            x = rows(2, answer.id)
            assert np.allclose(values_of(answer), x - x.mean(axis=0))


async def test_one_poison_request_fails_alone(registry: FakeRegistry, worker: Worker):
    """The others in its batch did nothing wrong."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        poison = np.full((1, 4), POISON, "f4")
        inputs = [rows(1, seed=n) if n != 5 else poison for n in range(10)]
        answers = await gateway.call(*(envelope(n + 1, V1, tensor("x", x)) for n, x in enumerate(inputs)))

        with pytest.raises(errors.ModelFailed, match="it is poison") as caught:
            values_of(answers[5])
        assert caught.value.metadata == {"model": "double", "version": "1", "cause": "poison"}
        assert all(np.array_equal(values_of(answers[n]), inputs[n] * 2) for n in range(10) if n != 5)


async def test_a_killed_runner_fails_its_requests_and_comes_back(registry: FakeRegistry, worker: Worker):
    """A crashing model must cost its own callers one retry, and other models nothing."""
    await publish(registry)
    await publish(registry, "models/other/versions/1")
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.ready("models/other/versions/1")
        deadly = np.full((1, 4), DEADLY, "f4")
        first, other = await gateway.call(
            envelope(1, V1, tensor("x", deadly)), envelope(2, "models/other/versions/1", tensor("x", rows(1)))
        )
        with pytest.raises(errors.RunnerCrashed):
            values_of(first)
        assert np.array_equal(values_of(other), rows(1) * 2)

        loading = await gateway.ready(V1, pb.LOAD_STATE_LOADING)
        assert "killed by SIGKILL" in loading.error.message, "whoever looks now wants to know why it loads again"
        ready = await gateway.ready(V1)
        assert not ready.HasField("error")
        states = [one.state for hello in gateway.hellos for one in hello.versions if one.version == V1]
        assert pb.LOAD_STATE_FAILED not in states, "callers would take it for a version that cannot be loaded"
        [again] = await gateway.call(envelope(3, V1, tensor("x", rows(1))))
        assert np.array_equal(values_of(again), rows(1) * 2)


async def test_a_runner_that_crashes_again_and_again_fails_its_version(registry: FakeRegistry, worker: Worker):
    """A crash loop must be seen by whoever looks at the version, and must not eat the machine."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        for crash in range(1, 4):
            await gateway.ready(V1)
            deadly = np.array([[DEADLY, crash, 0, 0]], "f4")  # the same ones would be refused the third time
            await gateway.call(envelope(crash, V1, tensor("x", deadly)))
            if crash < 3:
                await gateway.ready(V1, pb.LOAD_STATE_LOADING)
        failed = await gateway.ready(V1, pb.LOAD_STATE_FAILED)

    assert "killed by SIGKILL" in failed.error.message


async def test_a_request_that_killed_its_runner_twice_is_refused(registry: FakeRegistry, worker: Worker):
    """Gateways repeat what a crash took along; whoever caused it must not crash every runner there is."""
    await publish(registry)
    deadly = tensor("x", np.full((1, 4), DEADLY, "f4"))
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        for crash in (1, 2):
            await gateway.ready(V1)
            [answer] = await gateway.call(envelope(crash, V1, deadly))
            with pytest.raises(errors.RunnerCrashed):
                values_of(answer)
            await gateway.ready(V1, pb.LOAD_STATE_LOADING)
        await gateway.ready(V1)
        [refused, other] = await gateway.call(envelope(3, V1, deadly), envelope(4, V1, tensor("x", rows(1))))

        with pytest.raises(errors.Quarantined):
            values_of(refused)
        assert np.array_equal(values_of(other), rows(1) * 2)


async def test_a_request_larger_than_a_batch_is_computed_in_parts(registry: FakeRegistry, worker: Worker):
    """Its rows come back in order, beside those of others."""
    await publish(registry)
    async with worker(max_batch_rows=8) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        large, small = rows(50, seed=1), rows(3, seed=2)
        answers = await gateway.call(envelope(1, V1, tensor("x", large)), envelope(2, V1, tensor("x", small)))

        assert [np.array_equal(values_of(answer), x * 2) for answer, x in zip(answers, (large, small), strict=True)]
        status = await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
        assert status.statistics[0].success_count == 2
        assert max(batch.rows for batch in status.statistics[0].batches) <= 8


async def test_a_worker_explains_how_it_serves_a_version(registry: FakeRegistry, worker: Worker):
    """What was learned, what waits, who may send, and why each batch left: nobody has to guess."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.call(*(envelope(n, V1, tensor("x", rows(2, n))) for n in range(1, 20)))
        told = await gateway.stub.ExplainVersion(pb.ExplainVersionRequest(version=V1))

    assert told.status.version == V1
    assert told.curves[0].shape.startswith("x[4]")
    assert sum(point.samples for curve in told.curves for point in curve.points) > 0
    assert (told.queue.requests, told.queue.rows) == (0, 0)
    assert told.credits[0].share_rows > 0
    assert sum(decision.rows for decision in told.decisions) == 38
    assert all(decision.compute_us > 0 and decision.explanation for decision in told.decisions)


async def test_a_large_envelope_goes_by_a_call_of_its_own(registry: FakeRegistry, worker: Worker):
    """It would hold up the small ones on the link; inside the worker it travels through shared memory."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        x = rows(100_000)
        response = await gateway.stub.Infer(pb.InferRequest(envelope=envelope(1, V1, tensor("x", x))))

        assert np.array_equal(values_of(response.answer), x * 2)


async def test_a_version_that_fails_to_load_says_why_everywhere(registry: FakeRegistry, worker: Worker):
    """Whoever published it looks at the registry, whoever calls it at the answer, whoever runs it at the worker."""
    files = {FILE: b"not a model"}
    await registry.put(model_version(V1, files), files)
    await publish(registry, V2)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V2)
        failed = await gateway.ready(V1, pb.LOAD_STATE_FAILED)
        assert failed.error.message == f"{FILE} is no description of a fake model"
        reported = await registry.reported(lambda one: one.versions[0].failed_attempts >= 1)
        assert reported.versions[0].error.message == failed.error.message

        [answer] = await gateway.call(envelope(1, V1, tensor("x", rows(1))))
        with pytest.raises(errors.VersionNotReady, match=FILE):
            values_of(answer)
        await registry.reported(lambda one: one.versions[0].failed_attempts >= 2)


async def test_files_that_are_not_the_published_ones_are_refused(registry: FakeRegistry, worker: Worker):
    """What is loaded is what was published, or nothing."""
    files = fake_model()
    version = model_version(V1, files)
    await registry.put(version, {FILE: files[FILE][:-1] + b" "})
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        failed = await gateway.ready(V1, pb.LOAD_STATE_FAILED)
        assert f"{FILE} is not what its manifest says" in failed.error.message

        registry.files[V1, FILE] = files[FILE]
        await gateway.ready(V1)


async def test_a_broken_download_is_resumed(registry: FakeRegistry, worker: Worker):
    """A registry that restarts in the middle of a large model costs a second, not the whole way again."""
    files = {**fake_model(), "weights.bin": os.urandom(300_000)}
    await registry.put(model_version(V1, files), files)
    registry.cuts["weights.bin"] = 150_000
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)

    offsets = [offset for path, offset in registry.downloads if path == "weights.bin"]
    assert offsets[0] == 0
    assert 0 < offsets[1] <= 150_000 + CHUNK_BYTES


async def test_an_unloaded_version_answers_what_it_holds_and_gives_its_memory_back(
    registry: FakeRegistry, worker: Worker
):
    """Unloading is for making room; it must neither lose requests nor leave a process."""
    await publish(registry)
    files = fake_model()
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        [runner] = runners()
        runner.suspend()
        await gateway.send(*(envelope(n, V1, tensor("x", rows(1, n))) for n in range(1, 6)))
        await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
        await registry.put(model_version(V1, files), files, wanted=False)
        await gateway.ready(V1, pb.LOAD_STATE_DRAINING)
        runner.resume()

        for answer in await gateway.answers_to(range(1, 6)):
            assert np.array_equal(values_of(answer), rows(1, answer.id) * 2)
        await gateway.until(lambda: not gateway.hellos[-1].versions)
        assert runners() == []
        [late] = await gateway.call(envelope(9, V1, tensor("x", rows(1))))
        with pytest.raises(errors.VersionNotReady):
            values_of(late)


async def test_a_deleted_version_leaves_no_files(registry: FakeRegistry, worker: Worker, tmp_path: Path):
    """Disks fill up with models that nobody has."""
    await publish(registry)
    await publish(registry, V2, factor=3)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        await gateway.ready(V2)
        await registry.remove(V1)
        await gateway.until(lambda: [one.version for one in gateway.hellos[-1].versions] == [V2])
        artifacts = tmp_path / "worker" / "artifacts"
        async with asyncio.timeout(10):
            while len(os.listdir(artifacts)) > 1:  # noqa: PTH208 - read by the test alone
                await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())


async def test_a_worker_starts_from_disk_with_the_registry_away(registry: FakeRegistry, worker: Worker):
    """Traffic never waits for the registry, not even after a restart of everything else."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
    await registry.stop()
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        [answer] = await gateway.call(envelope(1, V1, tensor("x", rows(1))))
        assert np.array_equal(values_of(answer), rows(1) * 2)

        await registry.start(registry.target)
        reports = len(registry.reports)
        await registry.reported(lambda _: len(registry.reports) > reports)


async def test_health_follows_each_version(registry: FakeRegistry, worker: Worker):
    """Load balancers and people ask for it by name."""
    await publish(registry)
    async with worker() as server, open_channel(f"127.0.0.1:{server.port}") as channel:
        request = health_pb2.HealthCheckRequest(service="model/double@1")
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(request)
        seen = []
        async with asyncio.timeout(20):
            async for update in watch:
                seen.append(update.status)
                if update.status == health_pb2.HealthCheckResponse.SERVING:
                    await registry.remove(V1)
                if seen[-2:] == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]:
                    break


async def test_a_stopped_worker_leaves_no_process_and_gives_its_lease_back(registry: FakeRegistry, worker: Worker):
    """Runners are children: whoever starts them ends them."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        assert len(runners()) == 1

    assert runners() == []
    assert registry.released == ["workers/w0"]


async def test_a_runner_outlives_ctrl_c_and_not_its_worker(registry: FakeRegistry, worker: Worker):
    """Ctrl-C reaches the whole process group; requests that are being computed then must still be answered."""
    await publish(registry)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        [runner] = runners()
        runner.send_signal(signal.SIGINT)
        [answer] = await gateway.call(envelope(1, V1, tensor("x", rows(1))))

        assert np.array_equal(values_of(answer), rows(1) * 2)
