"""One call of StreamPredict: what goes over the wire, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import grpc
from google.protobuf.duration_pb2 import Duration

from inferway.errors import DeadlineExceeded, Internal, Unreachable
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1 import prediction_service_pb2_grpc
from inferway_client.ledger import Item
from inferway_client.tracing import Metadata
from inferway_client.transport import decode_error, translated_errors

_Call = grpc.aio.StreamStreamCall[pb.StreamPredictRequest, pb.StreamPredictResponse]
SILENT_INTERVALS = 3
"""After so many intervals between heartbeats without one, nobody is there."""
LEAST_SECONDS = 0.001
"""Sent as the time of an item that has none left, and which only the server may settle."""


class StreamCall:
    """Open from the start. Reads are one task's, writes another's; what went wrong, reading tells."""

    def __init__(self, call: _Call, target: str, opened: pb.StreamOpened) -> None:
        """See `open`."""
        self._call, self._target = call, target
        self.opened = opened
        """The server's answer to the opening."""
        interval = opened.heartbeat_interval.ToNanoseconds() / 1e9
        self._silence_seconds = SILENT_INTERVALS * interval or None
        self._writing = False
        """A message is on its way, or failed on it."""

    @classmethod
    async def open(
        cls,
        stub: prediction_service_pb2_grpc.PredictionServiceStub,
        target: str,
        opening: pb.StreamOpen,
        metadata: Metadata,
        timeout_seconds: float,
    ) -> Self:
        """Calls and opens. Raises the errors of StreamPredict, Unreachable, and DeadlineExceeded."""
        call: _Call = stub.StreamPredict(metadata=metadata)
        try:
            async with asyncio.timeout(timeout_seconds):
                return cls(call, target, await _opened(call, target, opening))
        except BaseException as error:
            call.cancel()
            if isinstance(error, TimeoutError):
                late = f"the stream was not opened within {timeout_seconds:g} s"
                raise DeadlineExceeded(late, stage="client") from None
            raise

    @property
    def knows_sessions(self) -> bool:
        """The server understands messages of several items, and acknowledgements; one from before those does not."""
        return self._silence_seconds is not None

    async def read(self) -> pb.StreamPredictResponse | None:
        """The next message; None at the end. Raises what ended the call, and Unreachable when nobody is there."""
        try:
            async with asyncio.timeout(self._silence_seconds):
                message = await self._call.read()
        except TimeoutError:
            raise self._lost(f"was silent for {self._silence_seconds:g} s") from None
        except grpc.aio.AioRpcError as error:
            if self._writing and error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata():
                raise self._lost("closed the connection") from error
            raise decode_error(error, self._target) from error
        return message if isinstance(message, pb.StreamPredictResponse) else None

    async def send(self, items: Sequence[Item[pb.StreamItem]], now: float) -> None:
        """Sends items, in one message if the server takes that, each with what is left of its time."""
        for item in items:
            item.payload.timeout.CopyFrom(_duration(max(item.deadline - now, LEAST_SECONDS)))
        if len(items) > 1 and self.knows_sessions:
            payloads = [item.payload for item in items]
            await self._write(pb.StreamPredictRequest(items=pb.StreamItems(items=payloads)))
            return
        for item in items:
            await self._write(pb.StreamPredictRequest(item=item.payload))

    async def acknowledge(self, results: int) -> None:
        """Tells how many results of this call have arrived by now."""
        await self._write(pb.StreamPredictRequest(acknowledge=pb.StreamAcknowledge(results=results)))

    async def end_session(self, results: int) -> None:
        """Acknowledges so many results of this call, and that nobody will come back for the session."""
        said = pb.StreamAcknowledge(results=results, ends_session=True)
        await self._write(pb.StreamPredictRequest(acknowledge=said))

    async def finish(self) -> None:
        """Half-closes."""
        with suppress(grpc.aio.InternalError):  # the call has just ended
            await self._call.done_writing()

    def cancel(self) -> None:
        """Ends it at once."""
        self._call.cancel()

    async def _write(self, message: pb.StreamPredictRequest) -> None:
        """A write that meets the end of the call fails, and may leave gRPC's own INTERNAL in place of its status."""
        self._writing = True
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self._call.write(message)
            self._writing = False

    def _lost(self, what: str) -> Unreachable:
        return Unreachable(f"{self._target} {what}", retry_after_seconds=0.0, target=self._target)


async def _opened(call: _Call, target: str, opening: pb.StreamOpen) -> pb.StreamOpened:
    with translated_errors(target):
        await call.write(pb.StreamPredictRequest(open=opening))
        message = await call.read()
    if not isinstance(message, pb.StreamPredictResponse) or not message.HasField("opened"):
        raise Internal(f"{target} did not answer the opening of the stream")
    return message.opened


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
