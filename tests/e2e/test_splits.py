"""Traffic that somebody split by hand: what the command says of it, from a gateway's counts and a registry's check."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpc import aio

from inferway.errors import ModelFailed
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.registry.v1 import fleet_service_pb2
from inferway.registry.v1.outcome_service_pb2 import ReportOutcomesRequest, SplitOutcomes
from inferway.registry.v1.outcome_service_pb2_grpc import OutcomeServiceStub
from inferway.registry.v1.resources_pb2 import Endpoint, SplitArm, SplitCheck, Worker
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1 import worker_service_pb2
from inferway_chassis.testing import serving
from inferway_gateway.app import running
from tests.e2e.test_apply import WAIT_SECONDS, client
from tests.integration.gateway.conftest import settings_for
from tests.integration.gateway.fake_worker import FakeWorker, echo
from tests.integration.gateway.requests import predict_request
from tests.integration.registry.client import CALL_SECONDS, Client
from tests.integration.registry.rollouts import DIGITS_1, DIGITS_2
from tests.integration.registry.test_endpoints import arm, update
from tests.integration.registry.test_fleet import ready
from tests.unit.cli.conftest import invoke

__all__ = ["client"]  # a fixture of theirs
LEASE_SECONDS = 2.0
"""A third of how long the registry believes a worker."""


@dataclass(frozen=True, slots=True)
class Bed:
    """A registry, and a gateway that splits `digits` between two versions of a worker."""

    client: Client
    worker: FakeWorker
    gateway: str
    predictions: PredictionServiceStub

    async def ask(self, count: int) -> None:
        """So many calls at once, whatever becomes of them."""
        calls = (self.predictions.Predict(predict_request("digits"), timeout=CALL_SECONDS) for _ in range(count))
        await asyncio.gather(*calls, return_exceptions=True)

    async def check(self, holds: Callable[[SplitCheck], bool]) -> SplitCheck:
        """What is found of `digits`, as soon as `holds` says so; users come all the while."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                await self.ask(20)
                found = (await self.client.endpoint("digits")).split
                if holds(found):
                    return found

    async def inferway(self, *arguments: str) -> list[str]:
        """The lines that the command prints."""
        targets = {"INFERWAY_REGISTRY": self.client.target, "INFERWAY_GATEWAY": self.gateway, "COLUMNS": "200"}
        async with asyncio.timeout(WAIT_SECONDS):
            return (await asyncio.to_thread(invoke, arguments, {**os.environ, **targets})).stdout.splitlines()


def total(check: SplitCheck) -> int:
    """Units of all arms."""
    return sum(arm.units for arm in check.arms)


def second_fails(envelope: worker_service_pb2.Envelope) -> Sequence[Tensor]:
    """Version 2 is broken."""
    if envelope.version == DIGITS_2:
        raise ModelFailed("broken", cause="test")
    return echo(envelope)


async def lease(client: Client, worker: FakeWorker) -> None:
    """The worker says that it is there, again and again."""
    told = Worker(name=worker.name, boot_id="b", address=worker.address, versions=ready(DIGITS_1, DIGITS_2))
    while True:
        await client.fleet.ReportWorker(fleet_service_pb2.ReportWorkerRequest(worker=told), timeout=CALL_SECONDS)
        await asyncio.sleep(LEASE_SECONDS)


@asynccontextmanager
async def serving_worker(client: Client) -> AsyncIterator[FakeWorker]:
    """It has both versions, and its lease holds."""
    worker = FakeWorker(versions=(DIGITS_1, DIGITS_2))
    await worker.start()
    leasing = asyncio.create_task(lease(client, worker))
    try:
        yield worker
    finally:
        leasing.cancel()
        await worker.stop()


@pytest.fixture
async def bed(client: Client, tmp_path: Path) -> AsyncIterator[Bed]:
    """Half of the traffic goes to each version, by the gateway's routing, too."""
    for weights in (b"1", b"2"):
        await client.push(weights=weights)
    halves = [arm("v1", DIGITS_1, 5000), arm("v2", DIGITS_2, 5000)]
    await update(client, Endpoint(name="endpoints/digits", arms=halves))
    async with (
        serving_worker(client) as worker,
        serving(running, settings_for(tmp_path / "gateway", client.target), name="gateway") as server,
        aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        bed = Bed(client, worker, f"127.0.0.1:{server.port}", PredictionServiceStub(channel))
        async with asyncio.timeout(WAIT_SECONDS):
            while DIGITS_2 not in {envelope.version for envelope in worker.received}:
                await bed.ask(1)
        yield bed


async def test_a_split_by_hand_is_seen_to_be_as_assigned(bed: Bed) -> None:
    """Whoever compares two versions by hand must know that both had their share of users."""
    await bed.check(lambda check: total(check) >= 100)
    lines, status = await bed.inferway("endpoint", "digits"), await bed.inferway("status")

    assert lines[0] == "digits: v1 digits/1 50%, v2 digits/2 50%"
    assert lines[1].startswith("units so far: v1 ")
    assert lines[2].startswith("As assigned: v")
    assert any("as assigned" in line for line in status if line.startswith("digits"))


async def test_an_arm_that_answers_nobody_leaves_survivors(bed: Bed) -> None:
    """All of its users were sent to it, and not one of them is in what was measured of answers."""
    bed.worker.compute = second_fails
    found = await bed.check(lambda check: check.mismatch == SplitCheck.MISMATCH_ANSWERED)

    assert found.explanation.startswith("srm: units reach the arms as assigned, but v2 leaves more of them without")


async def test_a_gateway_that_sends_units_elsewhere_is_found(bed: Bed) -> None:
    """By what it says itself, beside the counts of one that is sound."""
    generation = (await bed.client.endpoint("digits")).generation
    arms = [SplitArm(arm="v1", units=2200, answered=2200), SplitArm(arm="v2", units=1800, answered=1800)]
    split = SplitOutcomes(endpoint="endpoints/digits", generation=generation, arms=arms)
    request = ReportOutcomesRequest(gateway="faulty", splits=[split])
    await OutcomeServiceStub(bed.client.channel).ReportOutcomes(request, timeout=CALL_SECONDS)
    found = await bed.check(lambda check: total(check) > 4000)

    assert found.mismatch == SplitCheck.MISMATCH_ASSIGNED
    assert found.explanation.startswith("srm: units do not reach the arms as assigned. v")
