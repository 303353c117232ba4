"""The gateway's side of a link, and envelopes to send over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
from grpc import aio
from numpy.typing import NDArray

from inferway.datatypes import Datatype
from inferway.status import from_status
from inferway.type.v1.tensor_pb2 import DataType, Tensor
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway.worker.v1.worker_service_pb2_grpc import WorkerServiceStub
from inferway_chassis.channel import open_channel

KINDS = {
    "bool": Datatype.BOOL,
    "uint8": Datatype.UINT8,
    "int32": Datatype.INT32,
    "int64": Datatype.INT64,
    "float16": Datatype.FP16,
    "float32": Datatype.FP32,
    "float64": Datatype.FP64,
}


def tensor(name: str, values: NDArray[Any]) -> Tensor:
    """A tensor of the array's datatype."""
    datatype = DataType.ValueType(KINDS[values.dtype.name])
    return Tensor(name=name, datatype=datatype, shape=values.shape, raw=values.tobytes())


def byte_strings(name: str, values: list[bytes]) -> Tensor:
    """A BYTES tensor of one dimension."""
    raw = b"".join(len(value).to_bytes(4, "little") + value for value in values)
    return Tensor(name=name, datatype=DataType.ValueType(Datatype.BYTES), shape=[len(values)], raw=raw)


def envelope(envelope_id: int, version: str, *inputs: Tensor, rows: int | None = None, **fields: Any) -> pb.Envelope:
    """An envelope with ten seconds left; `rows` is the first dimension unless it is given."""
    shown = inputs[0].shape[0] if rows is None else rows
    fields.setdefault("remaining_us", 10_000_000)
    return pb.Envelope(id=envelope_id, version=version, inputs=inputs, rows=shown, attempt=1, **fields)


def values_of(answer: pb.Answer, name: str = "y") -> NDArray[Any]:
    """The named output as an array; raises the answer's error."""
    if answer.HasField("error"):
        raise from_status(answer.error)
    output = next(output for output in answer.outputs if output.name == name)
    kind = next(kind for kind, datatype in KINDS.items() if int(datatype) == output.datatype)
    return np.frombuffer(output.raw, kind).reshape(tuple(output.shape))


class GatewaySide:
    """One link, read in the background."""

    def __init__(self, target: str) -> None:
        """`async with` opens it."""
        self._channel = open_channel(target)
        self.stub = WorkerServiceStub(self._channel)
        self.hellos: list[pb.WorkerHello] = []
        self.answers: dict[int, pb.Answer] = {}
        self.frames: list[int] = []
        """Answers in each frame."""
        self.credits: dict[str, int] = {}
        self.speeds: dict[str, pb.SpeedModel] = {}
        self.drains = 0
        self.ended: aio.AioRpcError | str | None = None
        self._changed = asyncio.Condition()
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Opens, says hello, and waits for the worker's."""
        self._call = self.stub.Link()
        await self._call.write(pb.LinkRequest(hello=pb.GatewayHello(protocol_version=1, gateway="test")))
        self._reader = asyncio.create_task(self._read())
        await self.until(lambda: bool(self.hellos))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Breaks the link off."""
        self._call.cancel()
        assert self._reader is not None
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._channel.close()

    async def send(self, *envelopes: pb.Envelope) -> None:
        """One frame."""
        await self._call.write(pb.LinkRequest(envelopes=pb.EnvelopeFrame(envelopes=envelopes)))

    async def cancel(self, *ids: int) -> None:
        """Calls requests back."""
        await self._call.write(pb.LinkRequest(cancel=pb.Cancel(ids=ids)))

    async def hold(self, *versions: str) -> None:
        """Says which versions its streams need."""
        await self.say(pb.LinkRequest(hold=pb.VersionHold(versions=versions)))

    async def say(self, message: pb.LinkRequest) -> None:
        """Any message."""
        await self._call.write(message)

    async def half_close(self) -> None:
        """Sends nothing more."""
        await self._call.done_writing()

    async def until(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        """Returns when what was received makes `holds` true."""
        async with self._changed, asyncio.timeout(seconds):
            await self._changed.wait_for(holds)

    async def answers_to(self, ids: Iterable[int]) -> list[pb.Answer]:
        """The answers to these envelopes, in this order."""
        wanted = list(ids)
        await self.until(lambda: all(one in self.answers for one in wanted))
        return [self.answers[one] for one in wanted]

    async def call(self, *envelopes: pb.Envelope) -> list[pb.Answer]:
        """Sends a frame and returns its answers."""
        await self.send(*envelopes)
        return await self.answers_to(one.id for one in envelopes)

    async def ready(self, version: str, state: pb.LoadState.ValueType = pb.LOAD_STATE_READY) -> pb.VersionStatus:
        """The version's status, once a hello says that it is in `state`."""

        def found() -> pb.VersionStatus | None:
            return next((one for one in self.hellos[-1].versions if (one.version, one.state) == (version, state)), None)

        await self.until(lambda: found() is not None)
        status = found()
        assert status is not None
        return status

    async def _read(self) -> None:
        try:
            async for message in self._call:
                async with self._changed:
                    self._receive(message)
                    self._changed.notify_all()
            ended: aio.AioRpcError | str = "ended"
        except aio.AioRpcError as error:
            ended = error
        async with self._changed:
            self.ended = ended
            self._changed.notify_all()

    def _receive(self, message: pb.LinkResponse) -> None:
        if message.HasField("hello"):
            self.hellos.append(message.hello)
        elif message.HasField("answers"):
            self.frames.append(len(message.answers.answers))
            for answer in message.answers.answers:
                assert answer.id not in self.answers, "answered twice"
                self.answers[answer.id] = answer
            for grant in message.answers.credits:
                self._granted(grant)
        elif message.HasField("credits"):
            self._granted(message.credits)
        else:
            self.drains += 1

    def _granted(self, grant: pb.CreditGrant) -> None:
        self.credits[grant.version] = self.credits.get(grant.version, 0) + grant.rows
        if grant.HasField("speed"):
            self.speeds[grant.version] = grant.speed
