"""Rollouts over a socket, as the command and gateways drive them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.duration_pb2 import Duration

from inferway.registry.v1 import rollout_service_pb2 as pb
from inferway.registry.v1 import rollouts_pb2, watch_service_pb2
from inferway.registry.v1.endpoint_service_pb2 import UpdateEndpointRequest
from inferway.registry.v1.outcome_service_pb2_grpc import OutcomeServiceStub
from inferway.registry.v1.resources_pb2 import Arm, Endpoint
from inferway.registry.v1.rollout_service_pb2_grpc import RolloutServiceStub
from tests.integration.registry.client import CALL_SECONDS, Client
from tests.integration.registry.test_fleet import ready, report
from tests.unit.registry.rollout_gateway import StubGateway

DIGITS_1, DIGITS_2 = "models/digits/versions/1", "models/digits/versions/2"
FIRST = "endpoints/digits/rollouts/1"
REPORT_SECONDS = 0.05
WAY_SECONDS = 30.0


def seconds(value: float) -> Duration:
    """A duration."""
    message = Duration()
    message.FromMicroseconds(round(value * 1e6))
    return message


def quick(version: str = DIGITS_2, weights: Iterable[int] = (1000, 5000), **fields: Any) -> rollouts_pb2.RolloutSpec:
    """A canary that takes a few seconds."""
    steps = [rollouts_pb2.CanaryStep(weight_basis_points=weight, hold=seconds(0.5)) for weight in weights]
    return rollouts_pb2.RolloutSpec(
        candidate_version=version,
        canary=rollouts_pb2.CanaryStrategy(steps=steps),
        judging=rollouts_pb2.JudgingSpec(min_units=100),
        baseline=seconds(0.1),
        bake=seconds(0.1),
        **fields,
    )


async def two_versions(client: Client, *ready_versions: str) -> None:
    """`digits` with two versions; the first has all traffic. A worker has both ready, or those that are given."""
    await client.push(weights=b"1")
    await client.push(weights=b"2")
    await give_all(client, DIGITS_1)
    await report(client, "w0", ready(*(ready_versions or (DIGITS_1, DIGITS_2))))


async def give_all(client: Client, version: str) -> None:
    """One arm."""
    arms = [Arm(arm="v1", version=version, weight_basis_points=10_000)]
    request = UpdateEndpointRequest(endpoint=Endpoint(name="endpoints/digits", arms=arms))
    await client.endpoints.UpdateEndpoint(request, timeout=CALL_SECONDS)


async def create(
    client: Client, spec: rollouts_pb2.RolloutSpec | None = None, parent: str = "endpoints/digits", **fields: Any
) -> rollouts_pb2.Rollout:
    """Begins a rollout."""
    rollout = rollouts_pb2.Rollout(spec=quick() if spec is None else spec)
    request = pb.CreateRolloutRequest(parent=parent, rollout=rollout, **fields)
    return (await rollouts(client).CreateRollout(request, timeout=CALL_SECONDS)).rollout


async def get(client: Client, name: str = FIRST, *, samples: bool = False) -> rollouts_pb2.Rollout:
    """A rollout with its figures."""
    request = pb.GetRolloutRequest(name=name, samples_requested=samples)
    return (await rollouts(client).GetRollout(request, timeout=CALL_SECONDS)).rollout


async def abort(client: Client, name: str = FIRST, **fields: Any) -> rollouts_pb2.Rollout:
    """Aborts a rollout."""
    request = pb.AbortRolloutRequest(name=name, **fields)
    return (await rollouts(client).AbortRollout(request, timeout=CALL_SECONDS)).rollout


async def reached(client: Client, state: str, name: str = FIRST) -> rollouts_pb2.Rollout:
    """The rollout, as soon as it has come to a state."""
    call = client.watch.WatchEvents(watch_service_pb2.WatchEventsRequest(), timeout=WAY_SECONDS)
    async for response in call:
        if response.event.resource == name and response.event.details["state"] == state:
            call.cancel()
            return await get(client, name)
    raise AssertionError


def rollouts(client: Client) -> RolloutServiceStub:
    """The service."""
    return RolloutServiceStub(client.channel)


@asynccontextmanager
async def gateway(client: Client, name: str = "g1", units: int = 500) -> AsyncIterator[StubGateway]:
    """A gateway that follows the routing of `digits`, meets units at a steady rate, and reports."""
    stub = StubGateway(name)
    reporting = asyncio.create_task(_report(client, stub, units))
    try:
        yield stub
    finally:
        reporting.cancel()
        await asyncio.wait([reporting])
    if not reporting.cancelled():
        reporting.result()


async def _report(client: Client, stub: StubGateway, units: int) -> None:
    outcomes = OutcomeServiceStub(client.channel)
    call = client.watch.WatchRouting(watch_service_pb2.WatchRoutingRequest(watcher=stub.name))
    routing = _Latest()
    following = asyncio.create_task(routing.follow(call))
    try:
        while True:
            await routing.news(REPORT_SECONDS)
            for endpoint in routing.endpoints:
                if endpoint.HasField("rollout"):
                    stub.meet(endpoint, units)
            await outcomes.ReportOutcomes(stub.request(), timeout=CALL_SECONDS)
    finally:
        following.cancel()
        await asyncio.wait([following])


class _Latest:
    """The newest routing."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.endpoints: list[Endpoint] = []
        self._new = asyncio.Event()

    async def follow(self, responses: Any) -> None:
        """Takes each snapshot as it comes."""
        async for response in responses:
            if response.HasField("snapshot"):
                self.endpoints = list(response.snapshot.endpoints)
                self._new.set()

    async def news(self, most_seconds: float) -> None:
        """Waits for the next snapshot, not for long."""
        try:
            async with asyncio.timeout(most_seconds):
                await self._new.wait()
        except TimeoutError:
            return
        self._new.clear()
