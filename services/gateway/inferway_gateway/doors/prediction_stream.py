"""One `StreamPredict`: open, items, results.

    client: open ─► item* ─► half-close          server: opened ─► (result | drain)* ─► OK

A reader starts items and stops reading while too much is unanswered; the call's own task writes. An item fails
alone; the stream fails if the client breaks the order above.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from inferway.errors import InferwayError, InvalidField, StreamProtocolViolated, TooManyConcurrent
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.status import to_status
from inferway_gateway.doors.call import TimeLimits
from inferway_gateway.doors.prediction_messages import (
    FIELD_NAMES,
    selector_of,
    tensors_of,
    timeout_of,
    to_stream_prediction,
)
from inferway_gateway.doors.results import Result, Results
from inferway_gateway.envelope import Ask, Caller
from inferway_gateway.predictor import Predictor
from inferway_gateway.routing import Selector

OPEN_SECONDS = 10.0
"""A client that calls and does not open the stream for so long is sent away."""


class _Key(NamedTuple):
    """Names a result to the client."""

    item: int
    accepted: bool
    """The item was begun; until its answer is out, no other may have its id."""


class PredictionStream:
    """See the module."""

    def __init__(self, predictor: Predictor, time_limits: TimeLimits, max_in_flight: int, caller: Caller) -> None:
        """`max_in_flight` bounds what the client may ask for."""
        self._predictor, self._time_limits, self._caller = predictor, time_limits, caller
        self._max_in_flight = max_in_flight
        self._results: Results[_Key] | None = None
        self._unanswered_ids = set[int]()
        self._drain: pb.StreamPredictResponse | None = None

    async def run(self, requests: AsyncIterator[pb.StreamPredictRequest]) -> AsyncIterator[pb.StreamPredictResponse]:
        """Yields the server's messages."""
        opening, selector = await self._opened(requests)
        yield pb.StreamPredictResponse(opened=pb.StreamOpened(max_in_flight=self._max_in_flight))
        ordered = opening.order == pb.RESULT_ORDER_ORDERED
        results = self._results = Results(ordered=ordered, abandon=self._predictor.abandon)
        reader = asyncio.create_task(self._read(requests, opening, selector, results), name="stream-reader")
        try:
            async for result in results.take():
                if result is not None:
                    yield self._response(result, timing=opening.timing_requested)
                if self._drain is not None:
                    notice, self._drain = self._drain, None
                    yield notice
        finally:
            reader.cancel()
            results.close()
            await asyncio.gather(reader, return_exceptions=True)

    def drain(self, grace_seconds: float) -> None:
        """Tells the client to go elsewhere."""
        self._drain = pb.StreamPredictResponse()
        self._drain.drain.grace.FromNanoseconds(int(grace_seconds * 1e9))
        if self._results is not None:
            self._results.nudge()

    async def _opened(self, requests: AsyncIterator[pb.StreamPredictRequest]) -> tuple[pb.StreamOpen, Selector]:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                first = await anext(requests, None)
        except TimeoutError:
            first = None
        if first is None or not first.HasField("open"):
            raise StreamProtocolViolated.at("message", "the first message must be open", expected="open")
        opening = first.open
        if opening.max_in_flight < 0:
            raise InvalidField.at("open.max_in_flight", "must not be negative")
        self._max_in_flight = min(opening.max_in_flight or self._max_in_flight, self._max_in_flight)
        selector = selector_of(opening.target)
        self._predictor.check(selector, opening.output_names, FIELD_NAMES)
        return opening, selector

    async def _read(
        self,
        requests: AsyncIterator[pb.StreamPredictRequest],
        opening: pb.StreamOpen,
        selector: Selector,
        results: Results[_Key],
    ) -> None:
        outputs = list(opening.output_names)
        failure: BaseException | None = None
        try:
            async for request in requests:
                self._start(_item(request), selector, outputs, opening.affinity_key, results)
                # Refusals wait to be written, too: a client that ignores its limit and does not read is not read on.
                await results.room(2 * self._max_in_flight)
        except Exception as error:  # noqa: BLE001 - handed to the writer, which raises it as the stream's own
            failure = error
        results.end(failure)

    def _start(
        self, item: pb.StreamItem, selector: Selector, outputs: list[str], affinity_key: str, results: Results[_Key]
    ) -> None:
        try:
            flight = self._predictor.submit(self._ask(item, selector, outputs, affinity_key, results.unanswered))
        except InferwayError as error:
            results.fail(_Key(item.id, accepted=False), error)
        else:
            self._unanswered_ids.add(item.id)
            results.start(_Key(item.id, accepted=True), flight)

    def _ask(
        self, item: pb.StreamItem, selector: Selector, outputs: list[str], affinity_key: str, unanswered: int
    ) -> Ask:
        if unanswered >= self._max_in_flight:
            raise TooManyConcurrent(
                f"{self._max_in_flight} items of this stream are unanswered already", limit=self._max_in_flight
            )
        if item.id in self._unanswered_ids:
            raise InvalidField.at("item.id", f"{item.id} is that of another unanswered item")
        timeout = timeout_of(item.timeout) if item.HasField("timeout") else None
        return Ask(
            selector=selector,
            inputs=tensors_of(item.inputs),
            outputs=outputs,
            unit=item.affinity_key or affinity_key,
            timeout_seconds=self._time_limits.bounded(timeout),
            caller=self._caller,
            field_names=FIELD_NAMES,
        )

    def _response(self, result: Result[_Key], *, timing: bool) -> pb.StreamPredictResponse:
        if result.key.accepted:
            self._unanswered_ids.discard(result.key.item)
        response = pb.StreamPredictResponse()
        response.result.id = result.key.item
        if isinstance(result.outcome, InferwayError):
            response.result.error.CopyFrom(to_status(result.outcome))
        else:
            to_stream_prediction(result.outcome, response.result.prediction, timing=timing)
        return response


def _item(request: pb.StreamPredictRequest) -> pb.StreamItem:
    if not request.HasField("item"):
        raise StreamProtocolViolated.at("message", "after open, only items may come", expected="item")
    return request.item
