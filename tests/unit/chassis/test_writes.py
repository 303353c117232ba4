"""Clients that do not read what they asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from grpc import aio

from inferway.errors import SlowConsumer
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.status import from_status
from inferway_chassis.process import Process
from inferway_chassis.server import Server
from inferway_chassis.settings import ServiceSettings
from inferway_chassis.telemetry import Telemetry

MESSAGE = pb.StreamPredictResponse(result=pb.StreamResult(prediction=pb.StreamPrediction(arm="x" * (1 << 20))))


class Flood:
    """Writes as long as it may, and says when that is over."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def Predict(self, request: pb.PredictRequest, context: aio.ServicerContext[Any, Any]) -> pb.PredictResponse:
        return pb.PredictResponse(id=request.id)

    async def StreamPredict(
        self, requests: AsyncIterator[pb.StreamPredictRequest], context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.StreamPredictResponse]:
        try:
            while True:
                yield MESSAGE
        finally:
            self.over.set()


@pytest.fixture
def flood() -> Flood:
    return Flood()


@pytest.fixture
async def channel(flood: Flood) -> AsyncIterator[aio.Channel]:
    settings = ServiceSettings(grpc_address="127.0.0.1:0", slow_reader_seconds=0.4)
    server = Server(settings, Process("test", "boot", Telemetry("test", "boot")))
    server.add_service(pb.DESCRIPTOR.services_by_name["PredictionService"], flood)
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel
    await server.stop(0)


async def test_a_client_that_reads_nothing_is_cut_off_and_told_why(channel: aio.Channel, flood: Flood) -> None:
    """What waits for it takes memory, and a thousand like it would take all of it."""
    call = PredictionServiceStub(channel).StreamPredict(timeout=20)
    await asyncio.wait_for(flood.over.wait(), 10)
    with pytest.raises(aio.AioRpcError) as cut:
        await read_all(call)

    details = dict(cut.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(from_status(Status.FromString(details)), SlowConsumer)


async def test_a_client_that_reads_is_not_cut_off(channel: aio.Channel, flood: Flood) -> None:
    """However long its stream lasts: each write has a time of its own."""
    call = PredictionServiceStub(channel).StreamPredict(timeout=20)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + 1.2
    while loop.time() < ends_at:
        assert isinstance(await call.read(), pb.StreamPredictResponse)

    assert not flood.over.is_set()
    call.cancel()
    await asyncio.wait_for(flood.over.wait(), 5)


async def read_all(call: Any) -> None:
    while isinstance(await call.read(), pb.StreamPredictResponse):
        pass
