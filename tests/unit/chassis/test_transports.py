"""Unary calls that need no task: whatever carries them, callers see the same, and nobody computes for who has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from grpc import aio

from inferway.errors import Draining, ModelNotFound, QueueFull
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.status import from_status
from inferway_chassis.observing import Head
from inferway_chassis.pipeline import Started
from inferway_chassis.process import Process
from inferway_chassis.server import Server
from inferway_chassis.settings import ServiceSettings
from inferway_chassis.telemetry import Telemetry
from inferway_chassis.transport import Transport, seconds_left

SECRET = "postgres://root:hunter2@db"
MAX_BYTES = 4096


class Servicer:
    """Answers when a test says so; fails as its caller asks."""

    def __init__(self) -> None:
        self.results: dict[str, asyncio.Future[str]] = {}
        self.begun = asyncio.Event()
        self.abandoned = asyncio.Event()
        self.seconds_left: float | None = None

    def Predict(self, request: pb.PredictRequest, head: Head) -> Started[str]:
        self.seconds_left = seconds_left(head)
        match request.id:
            case "typed":
                message = "no such model"
                raise ModelNotFound(message, model="x")
            case "bug":
                raise RuntimeError(SECRET)
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.results[request.id] = result
        if request.id == "late":
            result.set_exception(QueueFull("full", retry_after_seconds=0.25))
        elif request.id != "slow":
            result.set_result(request.id)
        self.begun.set()
        metadata = (("x-decided", request.id),) if request.output_names else ()
        return Started(result, lambda text: pb.PredictResponse(id=text), self.abandoned.set, metadata)

    async def StreamPredict(
        self, requests: AsyncIterator[pb.StreamPredictRequest], context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.StreamPredictResponse]:
        async for request in requests:
            yield pb.StreamPredictResponse(result=pb.StreamResult(id=request.item.id))


class Bed:
    """A server and a client of it."""

    def __init__(self, server: Server, servicer: Servicer, telemetry: Telemetry) -> None:
        self.server, self.servicer, self.telemetry = server, servicer, telemetry
        self.channel = aio.insecure_channel(f"127.0.0.1:{server.port}")
        self.stub = PredictionServiceStub(self.channel)

    async def failure(self, request_id: str) -> aio.AioRpcError:
        with pytest.raises(aio.AioRpcError) as caught:
            await self.stub.Predict(pb.PredictRequest(id=request_id), timeout=10)
        return caught.value

    def counted(self, code: str) -> float | None:
        labels = {"service": "inferway.prediction.v1.PredictionService", "method": "Predict", "code": code}
        return self.telemetry.registry.get_sample_value("inferway_rpc_requests_total", labels)


@pytest.fixture(params=list(Transport))
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bed]:
    """Each transport in turn."""
    settings = ServiceSettings(data_dir=tmp_path, max_message_bytes=MAX_BYTES)
    telemetry = Telemetry("test", "boot")
    servicer = Servicer()
    server = Server(settings, Process("test", "boot", telemetry), request.param)
    server.add_service(pb.DESCRIPTOR.services_by_name["PredictionService"], servicer)
    await server.start()
    bed = Bed(server, servicer, telemetry)
    yield bed
    await bed.channel.close()
    await server.stop(0.0)
    telemetry.close()


async def test_calls_are_answered(bed: Bed) -> None:
    """Many at once, each with its own answer."""
    names = [f"call-{n}" for n in range(500)]
    answers = await asyncio.gather(*(bed.stub.Predict(pb.PredictRequest(id=name), timeout=10) for name in names))

    assert [answer.id for answer in answers] == names
    assert bed.counted("OK") == len(names)


async def test_a_typed_error_arrives_whole(bed: Bed) -> None:
    """Code, message and details, whether it is known at once or later."""
    error = await bed.failure("typed")
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    late = await bed.failure("late")
    late_details = dict(late.trailing_metadata() or ())["grpc-status-details-bin"]

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert isinstance(details, bytes)
    assert from_status(Status.FromString(details)).metadata == {"model": "x"}
    assert late.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(late_details, bytes)
    assert from_status(Status.FromString(late_details)).retry_after_seconds == 0.25


async def test_a_bug_says_nothing_of_itself(bed: Bed) -> None:
    """Whatever the text of the exception was."""
    error = await bed.failure("bug")

    assert error.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(error)
    assert bed.counted("INTERNAL") == 1


async def test_bytes_that_are_no_message_are_refused(bed: Bed) -> None:
    """And the next call is answered."""
    call: Any = bed.channel.unary_unary("/inferway.prediction.v1.PredictionService/Predict")
    with pytest.raises(aio.AioRpcError) as caught:
        await call(b"\xff\xff\xff", timeout=10)
    answer = await bed.stub.Predict(pb.PredictRequest(id="next"), timeout=10)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.id == "next"


async def test_a_message_that_is_too_large_is_refused(bed: Bed) -> None:
    """With grpc's own words."""
    error = await bed.failure("x" * (MAX_BYTES + 1))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in (error.details() or "")


async def test_answers_and_errors_carry_the_metadata_that_a_servicer_adds(bed: Bed) -> None:
    """Beside the details of an error, and only where there is any."""
    answered = bed.stub.Predict(pb.PredictRequest(id="a", output_names=["y"]), timeout=10)
    failed = bed.stub.Predict(pb.PredictRequest(id="late", output_names=["y"]), timeout=10)
    plain = bed.stub.Predict(pb.PredictRequest(id="b"), timeout=10)

    assert dict(await answered.trailing_metadata() or ())["x-decided"] == "a"
    of_error = dict(await failed.trailing_metadata() or ())
    assert of_error["x-decided"] == "late"
    assert "grpc-status-details-bin" in of_error
    assert "x-decided" not in dict(await plain.trailing_metadata() or ())


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_who_leaves_is_computed_for_no_more(bed: Bed, how: str) -> None:
    """By cancelling, or by a deadline."""
    call = bed.stub.Predict(pb.PredictRequest(id="slow"), timeout=0.3 if how == "deadline" else 30)
    await bed.servicer.begun.wait()
    if how == "cancelled":
        call.cancel()
    async with asyncio.timeout(10):
        await bed.servicer.abandoned.wait()

    assert bed.servicer.seconds_left is not None
    assert 0 < bed.servicer.seconds_left <= 31  # gRPC sends three digits of a deadline, rounded up


async def test_without_a_deadline_there_is_none(bed: Bed) -> None:
    """The transports have different ways to say so."""
    await bed.stub.Predict(pb.PredictRequest(id="patient"))

    assert bed.servicer.seconds_left is None


async def test_what_runs_may_end_and_what_comes_is_refused(bed: Bed) -> None:
    """A server that stops loses no answer."""
    call = asyncio.ensure_future(bed.stub.Predict(pb.PredictRequest(id="slow"), timeout=30))
    await bed.servicer.begun.wait()
    stopping = asyncio.create_task(bed.server.stop(10.0))
    await asyncio.sleep(0)
    refused = await bed.failure("new")
    bed.servicer.results["slow"].set_result("done")
    answer = await call
    await stopping

    details = dict(refused.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    assert isinstance(from_status(Status.FromString(details)), Draining)
    assert answer.id == "done"


async def test_the_grace_has_an_end(bed: Bed) -> None:
    """Who does not come to an end within it is cut."""
    call = asyncio.ensure_future(bed.stub.Predict(pb.PredictRequest(id="slow"), timeout=30))
    await bed.servicer.begun.wait()
    async with asyncio.timeout(10):
        await bed.server.stop(0.1)
        with pytest.raises(aio.AioRpcError):
            await call


async def test_streams_and_everything_else_go_beside(bed: Bed) -> None:
    """What only grpcio can do is at the same address."""
    stream = bed.stub.StreamPredict(timeout=10)
    await stream.write(pb.StreamPredictRequest(item=pb.StreamItem(id=7)))
    await stream.done_writing()
    answers = [answer.result.id async for answer in stream]

    assert answers == [7]
