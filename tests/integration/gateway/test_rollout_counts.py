"""What a gateway counts of a rollout, stops and reports, seen from its sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from grpc import aio

from inferway.errors import ModelFailed
from inferway.registry.v1.outcome_service_pb2 import ArmOutcomes, ReportOutcomesRequest
from inferway.registry.v1.resources_pb2 import Endpoint, MirrorDirective, RolloutDirective
from inferway.registry.v1.rollouts_pb2 import MirrorSpec
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1 import worker_service_pb2
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker, echo
from tests.integration.gateway.requests import predict_request
from tests.integration.gateway.snapshots import endpoint, version

V1, V2 = "models/echo/versions/1", "models/echo/versions/2"
ROLLOUT = "endpoints/echo/rollouts/1"
DIRECTIVE = RolloutDirective(
    rollout=ROLLOUT, stable_arm="v1", candidate_arm="v2", counts=True, profiles=True, brake_alpha=0.005
)


def driven(weight: int = 5000, generation: int = 7, directive: RolloutDirective = DIRECTIVE) -> Endpoint:
    """An endpoint whose candidate, version 2, gets so much."""
    driven = endpoint(arms={V2: weight, V1: 10_000 - weight})
    driven.generation = generation
    driven.rollout.CopyFrom(directive)
    return driven


def fails(envelope: worker_service_pb2.Envelope) -> Sequence[Tensor]:
    """Version 2 is broken."""
    if envelope.version == V2:
        raise ModelFailed("broken", cause="test")
    return echo(envelope)


@pytest.fixture
async def worker() -> AsyncIterator[FakeWorker]:
    """It has both versions."""
    fake = FakeWorker(versions=(V1, V2))
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def bed(tmp_path: Path, registry: FakeRegistry, worker: FakeWorker) -> AsyncIterator[Bed]:
    """A gateway in the middle of a rollout."""
    async with gateway(settings_for(tmp_path, registry.target), registry, worker) as running_bed:
        await running_bed.publish(version(1), version(2), endpoints=[driven()])
        await running_bed.until_health_is("model/echo", serving=True)
        yield running_bed


async def answers(bed: Bed, count: int) -> Counter[str]:
    """The versions that answered so many calls; empty for calls that failed."""
    found = Counter[str]()
    for _ in range(count):
        try:
            response = await bed.stub.Predict(predict_request(), timeout=5)
            found[response.model_version] += 1
        except aio.AioRpcError:
            found[""] += 1
    return found


def arms_of(report: ReportOutcomesRequest) -> tuple[ArmOutcomes, ArmOutcomes]:
    """Stable and candidate under the first weights."""
    phase = report.outcomes[0].phases[0]
    return phase.stable, phase.candidate


def units_of(report: ReportOutcomesRequest) -> int:
    """Of both arms."""
    return sum(arm.units for arm in arms_of(report))


async def test_the_registry_hears_what_both_arms_met(bed: Bed):
    """It judges from these numbers alone."""
    met = await answers(bed, 40)
    report = await bed.registry.until_reported(lambda report: units_of(report) == 40)
    stable, candidate = arms_of(report)

    assert (stable.units, candidate.units) == (met[V1], met[V2])
    assert (stable.newcomers, candidate.requests) == (met[V1], met[V2])
    assert sum(candidate.latency.counts) == met[V2]
    profile = report.outcomes[0].profile
    assert sum(profile.latency.counts) == met[V1]
    assert [(sample.output, sample.seen) for sample in profile.outputs] == [("y", met[V1])]


async def test_the_registry_hears_by_which_weights_a_gateway_routes(bed: Bed):
    """A switch is complete when all gateways say so; silence would hold every rollout up."""
    await bed.registry.until_reported(lambda report: report.outcomes[0].generation == 7)
    await bed.publish(version(1), version(2), endpoints=[driven(1000, generation=8)], revision=2)

    report = await bed.registry.until_reported(lambda report: report.outcomes[0].generation == 8)
    assert [phase.generation for phase in report.outcomes[0].phases] == [7, 8]


async def test_a_gateway_says_nothing_when_the_rollout_is_over(bed: Bed):
    """Reports cost the registry a write each."""
    await bed.registry.until_reported(bool)
    await bed.publish(version(1), version(2), endpoints=[endpoint(arms={V2: 10_000})], revision=2)
    async with asyncio.timeout(5):
        while V1 in await answers(bed, 20):
            pass

    bed.registry.reports.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.2):
            await bed.registry.until_reported(bool)


async def test_a_broken_candidate_is_stopped_and_the_registry_told(bed: Bed):
    """Its own judge looks every second; users meet a broken version every few milliseconds."""
    bed.worker.compute = fails
    met = await answers(bed, 60)

    assert 1 <= met[""] <= 15
    assert (await answers(bed, 40))[V1] == 40
    report = await bed.registry.until_reported(lambda report: bool(report.outcomes[0].brake_reason))
    assert arms_of(report)[1].events == {"MODEL_FAILED": met[""]}


async def test_the_brake_works_without_the_registry_and_is_told_when_it_is_back(bed: Bed, registry: FakeRegistry):
    """Who breaks a version may well have broken the registry, too."""
    await registry.stop()
    bed.worker.compute = fails
    met = await answers(bed, 60)
    assert 1 <= met[""] <= 15
    assert (await answers(bed, 40))[V1] == 40

    registry.reports.clear()
    await registry.start(urlsplit(f"//{registry.target}").port or 0)
    report = await registry.until_reported(lambda report: bool(report.outcomes[0].brake_reason))
    assert arms_of(report)[1].events == {"MODEL_FAILED": met[""]}


async def test_the_brake_holds_when_the_registry_sends_the_same_weights_again(bed: Bed):
    """Snapshots come for many reasons; only the end of the rollout ends a brake."""
    bed.worker.compute = fails
    await answers(bed, 60)
    await bed.publish(version(1), version(2), endpoints=[driven(6000, generation=8)], revision=2)
    await bed.registry.until_reported(lambda report: report.outcomes[0].generation == 8)

    assert (await answers(bed, 20))[V1] == 20


async def test_copies_are_made_compared_and_reported(bed: Bed):
    """Before any traffic is moved, this is all that is known of a candidate."""
    directive = RolloutDirective(
        rollout=ROLLOUT,
        stable_arm="v1",
        candidate_arm="v2",
        mirror=MirrorDirective(version=V2, mirror=MirrorSpec(sample_basis_points=10_000)),
    )
    await bed.publish(version(1), version(2), endpoints=[driven(0, generation=8, directive=directive)], revision=2)
    await bed.registry.until_reported(lambda report: report.outcomes[0].generation == 8)
    assert (await answers(bed, 20))[V1] == 20

    report = await bed.registry.until_reported(lambda report: any(m.figures.pairs for m in report.outcomes[0].mirrors))
    (mirror,) = report.outcomes[0].mirrors
    assert mirror.figures.mirrored_version == V2
    assert mirror.figures.agreeing == mirror.figures.pairs
    assert report.outcomes[0].phases[-1].candidate.requests == 0


@pytest.mark.parametrize(
    ("state", "is_its_fault"),
    [(worker_service_pb2.LOAD_STATE_LOADING, False), (worker_service_pb2.LOAD_STATE_FAILED, True)],
    ids=["it is loaded later", "it cannot be loaded"],
)
async def test_a_candidate_is_not_stopped_for_being_loaded_after_the_stable_version(
    tmp_path: Path,
    registry: FakeRegistry,
    worker: FakeWorker,
    state: worker_service_pb2.LoadState.ValueType,
    is_its_fault: bool,
):
    """The machine of gateway and lone worker was restarted: which version comes first says nothing of either."""
    worker.states[V2] = state
    async with gateway(settings_for(tmp_path, registry.target), registry, worker) as bed:
        await bed.publish(version(1), version(2), endpoints=[driven()])
        async with asyncio.timeout(5):
            while V1 not in await answers(bed, 1):
                pass
        met = await answers(bed, 60)
        assert (met[""] < 20) == is_its_fault
        await worker.set_state(V2, worker_service_pb2.LOAD_STATE_READY)
        await worker.grant(V2)
        await bed.until_health_is("model/echo", serving=True)

        assert (V2 in await answers(bed, 20)) != is_its_fault
        report = await registry.until_reported(lambda report: bool(report.outcomes[0].brake_reason) == is_its_fault)
        assert bool(arms_of(report)[1].events) == is_its_fault
