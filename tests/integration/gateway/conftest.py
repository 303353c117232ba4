"""A real gateway in the process of the test, between a fake registry and fake workers, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2

from inferway.foreign.inference.grpc_service_pb2 import ModelMetadataRequest, ModelMetadataResponse
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.registry.v1.watch_service_pb2 import RoutedVersion
from inferway_chassis.process import Process
from inferway_chassis.server import Server
from inferway_chassis.testing import serving
from inferway_gateway.app import running
from inferway_gateway.settings import GatewaySettings
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.snapshots import snapshot, version


@dataclass
class Bed:
    """What a test plays with."""

    registry: FakeRegistry
    worker: FakeWorker
    server: Server
    channel: aio.Channel

    @property
    def target(self) -> str:
        """Where the gateway listens."""
        return f"127.0.0.1:{self.server.port}"

    @property
    def stub(self) -> PredictionServiceStub:
        """Our own door."""
        return PredictionServiceStub(self.channel)

    async def until_health_is(self, name: str, *, serving: bool) -> None:
        """Returns once the gateway says so of `name`."""
        wanted = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        watch = self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        async for response in watch(health_pb2.HealthCheckRequest(service=name), timeout=5):
            if response.status == wanted:
                return

    async def until_signature_has(self, input_name: str) -> None:
        """Returns once the gateway routes by a snapshot in which `echo` has that input."""
        call = self.channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata",
            request_serializer=ModelMetadataRequest.SerializeToString,
            response_deserializer=ModelMetadataResponse.FromString,
        )
        async with asyncio.timeout(5):
            while input_name not in [t.name for t in (await call(ModelMetadataRequest(name="echo"))).inputs]:
                pass

    async def publish(self, *versions: RoutedVersion, workers: Sequence[FakeWorker] = (), **rest: Any) -> None:
        """Makes the registry send a snapshot."""
        addresses = [worker.address for worker in workers or [self.worker]]
        await self.registry.publish(snapshot(versions=versions or [version()], workers=addresses, **rest))


def settings_for(tmp_path: Path, registry_target: str, **changes: Any) -> GatewaySettings:
    """Settings of a gateway that takes any free ports."""
    return GatewaySettings.model_validate(
        {
            "grpc_address": "127.0.0.1:0",
            "http_address": "",
            "metrics_address": "",
            "registry_target": registry_target,
            "data_dir": tmp_path,
            "grace_seconds": 1,
        }
        | changes
    )


@asynccontextmanager
async def gateway(
    settings: GatewaySettings, registry: FakeRegistry, worker: FakeWorker, process: Process | None = None
) -> AsyncIterator[Bed]:
    """A started gateway and a channel to it."""
    async with (
        serving(running, settings, name="gateway", process=process) as server,
        aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield Bed(registry, worker, server, channel)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """A registry that listens."""
    fake = FakeRegistry()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def worker() -> AsyncIterator[FakeWorker]:
    """A worker that listens and has version 1 of `echo`."""
    fake = FakeWorker()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def bed(tmp_path: Path, registry: FakeRegistry, worker: FakeWorker) -> AsyncIterator[Bed]:
    """A gateway that serves `echo` from one worker, linked and ready."""
    async with gateway(settings_for(tmp_path, registry.target), registry, worker) as running_bed:
        await running_bed.publish()
        await running_bed.until_health_is("model/echo", serving=True)
        yield running_bed
