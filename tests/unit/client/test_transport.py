"""Errors of the connection, and of servers that are not ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from inferway.errors import DeadlineExceeded, Draining, Internal, Overloaded, QueueFull, Unreachable
from inferway.prediction.v1 import prediction_service_pb2
from inferway.status import to_status
from inferway_client import Client
from inferway_client.transport import BY_STATUS_CODE, PUSHBACK, STATUS_DETAILS, decode_error, open_channel

X = {"x": np.zeros((1, 3), np.float32)}
PREDICT = "/inferway.prediction.v1.PredictionService/Predict"
Requests = AsyncIterator[prediction_service_pb2.StreamPredictRequest]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Responses = AsyncIterator[prediction_service_pb2.StreamPredictResponse]
STREAM = "/inferway.prediction.v1.PredictionService/StreamPredict"


class Scripted(grpc.GenericRpcHandler):
    """Answers one rpc with one behaviour."""

    def __init__(self, path: str, handler: Handler) -> None:
        self._path = path
        self._handler = handler

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler, for its path."""
        return self._handler if details.method == self._path else None


@asynccontextmanager
async def server(path: str, handler: Handler) -> AsyncIterator[str]:
    """A server that is not inferway's; yields its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Scripted(path, handler),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def streaming(behaviour: Callable[..., object]) -> Handler:
    """A handler of StreamPredict."""
    return grpc.stream_stream_rpc_method_handler(
        behaviour,
        prediction_service_pb2.StreamPredictRequest.FromString,
        prediction_service_pb2.StreamPredictResponse.SerializeToString,
    )


def opened() -> prediction_service_pb2.StreamPredictResponse:
    """The first message of a stream that permits four items."""
    return prediction_service_pb2.StreamPredictResponse(opened=prediction_service_pb2.StreamOpened(max_in_flight=4))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_code_has_a_meaning(code: grpc.StatusCode):
    """A code that gRPC adds must be thought about, not become a KeyError at a customer's."""
    assert code in BY_STATUS_CODE
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="so it is")
    assert type(decode_error(error, "somewhere:1")) is BY_STATUS_CODE[code]
    lost = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert decode_error(error, "somewhere:1").retryable == lost


@pytest.mark.parametrize(("pushback", "seconds"), [("250", 0.25), ("0", 0.0), ("-1", None), ("soon", None)])
@pytest.mark.parametrize("ours", [True, False])
def test_pushback_says_whether_and_when_to_repeat(pushback: str, seconds: float | None, ours: bool):
    """Minus one means never, whoever says it: a server that sheds a whole class, or a proxy before it."""
    trailing = grpc.aio.Metadata((PUSHBACK, pushback))
    if ours:
        trailing.add(STATUS_DETAILS, to_status(QueueFull("full", retry_after_seconds=9.0)).SerializeToString())
    error = grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), trailing, details="full")
    assert decode_error(error, "somewhere:1").retry_after_seconds == seconds


@pytest.mark.parametrize("target", ["name:1,other:1", "127.0.0.1:1,[::1]:1", "127.0.0.1:1,"])
def test_several_addresses_that_grpc_could_not_dial_are_refused_at_once(target: str):
    """It would say so only at the first call, and not in words."""
    with pytest.raises(ValueError, match="several addresses"):
        open_channel(target, 1024)


async def test_nobody_there_is_unreachable():
    """The message names the address: mostly it is wrong, or the server is down."""
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1") as caught:
            await client.predict("affine", X)
    assert caught.value.metadata == {"target": "127.0.0.1:1"}


async def test_a_stream_to_nobody_is_unreachable():
    """As for calls."""
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(Unreachable):
            async with client.stream("affine"):
                pytest.fail("opened")


async def test_a_server_that_does_not_answer_meets_the_deadline():
    """There is a deadline without asking for one; here it is short."""

    async def never(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await asyncio.Event().wait()
        return request

    handler: Handler = grpc.unary_unary_rpc_method_handler(never)
    async with server(PREDICT, handler) as target, Client(target, timeout=0.2) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.predict("affine", X)
    assert caught.value.metadata == {"stage": "client"}


async def test_a_message_over_the_limit_is_overloaded_and_not_repeated():
    """The refusal of gRPC itself has no details of ours."""

    async def refuse(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max")

    handler: Handler = grpc.unary_unary_rpc_method_handler(refuse)
    async with server(PREDICT, handler) as target, Client(target) as client:
        with pytest.raises(Overloaded, match="larger than max") as caught:
            await client.predict("affine", X)
    assert not caught.value.retryable


async def test_without_reconnecting_a_draining_server_takes_no_more_items_but_answers_those_it_has():
    """A deployment loses no item."""

    async def drain(requests: Requests, context: object) -> Responses:
        await anext(requests)
        yield opened()
        item = (await anext(requests)).item
        yield prediction_service_pb2.StreamPredictResponse(drain=prediction_service_pb2.StreamDrain(grace=Duration()))
        yield prediction_service_pb2.StreamPredictResponse(
            result=prediction_service_pb2.StreamResult(
                id=item.id, prediction=prediction_service_pb2.StreamPrediction(model_version="models/affine/versions/1")
            )
        )

    async with (
        server(STREAM, streaming(drain)) as target,
        Client(target) as client,
        client.stream("affine", reconnect=None) as stream,
    ):
        await stream.send(X)
        assert (await anext(stream)).unwrap().version == 1
        with pytest.raises(Draining):
            await stream.send(X)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_items_that_a_stream_leaves_unanswered_are_reported():
    """Nothing is lost silently."""

    async def forget(requests: Requests, context: object) -> Responses:
        await anext(requests)
        yield opened()
        await anext(requests)

    async with server(STREAM, streaming(forget)) as target, Client(target) as client, client.stream("affine") as stream:
        await stream.send(X)
        with pytest.raises(Internal, match="1 items unanswered"):
            await anext(stream)
        with pytest.raises(Internal):
            await stream.send(X)


async def test_an_overdue_answer_ends_the_wait():
    """A server that hangs cannot hang its clients."""

    async def hang(requests: Requests, context: object) -> Responses:
        await anext(requests)
        yield opened()
        await asyncio.Event().wait()

    async with server(STREAM, streaming(hang)) as target, Client(target) as client, client.stream("affine") as stream:
        stream.GRACE_SECONDS = 0.05
        await stream.send(X, timeout=0.05)
        with pytest.raises(DeadlineExceeded, match="unanswered"):
            await anext(stream)


async def test_a_caller_that_pauses_for_long_still_gets_every_result_of_its_session(monkeypatch: pytest.MonkeyPatch):
    """A gateway computes nothing while too much is not taken: what is late because of that is not lost."""

    async def wait_for_acknowledgements(requests: Requests, context: object) -> Responses:
        await anext(requests)
        message = opened()
        message.opened.heartbeat_interval.seconds = 3600
        message.opened.session.resume_token = "secret"
        yield message
        await anext(requests)
        first, second, third = (prediction_service_pb2.StreamResult(id=number) for number in (1, 2, 3))
        together = prediction_service_pb2.StreamResults(results=[first, second])
        yield prediction_service_pb2.StreamPredictResponse(results=together)
        async for request in requests:
            if request.acknowledge.results == 2:
                yield prediction_service_pb2.StreamPredictResponse(result=third)

    async with (
        server(STREAM, streaming(wait_for_acknowledgements)) as target,
        Client(target) as client,
        client.stream("affine") as stream,
    ):
        for _ in range(3):
            await stream.send(X)
        await anext(stream)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda before=loop.time: before() + 60)
        assert [(await anext(stream)).id for _ in range(2)] == [2, 3]


async def test_a_server_from_before_sessions_gets_items_one_by_one_and_no_acknowledgements():
    """Clients are often newer than the gateway; it would end the stream."""
    kinds: list[str | None] = []

    async def old(requests: Requests, context: object) -> Responses:
        await anext(requests)
        yield opened()
        async for request in requests:
            kinds.append(request.WhichOneof("message"))
            result = prediction_service_pb2.StreamResult(id=request.item.id)
            yield prediction_service_pb2.StreamPredictResponse(result=result)

    async with server(STREAM, streaming(old)) as target, Client(target) as client, client.stream("affine") as stream:
        assert len([result async for result in stream.map([X] * 20)]) == 20
    assert kinds == ["item"] * 20


async def test_items_that_are_ready_together_travel_together():
    """A message costs more than an item."""
    counts: list[int] = []

    async def count(requests: Requests, context: object) -> Responses:
        await anext(requests)
        message = opened()
        message.opened.heartbeat_interval.seconds = 5
        yield message
        async for request in requests:
            if request.HasField("acknowledge"):
                continue
            items = request.items.items or [request.item]
            counts.append(len(items))
            for item in items:
                result = prediction_service_pb2.StreamResult(id=item.id)
                yield prediction_service_pb2.StreamPredictResponse(result=result)

    async with server(STREAM, streaming(count)) as target, Client(target) as client, client.stream("affine") as stream:
        for _ in range(4):
            await stream.send(X)
        results = [await anext(stream) for _ in range(4)]
    assert [result.id for result in results] == [1, 2, 3, 4]
    assert counts == [4]


async def test_an_error_of_the_server_itself_ends_the_stream_as_it_is():
    """INTERNAL is not taken for a lost connection, lest a bug is met again and again."""
    calls = 0

    async def fail(requests: Requests, context: grpc.aio.ServicerContext[Any, Any]) -> Responses:
        nonlocal calls
        calls += 1
        await anext(requests)
        yield opened()
        await anext(requests)
        await context.abort(grpc.StatusCode.INTERNAL, "a bug")

    async with server(STREAM, streaming(fail)) as target, Client(target) as client, client.stream("affine") as stream:
        await stream.send(X)
        with pytest.raises(Internal, match="a bug"):
            await anext(stream)
    assert calls == 1
