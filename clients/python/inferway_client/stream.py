"""A bidirectional stream of predictions, which outlives connections and gateways.

    async with client.stream("digits", ordered=True) as stream:
        async for result in stream.map(batches):
            result.unwrap().outputs

or, with one task that sends and one that reads: `send`, `finish`, and `async for result in stream`.

A task of the stream carries items and results (see `carrier`); between it and the caller stands a ledger that never
holds more than `max_in_flight` items: an item is in flight until its result was taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

from inferway.errors import DeadlineExceeded, InferwayError, InvalidField, StreamProtocolViolated
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1 import prediction_service_pb2_grpc
from inferway_client.carrier import Carrier
from inferway_client.ledger import Ledger
from inferway_client.reconnecting import ReconnectPolicy
from inferway_client.results import StreamResult
from inferway_client.retries import Retrier
from inferway_client.stream_call import StreamCall
from inferway_client.tensors import Arrays, encode_all
from inferway_client.timeouts import bounded
from inferway_client.tracing import Metadata, client_span

Batches = Iterable[Arrays] | AsyncIterable[Arrays]
T = TypeVar("T")
_OVERHEAD_BYTES = 64
"""Of a message around the inputs of its one item."""
_NO_ROOM = "no result was taken, so there was no room for the item"


class PredictionStream:
    """Items in, results out; a bad item fails alone. Made by `Client.stream`, used as `async with`.

    Any number of tasks may send, one may read. Waiting for a result or for room may be cancelled without harm. Items
    that are sent one after the other, without waiting between them, travel in one message.

    If the connection or the gateway is lost, the stream goes on elsewhere (see `ReconnectPolicy`) and nobody notices
    but by the time it takes: what was unanswered is sent again, and each result comes once. The time of an item counts
    from `send`. If it is over while there is no connection, the item ends with DeadlineExceeded; in an ordered stream
    once it is its turn.

    A stream to a stateful model carries a session, whose items are applied one after the other, each exactly once.
    There an item whose time is over is still sent, so that the server, and nobody else, says what became of it:
    mostly DeadlineExceeded, which leaves the state as it was. A session that cannot go on (SessionNotFound,
    SessionVersionGone, SessionTakenOver) ends the stream with that error; a new one is never begun silently.
    After `finish` the session ends with its last result. Without that it waits for somebody to resume it: leave the
    context, and give `resume_token` and `taken_item` to `Client.stream`, in whatever process; results come again from
    there.
    """

    GRACE_SECONDS = 5.0
    """A result may be this much later than its item's timeout before the stream is given up. In a session also than the
    last result that was taken: a server computes nothing while its client lacks too much."""

    def __init__(  # noqa: PLR0913 - its parts
        self,
        stub: prediction_service_pb2_grpc.PredictionServiceStub,
        target: str,
        opening: pb.StreamOpen,
        *,
        metadata: Metadata,
        timeout_seconds: float,
        max_message_bytes: int,
        traceparent: str | None,
        reconnect: ReconnectPolicy | None,
        retrier: Retrier,
    ) -> None:
        """Remembers how to open; `async with` opens."""
        self._stub, self._target, self._metadata = stub, target, metadata
        self._opening, self._reconnect, self._retrier = opening, reconnect, retrier
        self._timeout_seconds, self._max_item_bytes = timeout_seconds, max_message_bytes - _OVERHEAD_BYTES
        self._traceparent = traceparent
        self._stack = AsyncExitStack()
        self._sending = asyncio.Lock()
        self._changed = asyncio.Event()
        self._watched_until = float("inf")
        self._taken_at = 0.0
        self._finished = False
        self._ledger: Ledger[pb.StreamItem, StreamResult] = Ledger(opening.resume.acknowledged_item)
        self._carrier = self._make_carrier()

    @property
    def max_in_flight(self) -> int:
        """How many items may be in flight, as the server decided; 0 before the stream is open."""
        return self._ledger.window

    @property
    def resume_token(self) -> str:
        """Resumes the session elsewhere, and is a secret; empty if there is no session, or none that can be resumed."""
        session = self._carrier.session
        return "" if session is None else session.resume_token

    @property
    def applied_item(self) -> int:
        """The last item of the session that is known to be applied or to have failed; 0 before the first."""
        return self._ledger.applied_item

    @property
    def taken_item(self) -> int:
        """The item whose result was taken last: the `acknowledged_item` of whoever resumes the session."""
        return self._ledger.taken_item

    async def __aenter__(self) -> Self:
        """Opens the stream. Raises the errors of StreamPredict, such as EndpointNotFound, and Unreachable."""
        async with AsyncExitStack() as stack:
            endpoint = self._opening.target.endpoint
            trace_context = stack.enter_context(client_span("StreamPredict", endpoint, self._traceparent))
            self._metadata += trace_context
            await self._retrier.run(self._carrier.open, self._timeout_seconds)
            stack.callback(self._carrier.close)
            stack.push_async_callback(_end_task, asyncio.create_task(self._carrier.run(), name="stream-carrier"))
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
            InvalidField: The item is longer than the client's `max_message_bytes`.
            DeadlineExceeded: No result was taken in time to make room.
            Draining: The server is going away, and the stream does not reconnect; results of what was sent still come.
            StreamProtocolViolated: After `finish`.
            Cancelled: The stream or its client was closed.
            InferwayError: What ended the stream.
        """
        seconds = self._timeout_seconds if timeout is None else bounded(timeout)
        item = pb.StreamItem(inputs=encode_all(inputs), affinity_key=affinity_key)
        if item.ByteSize() > self._max_item_bytes:
            raise InvalidField.at("inputs", f"{item.ByteSize()} bytes; an item may have {self._max_item_bytes}")
        if self._sending.locked() or not self._may_send():
            return await _within(seconds, self._send_in_turn(item, seconds), _NO_ROOM)
        return self._add(item, seconds)

    async def finish(self) -> None:
        """Sends no more: iteration ends after the last result, and so does a session."""
        async with self._sending:
            self._finished = True
            self._carrier.finish()

    def __aiter__(self) -> AsyncIterator[StreamResult]:
        """Iterates over results until the stream was finished and all were taken."""
        return self

    async def __anext__(self) -> StreamResult:
        """Returns the next result; raises what ended the stream, if it failed, and Cancelled if it was closed early."""
        result = await self._take(lambda: True)
        if result is None:
            raise StopAsyncIteration
        return result

    async def map(self, batches: Batches, *, timeout: float | None = None) -> AsyncIterator[StreamResult]:
        """Sends every batch and yields every result, whose `id` is the position of its batch, from 0.

        Results come in the order that the stream was opened with; those of before a session was resumed come first,
        with negative ids. Batches wait for room for as long as the caller takes over results. Not to be mixed with
        other sends and reads. Raises what `send` and iteration raise.
        """
        first, sending = self._ledger.next_id, True

        async def send_all() -> None:
            nonlocal sending
            try:
                async for batch in _each(batches):
                    await self._until(self._may_send)
                    await self.send(batch, timeout=timeout)
            finally:
                sending = False
                self._changed.set()

        sender = asyncio.create_task(send_all())
        try:
            while (result := await self._take(lambda: sending or bool(self._ledger.unanswered))) is not None:
                yield StreamResult(result.id - first, result.prediction, result.error)
            await sender
        finally:
            await _end_task(sender)

    def _make_carrier(self) -> Carrier:
        async def open_call(opening: pb.StreamOpen, seconds: float) -> StreamCall:
            return await StreamCall.open(self._stub, self._target, opening, self._metadata, seconds)

        return Carrier(
            open_call,
            self._opening,
            self._ledger,
            policy=self._reconnect,
            timeout_seconds=self._timeout_seconds,
            changed=self._changed.set,
            clock=self._now,
        )

    def _may_send(self) -> bool:
        """Whether there is room; raises what forbids sending."""
        if self._finished:
            raise StreamProtocolViolated.at("item", "the stream is finished", expected="nothing")
        if self._carrier.refusal is not None:
            raise self._carrier.refusal
        return self._ledger.in_flight < self._ledger.window

    async def _send_in_turn(self, item: pb.StreamItem, seconds: float) -> int:
        async with self._sending:
            await self._until(self._may_send)
            return self._add(item, seconds)

    def _add(self, item: pb.StreamItem, seconds: float) -> int:
        deadline = self._now() + seconds
        number = self._ledger.add(item, item.ByteSize(), deadline)
        item.id = number
        self._carrier.wake()
        if deadline < self._watched_until:
            self._changed.set()
        return number

    async def _take(self, more: Callable[[], bool]) -> StreamResult | None:
        """The next result; None when the stream has ended or `more` says that there will be none."""
        ledger, carrier = self._ledger, self._carrier
        await self._until(lambda: ledger.has_result or carrier.ended or not more())
        if ledger.has_result:
            result = ledger.take()
            self._taken_at = self._now()
            carrier.taken()
            self._changed.set()
            return result
        if carrier.failure is not None:
            raise carrier.failure
        return None

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Waits for `condition`; raises DeadlineExceeded when an answer is overdue."""
        while not condition():
            self._changed.clear()
            overdue_time = self._watched_until = self._overdue_time()
            try:
                async with asyncio.timeout_at(overdue_time if overdue_time < float("inf") else None):
                    await self._changed.wait()
            except TimeoutError:
                self._overdue()

    def _overdue_time(self) -> float:
        """When an answer is to be waited for no longer; never, if none is to come or only a server may say so."""
        connected_at = self._carrier.connected_at
        if connected_at is None:
            expiry = self._ledger.first_expiry(ordered=self._ordered)
            return float("inf") if expiry is None else expiry
        deadline = self._ledger.first_deadline
        went_on_at = connected_at if self._carrier.session is None else max(connected_at, self._taken_at)
        return float("inf") if deadline is None else max(deadline, went_on_at) + self.GRACE_SECONDS

    def _overdue(self) -> None:
        if self._carrier.connected_at is not None:
            raise DeadlineExceeded(f"{self._target} left an item unanswered", stage="client")
        for number in self._ledger.expired(self._now(), ordered=self._ordered):
            error = DeadlineExceeded(f"{self._target} could not be reached in the time of the item", stage="client")
            self._ledger.settle(number, StreamResult(number, None, error))
        self._changed.set()

    @property
    def _ordered(self) -> bool:
        return self._opening.order == pb.RESULT_ORDER_ORDERED

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


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
    """Cancels it and waits for its end; raises what it raised, unless that is known elsewhere."""
    task.cancel()
    await asyncio.wait([task])
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, InferwayError):
        raise error
