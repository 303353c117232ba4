"""A worker without models: it speaks the link for real, and computes what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from google.rpc.status_pb2 import Status
from grpc import aio

from inferway.errors import InferwayError
from inferway.status import to_status
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway.worker.v1.worker_service_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server
from inferway_chassis.pipeline import RpcStatus

Compute = Callable[[pb.Envelope], Sequence[Tensor]]


def echo(envelope: pb.Envelope) -> Sequence[Tensor]:
    """Answers the first input as output `y`."""
    source = envelope.inputs[0]
    return [Tensor(name="y", datatype=source.datatype, shape=source.shape, raw=source.raw)]


class FakeWorker(WorkerServiceServicer):
    """Counts what it gets; answers at once unless held."""

    def __init__(self, name: str = "w0", versions: Iterable[str] = ("models/echo/versions/1",)) -> None:
        self.name = f"workers/{name}"
        self.states = dict.fromkeys(versions, pb.LOAD_STATE_READY)
        self.errors: dict[str, Status] = {}
        self.credits = 64
        self.compute: Compute = echo
        self.max_link_envelope_bytes = 1 << 20
        self.received: list[pb.Envelope] = []
        self.frame_sizes: list[int] = []
        self.cancelled: list[int] = []
        self.holds: list[list[str]] = []
        """What each link said of versions that streams need."""
        self.large: list[pb.Envelope] = []
        self.links = 0
        self.address = ""
        self._owed: dict[tuple[object, str], int] = {}
        self._outboxes = set[asyncio.Queue[pb.LinkResponse | None]]()
        self._held: list[tuple[asyncio.Queue[pb.LinkResponse | None], pb.Envelope]] | None = None
        self._changed = asyncio.Condition()
        self._server: aio.Server | None = None

    async def start(self, port: int = 0) -> None:
        """Listens on loopback."""
        self._server = aio.server(options=[("grpc.max_receive_message_length", -1)])
        add_WorkerServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        await self._server.start()

    async def stop(self) -> None:
        """Goes away as if killed: what it holds is lost."""
        if self._server is not None:
            await self._server.stop(None)

    def hold(self) -> None:
        """Keeps what comes from now on, unanswered."""
        self._held = []

    async def release(self, *, backwards: bool = False) -> None:
        """Answers all that is held, and no longer holds."""
        held, self._held = self._held or [], None
        for outbox, envelope in reversed(held) if backwards else held:
            self._answer(outbox, [envelope])

    def take_held(self) -> Callable[[], None]:
        """Sets aside what is held; calling the result answers it."""
        aside, self._held = self._held or [], []

        def answer() -> None:
            for outbox, envelope in aside:
                self._answer(outbox, [envelope])

        return answer

    async def set_state(self, version: str, state: pb.LoadState.ValueType, error: InferwayError | None = None) -> None:
        """Tells every gateway how `version` stands now."""
        self.states[version] = state
        if error is not None:
            self.errors[version] = to_status(error)
        for outbox in self._outboxes:
            outbox.put_nowait(pb.LinkResponse(hello=self._hello()))

    async def grant(self, version: str) -> None:
        """Gives every gateway room for `version`."""
        for outbox in self._outboxes:
            outbox.put_nowait(pb.LinkResponse(credits=pb.CreditGrant(version=version, rows=self.credits)))

    def drain(self) -> None:
        """Asks gateways to send nothing more."""
        for outbox in self._outboxes:
            outbox.put_nowait(pb.LinkResponse(drain=pb.Drain()))

    async def until(self, holds: Callable[[FakeWorker], bool]) -> None:
        """Returns once `holds` says so."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: holds(self))

    async def Link(
        self, requests: AsyncIterator[pb.LinkRequest], context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.LinkResponse]:
        """Hello, credits, then answers."""
        first = await anext(requests)
        assert first.hello.protocol_version == 1
        outbox: asyncio.Queue[pb.LinkResponse | None] = asyncio.Queue()
        yield pb.LinkResponse(hello=self._hello())
        for version in self.states:
            yield pb.LinkResponse(credits=pb.CreditGrant(version=version, rows=self.credits))
        self._outboxes.add(outbox)
        reader = asyncio.create_task(self._read(requests, outbox))
        await self._note(links=1)
        try:
            while (message := await outbox.get()) is not None:
                yield message
        finally:
            reader.cancel()
            self._outboxes.discard(outbox)
            self.links -= 1

    async def Infer(self, request: pb.InferRequest, context: aio.ServicerContext[Any, Any]) -> pb.InferResponse:
        """One large envelope."""
        self.large.append(request.envelope)
        await self._note()
        try:
            outputs = self.compute(request.envelope)
        except InferwayError as error:
            await context.abort_with_status(RpcStatus(error))
        return pb.InferResponse(answer=pb.Answer(outputs=outputs))

    async def ExplainVersion(
        self, request: pb.ExplainVersionRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.ExplainVersionResponse:
        """Nothing a gateway asks for."""
        del request, context
        return pb.ExplainVersionResponse()

    async def GetWorkerStatus(
        self, request: pb.GetWorkerStatusRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.GetWorkerStatusResponse:
        """Counters that a test can recognise."""
        response = pb.GetWorkerStatusResponse(worker=self._hello())
        for version in self.states:
            count = sum(envelope.version == version for envelope in self.received)
            statistics = response.statistics.add(version=version, success_count=count, row_count=count)
            statistics.batches.add(rows=1, count=count)
        return response

    def _hello(self) -> pb.WorkerHello:
        return pb.WorkerHello(
            protocol_version=1,
            worker=self.name,
            boot_id="boot",
            capabilities=["hold"],
            max_link_envelope_bytes=self.max_link_envelope_bytes,
            versions=[
                pb.VersionStatus(version=version, state=state, error=self.errors.get(version))
                for version, state in self.states.items()
            ],
        )

    async def _read(
        self, requests: AsyncIterator[pb.LinkRequest], outbox: asyncio.Queue[pb.LinkResponse | None]
    ) -> None:
        async for request in requests:
            if request.HasField("cancel"):
                self.cancelled.extend(request.cancel.ids)
            elif request.HasField("hold"):
                self.holds.append(list(request.hold.versions))
            else:
                self._take(list(request.envelopes.envelopes), outbox)
            await self._note()
        outbox.put_nowait(None)

    def _take(self, envelopes: list[pb.Envelope], outbox: asyncio.Queue[pb.LinkResponse | None]) -> None:
        self.frame_sizes.append(len(envelopes))
        self.received.extend(envelopes)
        if self._held is None:
            self._answer(outbox, envelopes)
        else:
            self._held.extend((outbox, envelope) for envelope in envelopes)

    def _answer(self, outbox: asyncio.Queue[pb.LinkResponse | None], envelopes: list[pb.Envelope]) -> None:
        frame = pb.LinkResponse()
        for envelope in envelopes:
            answer = frame.answers.answers.add(id=envelope.id)
            try:
                answer.outputs.extend(self.compute(envelope))
            except InferwayError as error:
                answer.error.CopyFrom(to_status(error))
            answer.timing.compute_us = 5
            answer.timing.batch_rows = envelope.rows
        outbox.put_nowait(frame)
        for envelope in envelopes:
            self._owe(outbox, envelope.version, envelope.rows)

    def _owe(self, outbox: asyncio.Queue[pb.LinkResponse | None], version: str, rows: int) -> None:
        """Grants again what was used, once it is a quarter of all: a grant is a message."""
        key = (outbox, version)
        self._owed[key] = self._owed.get(key, 0) + rows
        if self._owed[key] * 4 >= self.credits:
            grant = pb.CreditGrant(version=version, rows=self._owed.pop(key))
            outbox.put_nowait(pb.LinkResponse(credits=grant))

    async def _note(self, links: int = 0) -> None:
        async with self._changed:
            self.links += links
            self._changed.notify_all()
