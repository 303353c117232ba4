"""One `StreamPredict`: open, items, results.

    client: open ─► (item | items | acknowledge)* ─► half-close
    server: opened ─► (result | results | heartbeat | drain)* ─► OK

A reader starts items and stops reading while too much is unanswered; the call's own task writes. An item fails
alone; the stream fails if the client breaks the order above.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator

from inferway.errors import Draining, InferwayError, StreamProtocolViolated
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway_chassis.clock import Clock
from inferway_gateway.doors.stream_items import StreamItems
from inferway_gateway.doors.stream_opening import StreamLimits, StreamOpener
from inferway_gateway.envelope import Caller

TOGETHER_BYTES = 1 << 20
"""Of results that share a message; a single larger one goes alone. Clients take 4 MiB unless they are told otherwise,
and one that cannot take what was kept for it could never go on with its session."""

TURN_ITEMS = 64
"""Of one message, after which others have a turn: items that are ignored wait for nothing, and may be a million."""


class PredictionStream:
    """See the module."""

    def __init__(self, opener: StreamOpener, limits: StreamLimits, clock: Clock) -> None:
        """`run` it once."""
        self._opener, self._limits, self._clock = opener, limits, clock
        self._items: StreamItems | None = None
        self._opened_at = self._written_at = clock()
        self._busy_at = self._opened_at
        """When there was an item, an acknowledgement or a result; heartbeats keep no stream busy."""
        self._notices: list[pb.StreamPredictResponse] = []
        self._drained_at: float | None = None

    async def run(
        self, requests: AsyncIterator[pb.StreamPredictRequest], caller: Caller
    ) -> AsyncGenerator[pb.StreamPredictResponse]:
        """Yields the server's messages."""
        items, opened, size = await self._opener.open(requests, caller)
        reader = asyncio.create_task(self._read(requests, items), name="stream-reader")
        try:
            yield opened
            self._items = items
            async for results in items.take():
                for count, message in _messages(results, size):
                    items.sending(count)
                    yield message
                    self._written_at = self._busy_at = self._clock()
                while self._notices:
                    yield self._notices.pop()
                    self._written_at = self._clock()
        finally:
            self._items = None
            reader.cancel()
            await items.close()
            await asyncio.gather(reader, return_exceptions=True)

    def drain(self) -> None:
        """Tells the client to go elsewhere, once."""
        if self._drained_at is None and self._items is not None:
            self._drained_at = self._clock()
            notice = pb.StreamPredictResponse()
            notice.drain.grace.FromNanoseconds(int(self._limits.drain_seconds * 1e9))
            self._notices.append(notice)
            self._items.nudge()

    def tick(self, now: float) -> None:
        """Does what is due by time alone."""
        items, limits = self._items, self._limits
        if items is None:
            return
        try:
            over = items.refresh(now)
        except InferwayError as error:
            items.end(error)
            return
        aged = _is_past(self._opened_at, limits.max_age_seconds, now)
        if over or aged or _is_past(self._busy_at, limits.idle_seconds, now):
            self.drain()
        if self._drained_at is not None and now > self._drained_at + limits.drain_seconds:
            items.end(Draining("the stream was asked to end; open a new one"))
        if now >= self._written_at + limits.heartbeat_seconds and not self._notices:
            self._notices.append(pb.StreamPredictResponse(heartbeat=pb.StreamHeartbeat()))
            items.nudge()

    async def _read(self, requests: AsyncIterator[pb.StreamPredictRequest], items: StreamItems) -> None:
        failure: BaseException | None = None
        try:
            async for request in requests:
                self._busy_at = self._clock()
                if request.HasField("acknowledge"):
                    items.acknowledge(request.acknowledge)
                    continue
                for number, item in enumerate(_items_of(request), 1):
                    items.start(item)
                    await items.room()
                    if number % TURN_ITEMS == 0:
                        await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - handed to the writer, which raises it as the stream's own
            failure = error
        items.end(failure)


def _items_of(request: pb.StreamPredictRequest) -> Iterable[pb.StreamItem]:
    if request.HasField("item"):
        return (request.item,)
    if request.HasField("items"):
        return request.items.items
    raise StreamProtocolViolated.at("message", "after open, only items and acknowledgements may come", expected="item")


def _messages(results: list[pb.StreamResult], size: int) -> Iterator[tuple[int, pb.StreamPredictResponse]]:
    """Messages, and how many results are in each."""
    if size <= 1:
        for result in results:
            yield 1, pb.StreamPredictResponse(result=result)
        return
    part, part_bytes = list[pb.StreamResult](), 0
    for result in results:
        byte_count = result.ByteSize()
        if part and (len(part) == size or part_bytes + byte_count > TOGETHER_BYTES):
            yield len(part), pb.StreamPredictResponse(results=pb.StreamResults(results=part))
            part, part_bytes = [], 0
        part.append(result)
        part_bytes += byte_count
    if part:
        yield len(part), pb.StreamPredictResponse(results=pb.StreamResults(results=part))


def _is_past(since: float, seconds: float, now: float) -> bool:
    return seconds > 0 and now > since + seconds
