"""The pipeline around every rpc, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from inferway.errors import Draining, InvalidField, ModelNotFound, NotSupported, QueueFull, UploadTooLarge
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.status import from_status
from inferway_chassis.addresses import AddressTaken, SettingsRefused
from inferway_chassis.pipeline import RpcStatus
from inferway_chassis.process import Process
from inferway_chassis.server import Server
from inferway_chassis.settings import ServiceSettings
from inferway_chassis.telemetry import Telemetry

SECRET = "postgres://root:hunter2@db"


class Servicer:
    """Fails as its caller asks."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()

    async def Predict(self, request: pb.PredictRequest, context: aio.ServicerContext[Any, Any]) -> pb.PredictResponse:
        match request.id:
            case "typed":
                message = "no such model"
                raise ModelNotFound(message, model="x")
            case "overloaded":
                message = "full"
                raise QueueFull(message, retry_after_seconds=0.25)
            case "bug":
                raise RuntimeError(SECRET)
            case "hang":
                self.entered.set()
                await asyncio.Event().wait()
        return pb.PredictResponse(id=request.id)

    async def StreamPredict(
        self, requests: AsyncIterator[pb.StreamPredictRequest], context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.StreamPredictResponse]:
        async for request in requests:
            if request.item.id == 3:
                field = "item.id"
                raise InvalidField.at(field, "three is not permitted")
            yield pb.StreamPredictResponse(result=pb.StreamResult(id=request.item.id))


def new_process() -> Process:
    return Process("test", "boot", Telemetry("test", "boot"))


@pytest.fixture
def process() -> Process:
    return new_process()


@pytest.fixture
async def server(process: Process) -> AsyncIterator[Server]:
    server = Server(ServiceSettings(grpc_address="127.0.0.1:0"), process)
    server.add_service(pb.DESCRIPTOR.services_by_name["PredictionService"], Servicer())
    await server.start()
    yield server
    await server.stop(0)


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[aio.Channel]:
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


def decoded(error: aio.AioRpcError) -> Exception:
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return from_status(Status.FromString(details))


async def test_a_typed_error_arrives_with_reason_and_metadata(channel: aio.Channel) -> None:
    """Clients act on the reason, never on the text."""
    with pytest.raises(aio.AioRpcError) as failed:
        await PredictionServiceStub(channel).Predict(pb.PredictRequest(id="typed"))

    assert failed.value.code() == grpc.StatusCode.NOT_FOUND
    error = decoded(failed.value)
    assert isinstance(error, ModelNotFound)
    assert error.metadata == {"model": "x"}


async def test_a_refusal_says_when_to_come_back(channel: aio.Channel) -> None:
    """RetryInfo for programs, pushback for grpc's own retry policy."""
    with pytest.raises(aio.AioRpcError) as failed:
        await PredictionServiceStub(channel).Predict(pb.PredictRequest(id="overloaded"))

    error = decoded(failed.value)
    assert isinstance(error, QueueFull)
    assert error.retry_after_seconds == 0.25
    assert dict(failed.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "250"


def test_a_refusal_that_no_retry_will_change_says_so() -> None:
    """Grpc's own retries, and proxies, know the code alone, and would try again."""
    never = dict(RpcStatus(UploadTooLarge("too large")).trailing_metadata)
    assert never["grpc-retry-pushback-ms"] == "-1"
    assert "grpc-retry-pushback-ms" not in dict(RpcStatus(ModelNotFound("none")).trailing_metadata)


async def test_an_unexpected_error_leaks_nothing(channel: aio.Channel) -> None:
    """Texts of foreign exceptions hold paths, addresses and passwords."""
    with pytest.raises(aio.AioRpcError) as failed:
        await PredictionServiceStub(channel).Predict(pb.PredictRequest(id="bug"))

    assert failed.value.code() == grpc.StatusCode.INTERNAL
    assert SECRET not in repr(failed.value)


async def test_malformed_protobuf_is_the_callers_fault(channel: aio.Channel) -> None:
    """Grpc's own answer to it would be INTERNAL, which pages the wrong people."""
    call: Any = channel.unary_unary("/inferway.prediction.v1.PredictionService/Predict")
    with pytest.raises(aio.AioRpcError) as failed:
        await call(b"\xff\xff\xff\xff")

    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_error_on_a_stream_is_typed_too_and_comes_after_earlier_answers(channel: aio.Channel) -> None:
    """Streams get the same errors as calls."""
    stream = PredictionServiceStub(channel).StreamPredict()
    seen = []
    for number in (1, 2):
        await stream.write(pb.StreamPredictRequest(item=pb.StreamItem(id=number)))
        response = await stream.read()
        assert isinstance(response, pb.StreamPredictResponse)
        seen.append(response.result.id)
    await stream.write(pb.StreamPredictRequest(item=pb.StreamItem(id=3)))
    with pytest.raises(aio.AioRpcError) as failed:
        await stream.read()

    assert seen == [1, 2]
    error = decoded(failed.value)
    assert isinstance(error, InvalidField)
    assert error.violations[0].field == "item.id"


async def test_calls_are_counted_by_outcome(channel: aio.Channel, process: Process) -> None:
    """Success, failure and cancellation are three things."""
    stub = PredictionServiceStub(channel)
    await stub.Predict(pb.PredictRequest(id="fine"))
    with pytest.raises(aio.AioRpcError):
        await stub.Predict(pb.PredictRequest(id="typed"))

    def count(code: str) -> float | None:
        labels = {"service": "inferway.prediction.v1.PredictionService", "method": "Predict", "code": code}
        return process.telemetry.registry.get_sample_value("inferway_rpc_requests_total", labels)

    assert (count("OK"), count("NOT_FOUND"), count("INTERNAL")) == (1, 1, None)


async def test_an_unknown_method_is_told_so(channel: aio.Channel) -> None:
    """Grpc's own words have no reason that a program could read."""
    call: Any = channel.unary_unary("/inferway.prediction.v1.PredictionService/Explain")
    with pytest.raises(aio.AioRpcError) as failed:
        await call(b"")

    assert isinstance(decoded(failed.value), NotSupported)


async def test_a_burst_of_thousands_loses_no_call(channel: aio.Channel) -> None:
    """By default grpc cancels what it cannot queue, with no word of why."""
    stub = PredictionServiceStub(channel)
    answers = await asyncio.gather(*(stub.Predict(pb.PredictRequest(id=str(n)), timeout=60) for n in range(4000)))

    assert [answer.id for answer in answers] == [str(n) for n in range(4000)]


async def test_a_stopping_server_refuses_with_the_reason(server: Server, channel: aio.Channel) -> None:
    """A client that is told goes elsewhere; one that is cut must guess."""
    stub = PredictionServiceStub(channel)
    await stub.Predict(pb.PredictRequest(id="before"))
    stopping = asyncio.create_task(server.stop(5))
    await asyncio.sleep(0)
    with pytest.raises(aio.AioRpcError) as failed:
        await stub.Predict(pb.PredictRequest(id="late"))
    await stopping

    assert isinstance(decoded(failed.value), Draining)


async def test_health_tells_watchers_that_the_server_drains(server: Server, channel: aio.Channel) -> None:
    """Load balancers stop sending before the port closes."""
    call: Any = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    watch = call(health_pb2.HealthCheckRequest(service=""))
    first = await watch.read()
    await server.drain()
    second = await watch.read()

    serving = health_pb2.HealthCheckResponse
    assert (first.status, second.status) == (serving.SERVING, serving.NOT_SERVING)


async def test_reflection_shows_the_public_contract(server: Server) -> None:
    """Grpcurl lists, describes and calls by it."""

    def read() -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol("inferway.prediction.v1.PredictionService")
            return list(database.get_services()), [method.name for method in file.service[0].method]

    services, methods = await asyncio.to_thread(read)

    assert "inferway.prediction.v1.PredictionService" in services
    assert methods == ["Predict", "StreamPredict"]


async def test_a_second_server_is_told_that_the_port_is_taken(server: Server) -> None:
    """Grpcio shares a port silently by default, and half of the calls would go to the wrong stack."""
    second = Server(ServiceSettings(grpc_address=f"127.0.0.1:{server.port}"), new_process())

    with pytest.raises(AddressTaken, match=str(server.port)):
        await second.start()


async def test_plaintext_leaves_the_machine_only_on_request() -> None:
    """Secure by default: the mistake of binding all interfaces must be loud."""
    with pytest.raises(SettingsRefused, match="INSECURE"):
        Server(ServiceSettings(grpc_address="0.0.0.0:0"), new_process())

    Server(ServiceSettings(grpc_address="0.0.0.0:0", insecure=True), new_process())


def test_an_unknown_setting_refuses_to_start(tmp_path: Path) -> None:
    """A misspelt setting that is ignored is found months later."""
    with pytest.raises(SettingsRefused, match="INFERWAY_GRPC_ADRESS"):
        ServiceSettings.load({"INFERWAY_GRPC_ADRESS": "127.0.0.1:1"})
