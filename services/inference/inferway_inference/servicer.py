"""WorkerService: converts, calls, converts back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc.aio

from inferway.errors import NotSupported, StreamProtocolViolated
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_chassis.clock import Clock
from inferway_inference import convert
from inferway_inference.link import LinkSession
from inferway_inference.work import Answer, Request
from inferway_inference.worker import Worker


class WorkerServicer:
    """The service that gateways call."""

    def __init__(self, worker: Worker, limits: convert.LinkLimits, clock: Clock) -> None:
        """Serves `worker`."""
        self._worker, self._limits, self._clock = worker, limits, clock

    async def Link(  # noqa: N802 - the name of the rpc
        self,
        requests: AsyncIterator[pb.LinkRequest],
        context: grpc.aio.ServicerContext[pb.LinkRequest, pb.LinkResponse],
    ) -> AsyncIterator[pb.LinkResponse]:
        """See the proto."""
        del context
        gateway = check_hello(await anext(aiter(requests), None))
        with LinkSession(self._worker, gateway) as session:
            reader = asyncio.create_task(self._read(requests, session), name="link reader")
            try:
                while not session.finished:
                    await session.wait()
                    for response in convert.responses(session.take(), self._worker, self._limits):
                        yield response
                    if reader.done():
                        reader.result()
            finally:
                reader.cancel()

    async def Infer(  # noqa: N802 - the name of the rpc
        self, request: pb.InferRequest, context: grpc.aio.ServicerContext[pb.InferRequest, pb.InferResponse]
    ) -> pb.InferResponse:
        """See the proto."""
        del context
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(request: Request, answer: Answer) -> None:
            del request
            if not answered.done():
                answered.set_result(answer)

        [work] = self._requests([request.envelope], reply)
        self._worker.submit([work])
        try:
            answer = await answered
        except asyncio.CancelledError:
            self._worker.cancel(work)
            raise
        if answer.error is not None:
            raise answer.error
        response = pb.InferResponse()
        convert.fill_answer(response.answer, work, answer)
        return response

    async def GetWorkerStatus(  # noqa: N802 - the name of the rpc
        self,
        request: pb.GetWorkerStatusRequest,
        context: grpc.aio.ServicerContext[pb.GetWorkerStatusRequest, pb.GetWorkerStatusResponse],
    ) -> pb.GetWorkerStatusResponse:
        """See the proto."""
        del request, context
        return pb.GetWorkerStatusResponse(
            worker=convert.hello(self._worker, self._limits.max_link_envelope_bytes),
            statistics=[convert.statistics(*item) for item in self._worker.counters().items()],
        )

    async def ExplainVersion(  # noqa: N802 - the name of the rpc
        self,
        request: pb.ExplainVersionRequest,
        context: grpc.aio.ServicerContext[pb.ExplainVersionRequest, pb.ExplainVersionResponse],
    ) -> pb.ExplainVersionResponse:
        """See the proto."""
        del context
        return convert.explanation(self._worker.explain(request.version, self._clock()))

    async def _read(self, requests: AsyncIterator[pb.LinkRequest], session: LinkSession) -> None:
        try:
            async for message in requests:
                kind = message.WhichOneof("message")
                if kind == "envelopes":
                    session.submit(self._requests(message.envelopes.envelopes, session.reply))
                elif kind == "cancel":
                    session.cancel(message.cancel.ids)
                elif kind == "hold":
                    session.hold(message.hold.versions)
                elif kind == "hello":
                    raise StreamProtocolViolated("a link has one hello", expected="envelopes, cancel or hold")
                # Anything else is of a newer gateway.
        finally:
            session.half_close()

    def _requests(self, envelopes: Iterable[pb.Envelope], reply: convert.Reply) -> list[Request]:
        now, timeout_seconds = self._clock(), self._limits.default_timeout_seconds
        return [convert.request_of(envelope, reply, now, timeout_seconds) for envelope in envelopes]


def check_hello(message: pb.LinkRequest | None) -> str:
    """The name of the gateway; raises StreamProtocolViolated or NotSupported if this is no hello that we understand."""
    if message is None or not message.HasField("hello"):
        raise StreamProtocolViolated("a link begins with hello", expected="hello")
    version = message.hello.protocol_version
    if version != convert.PROTOCOL_VERSION:
        raise NotSupported(
            f"the gateway speaks version {version} of the link; this worker speaks {convert.PROTOCOL_VERSION}",
            feature=f"link protocol {version}",
        )
    return message.hello.gateway
