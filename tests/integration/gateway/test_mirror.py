"""Copies of requests, seen from the gateway's sockets: what is compared, and that no caller can tell."""

from __future__ import annotations

import asyncio
import signal
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from grpc import aio

from inferway.errors import ModelFailed
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.registry.v1.outcome_service_pb2 import ReportOutcomesRequest
from inferway.registry.v1.resources_pb2 import Endpoint, MirrorDirective, RolloutDirective
from inferway.registry.v1.rollouts_pb2 import EXAMPLE_POLICY_INPUTS_AND_OUTPUTS, MirrorFigures, MirrorSpec
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1 import worker_service_pb2
from inferway_gateway.rollouts.copier import MAX_BYTES
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker, echo
from tests.integration.gateway.requests import predict_request, tensor
from tests.integration.gateway.snapshots import endpoint, signature, snapshot, spec, version
from tests.integration.gateway.worker_process import worker_process

V1, V2 = "models/echo/versions/1", "models/echo/versions/2"
WIDTH = 100_000
LARGE = signature(spec("x", (-1, WIDTH)), outputs=[spec("y", (-1, WIDTH))])
KEPT = MAX_BYTES // (3 * 4 * WIDTH)
"""Copies of `LARGE` that there is room for: an input and two answers."""
ASKED = 80
"""The newest of them are dropped."""
Compute = Callable[[worker_service_pb2.Envelope], Sequence[Tensor]]


def mirrored() -> Endpoint:
    """All traffic goes to version 1, and a copy of all of it to version 2."""
    mirrored = endpoint(arms={V2: 0, V1: 10_000})
    spec = MirrorSpec(
        sample_basis_points=10_000,
        absolute_tolerance=1e-5,
        relative_tolerance=1e-3,
        examples=EXAMPLE_POLICY_INPUTS_AND_OUTPUTS,
    )
    mirror = MirrorDirective(version=V2, mirror=spec)
    mirrored.rollout.CopyFrom(
        RolloutDirective(rollout="endpoints/echo/rollouts/1", stable_arm="v1", candidate_arm="v2", mirror=mirror)
    )
    return mirrored


@pytest.fixture
async def worker() -> AsyncIterator[FakeWorker]:
    """It has both versions."""
    fake = FakeWorker(versions=(V1, V2))
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def bed(tmp_path: Path, registry: FakeRegistry, worker: FakeWorker) -> AsyncIterator[Bed]:
    """A gateway that copies."""
    async with gateway(settings_for(tmp_path, registry.target), registry, worker) as running_bed:
        await running_bed.publish(version(1), version(2), endpoints=[mirrored()])
        await running_bed.until_health_is("model/echo", serving=True)
        yield running_bed


def figures_of(report: ReportOutcomesRequest) -> MirrorFigures:
    """Of the only mirror."""
    return report.outcomes[0].mirrors[0].figures


async def ask(bed: Bed, count: int, *inputs: Tensor) -> None:
    """So many callers ask at once, and all are answered by version 1."""
    request = predict_request(inputs=inputs or [tensor()])
    answers = await asyncio.gather(*(bed.stub.Predict(request, timeout=10) for _ in range(count)))
    assert {answer.model_version for answer in answers} == {V1}


async def until_answered(bed: Bed, target: pb.Target, *inputs: Tensor) -> None:
    """Returns when some worker has the version."""
    async with asyncio.timeout(5):
        while True:
            with suppress(aio.AioRpcError):
                await bed.stub.Predict(predict_request(target=target, inputs=inputs), timeout=5)
                return


async def test_the_registry_hears_how_the_copies_compare(bed: Bed, worker: FakeWorker):
    """A person decides by these figures whether the version may have users."""

    def compute(envelope: worker_service_pb2.Envelope) -> Sequence[Tensor]:
        outputs = echo(envelope)
        if envelope.version == V2:
            outputs[0].raw = struct.pack("<4f", 4, 3, 2, 1)
        return outputs

    worker.compute = compute
    await ask(bed, 20)
    report = await bed.registry.until_reported(lambda report: figures_of(report).pairs == 20)
    figures, output = figures_of(report), figures_of(report).outputs[0]

    assert (figures.primary_version, figures.mirrored_version) == (V1, V2)
    assert (figures.agreeing, figures.mirrored_errors, figures.dropped) == (0, 0, 0)
    assert (output.output, output.rows, output.same_top_rows, output.max_absolute) == ("y", 20, 0, 3.0)
    assert sum(report.outcomes[0].mirrors[0].mirrored_latency.counts) == 20
    shown = [(tensor.role, tensor.elements) for tensor in figures.examples[0].tensors]
    assert shown == [("input", "[1, 2, 3, 4]"), ("primary", "[1, 2, 3, 4]"), ("mirrored", "[4, 3, 2, 1]")]


async def test_workers_can_tell_a_copy_and_serve_it_last(bed: Bed, worker: FakeWorker):
    """Their own queues and their telemetry go by what the envelope says."""
    await ask(bed, 1)
    await worker.until(lambda worker: len(worker.received) == 2)
    original, copy = worker.received

    assert (copy.version, copy.inputs[0].raw) == (V2, original.inputs[0].raw)
    assert (copy.arm, copy.tenant, copy.criticality) == ("shadow", "shadow", 4)
    assert copy.prediction_id == f"{original.prediction_id}-shadow"


async def test_errors_of_copies_reach_nobody(bed: Bed, worker: FakeWorker):
    """A version that is tried on copies may be as broken as it likes."""

    def compute(envelope: worker_service_pb2.Envelope) -> Sequence[Tensor]:
        if envelope.version == V2:
            raise ModelFailed("broken", cause="test")
        return echo(envelope)

    worker.compute = compute
    await ask(bed, 20)
    figures = figures_of(await bed.registry.until_reported(lambda report: figures_of(report).pairs == 20))

    assert (figures.mirrored_errors, figures.primary_errors, figures.agreeing) == (20, 0, 0)


async def test_a_stopped_worker_costs_its_copies_and_nobody_else(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
):
    """Frozen processes are the worst neighbours: nothing fails, nothing ends, and everything that waits is held."""
    async with (
        worker_process(V2) as frozen,
        gateway(settings_for(tmp_path, registry.target), registry, worker) as bed,
    ):
        worker.states = {V1: worker.states[V1]}
        large = tensor(raw=bytes(4 * WIDTH), shape=(1, WIDTH))
        versions = [version(number, signatures=[LARGE]) for number in (1, 2)]
        addresses = [worker.address, frozen.address]
        await registry.publish(snapshot(versions=versions, endpoints=[mirrored()], workers=addresses))
        await until_answered(bed, pb.Target(endpoint="echo", version=1), large)
        await until_answered(bed, pb.Target(endpoint="echo", version=2), large)
        frozen.send(signal.SIGSTOP)
        for _ in range(ASKED // 10):
            await ask(bed, 10, large)
        await registry.until_reported(lambda report: figures_of(report).dropped == ASKED - KEPT)
        frozen.send(signal.SIGCONT)
        last = await registry.until_reported(lambda report: figures_of(report).pairs == KEPT)

    assert figures_of(last).agreeing == KEPT, "what was kept is answered when the worker goes on"
    assert (figures_of(last).dropped, figures_of(last).mirrored_errors) == (ASKED - KEPT, 0)
