"""A bidirectional stream of predictions.

    async with client.stream("digits", ordered=True) as stream:
        async for result in stream.map(batches):
            result.unwrap().outputs

or, with one task that sends and one that reads: `send`, `finish`, and `async for result in stream`.

A task of the stream reads the call into a queue, which never holds more than `max_in_flight` results: an item is in
flight until its result was taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from inferway.errors import DeadlineExceeded, Draining, InferwayError, Internal, StreamProtocolViolated
from inferway.prediction.v1 import prediction_service_pb2, prediction_service_pb2_grpc
from inferway_client.results import StreamResult, stream_result_from
from inferway_client.tensors import Arrays, encode_all
from inferway_client.timeouts import bounded
from inferway_client.tracing import Metadata, client_span
from inferway_client.transport import translated_errors

_Call = grpc.aio.StreamStreamCall[
    prediction_service_pb2.StreamPredictRequest, prediction_service_pb2.StreamPredictResponse
]
Batches = Iterable[Arrays] | AsyncIterable[Arrays]
T = TypeVar("T")


class PredictionStream:
    """Items in, results out; a bad item fails alone. Made by `Client.stream`, used as `async with`.

    Any number of tasks may send, one may read. Waiting for a result or for room may be cancelled without harm.
    """

    GRACE_SECONDS = 5.0
    """A result may be this much later than its item's timeout before the stream is given up."""

    def __init__(
        self,
        stub: prediction_service_pb2_grpc.PredictionServiceStub,
        target: str,
        opening: prediction_service_pb2.StreamOpen,
        metadata: Metadata,
        timeout_seconds: float,
        traceparent: str | None,
    ) -> None:
        """Remembers how to open; `async with` opens."""
        self._stub = stub
        self._target = target
        self._opening = opening
        self._metadata = metadata
        self._timeout_seconds = timeout_seconds
        self._traceparent = traceparent
        self._stack = AsyncExitStack()
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._results: deque[StreamResult] = deque()
        self._unanswered: dict[int, float] = {}
        self._next_id = 1
        self._max_in_flight = 0
        self._refusal: InferwayError | None = None
        self._failure: InferwayError | None = None
        self._ended = False

    @property
    def max_in_flight(self) -> int:
        """How many items may be in flight, as the server decided; 0 before the stream is open."""
        return self._max_in_flight

    @property
    def _in_flight(self) -> int:
        return len(self._unanswered) + len(self._results)

    async def __aenter__(self) -> Self:
        """Opens the stream. Raises the errors of StreamPredict, such as EndpointNotFound, and Unreachable."""
        async with AsyncExitStack() as stack:
            endpoint = self._opening.target.endpoint
            trace_context = stack.enter_context(client_span("StreamPredict", endpoint, self._traceparent))
            self._call: _Call = self._stub.StreamPredict(metadata=self._metadata + trace_context)
            stack.callback(self._call.cancel)
            self._max_in_flight = await _within(self._timeout_seconds, self._open(), "the stream was not opened")
            stack.push_async_callback(_end_task, asyncio.create_task(self._read()))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the stream; items whose results did not arrive are cancelled."""
        await self._stack.__aexit__(kind, error, traceback)

    async def send(self, inputs: Arrays, *, timeout: float | None = None, affinity_key: str = "") -> int:
        """Sends one item of one or many rows and returns its id.

        Waits while `max_in_flight` items are in flight. `timeout` is in seconds and holds for that wait and then for
        the answer; the stream's own if None.

        Raises:
            ValueError: The timeout is not above 0.
            DatatypeMismatch: An array has no datatype.
            DeadlineExceeded: No result was taken in time to make room.
            Draining: The server is going away; results of what was sent still come.
            StreamProtocolViolated: After `finish`.
            InferwayError: What ended the stream.
        """
        seconds = self._timeout_seconds if timeout is None else bounded(timeout)
        item = prediction_service_pb2.StreamItem(
            inputs=encode_all(inputs), timeout=_duration(seconds), affinity_key=affinity_key
        )
        async with self._writing:
            if self._refusal is not None or self._in_flight >= self._max_in_flight:
                await _within(seconds, self._room(), "no result was taken, so there was no room for the item")
            item.id = self._register(seconds)
            await self._write(prediction_service_pb2.StreamPredictRequest(item=item))
        return item.id

    async def finish(self) -> None:
        """Sends no more: iteration ends after the last result."""
        async with self._writing:
            if not self._ended:
                self._refusal = StreamProtocolViolated.at("item", "the stream is finished", expected="nothing")
                await self._call.done_writing()

    def __aiter__(self) -> AsyncIterator[StreamResult]:
        """Iterates over results until the stream was finished and all were taken."""
        return self

    async def __anext__(self) -> StreamResult:
        """Returns the next result; raises what ended the stream, if it failed."""
        result = await self._take(lambda: True)
        if result is None:
            raise StopAsyncIteration
        return result

    async def map(self, batches: Batches, *, timeout: float | None = None) -> AsyncIterator[StreamResult]:
        """Sends every batch and yields every result, whose `id` is the position of its batch, from 0.

        Results come in the order that the stream was opened with. Not to be mixed with other sends and reads.
        Raises what `send` and iteration raise.
        """
        first, sending = self._next_id, True

        async def send_all() -> None:
            nonlocal sending
            try:
                async for batch in _each(batches):
                    await self.send(batch, timeout=timeout)
            finally:
                sending = False
                self._changed.set()

        sender = asyncio.create_task(send_all())
        try:
            while (result := await self._take(lambda: sending or bool(self._unanswered))) is not None:
                yield StreamResult(result.id - first, result.prediction, result.error)
            await sender
        finally:
            await _end_task(sender)

    async def _open(self) -> int:
        await self._write(prediction_service_pb2.StreamPredictRequest(open=self._opening))
        with translated_errors(self._target):
            message = await self._call.read()
        if not isinstance(message, prediction_service_pb2.StreamPredictResponse) or not message.HasField("opened"):
            raise Internal(f"{self._target} did not answer the opening of the stream")
        return message.opened.max_in_flight

    async def _read(self) -> None:
        try:
            with translated_errors(self._target):
                while isinstance(message := await self._call.read(), prediction_service_pb2.StreamPredictResponse):
                    self._receive(message)
            unanswered = len(self._unanswered)
            self._end(Internal(f"the stream ended with {unanswered} items unanswered") if unanswered else None)
        except InferwayError as error:
            self._end(error)

    def _receive(self, message: prediction_service_pb2.StreamPredictResponse) -> None:
        if message.HasField("result"):
            self._unanswered.pop(message.result.id, None)
            self._results.append(stream_result_from(message.result))
        elif message.HasField("drain"):
            self._refusal = Draining("the server is going away; open a new stream")
        self._changed.set()

    def _end(self, failure: InferwayError | None) -> None:
        self._ended = True
        self._failure = failure
        self._refusal = failure or self._refusal or Draining("the server ended the stream; open a new one")
        self._changed.set()

    async def _room(self) -> None:
        await self._until(lambda: self._refusal is not None or self._in_flight < self._max_in_flight)
        if self._refusal is not None:
            raise self._refusal

    def _register(self, seconds: float) -> int:
        number = self._next_id
        self._next_id += 1
        self._unanswered[number] = asyncio.get_running_loop().time() + seconds + self.GRACE_SECONDS
        self._changed.set()
        return number

    async def _write(self, message: prediction_service_pb2.StreamPredictRequest) -> None:
        try:
            with translated_errors(self._target):
                await self._call.write(message)
        except asyncio.InvalidStateError:  # the call ended just now; the reader learns why
            await self._until(lambda: self._ended)
            raise self._refusal or Internal("the stream ended") from None

    async def _take(self, more: Callable[[], bool]) -> StreamResult | None:
        """The next result; None when the stream has ended or `more` says that there will be none."""
        await self._until(lambda: bool(self._results) or self._ended or not more())
        if self._results:
            self._changed.set()
            return self._results.popleft()
        if self._failure is not None:
            raise self._failure
        return None

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Waits for `condition`; raises DeadlineExceeded when an answer is overdue."""
        while not condition():
            self._changed.clear()
            give_up_time = min(self._unanswered.values(), default=None)
            try:
                async with asyncio.timeout_at(give_up_time):
                    await self._changed.wait()
            except TimeoutError:
                raise DeadlineExceeded(f"{self._target} left an item unanswered", stage="client") from None


async def _within(seconds: float, awaitable: Awaitable[T], otherwise: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError:
        raise DeadlineExceeded(f"{otherwise} within {seconds:g} s", stage="client") from None


async def _each(batches: Batches) -> AsyncIterator[Arrays]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch


async def _end_task(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, InferwayError):
        await task


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
