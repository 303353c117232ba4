"""Our own door: `inferway.prediction.v1.PredictionService`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial

from inferway.errors import TooManyConcurrent
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway_chassis.memory_figures import give_back_memory
from inferway_chassis.observing import Head
from inferway_chassis.pipeline import Started
from inferway_chassis.transport import seconds_left
from inferway_gateway.doors.call import Context, TimeLimits, caller, started
from inferway_gateway.doors.prediction_messages import (
    FIELD_NAMES,
    checked_id,
    selector_of,
    tensors_of,
    to_response,
)
from inferway_gateway.doors.prediction_stream import PredictionStream
from inferway_gateway.doors.stream_opening import StreamLimits, StreamOpener
from inferway_gateway.envelope import Ask, Prediction
from inferway_gateway.predictor import Predictor
from inferway_gateway.sessions.sessions import Sessions

TICK_SECONDS = 1.0
MANY_STREAMS = 100
"""When half of so many or more have ended, the memory that they took is given back."""


class PredictionServicer:
    """Converts, calls the predictor, converts."""

    def __init__(
        self, predictor: Predictor, sessions: Sessions, time_limits: TimeLimits, stream_limits: StreamLimits
    ) -> None:
        """Serves until `drain` says that the end is near."""
        self._predictor, self._time_limits, self._stream_limits = predictor, time_limits, stream_limits
        self._opener = StreamOpener(predictor, sessions, time_limits, stream_limits)
        self._streams = set[PredictionStream]()
        self._draining = False

    def Predict(self, request: pb.PredictRequest, head: Head) -> Started[Prediction]:  # noqa: N802
        """One prediction."""
        called_by = caller(head)
        ask = Ask(
            selector=selector_of(request.target),
            inputs=tensors_of(request.inputs),
            outputs=list(request.output_names),
            unit=request.affinity_key or called_by.affinity_key,
            timeout_seconds=self._time_limits.bounded(seconds_left(head)),
            caller=called_by,
            field_names=FIELD_NAMES,
        )
        request_id = checked_id(request.id)
        return started(self._predictor, ask, partial(to_response, request_id, timing=request.timing_requested))

    async def StreamPredict(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamPredictRequest], context: Context
    ) -> AsyncGenerator[pb.StreamPredictResponse]:
        """Predictions for as long as the client likes."""
        limits = self._stream_limits
        if len(self._streams) >= limits.max_streams:
            raise TooManyConcurrent(f"{limits.max_streams} streams are open already", limit=limits.max_streams)
        stream = PredictionStream(self._opener, limits, self._predictor.clock)
        self._streams.add(stream)
        try:
            async with aclosing(stream.run(requests, caller(context))) as responses:
                async for response in responses:
                    yield response
        finally:
            self._streams.discard(stream)

    async def drain(self) -> None:
        """Asks every open stream to end, and those that open from now on as soon as time is looked at."""
        self._draining = True
        for stream in self._streams:
            stream.drain()

    def _given_back(self, most: int) -> int:
        """Frees what many streams have left, which the collector would find late, if at all; `most` were open."""
        if most < MANY_STREAMS or len(self._streams) > most // 2:
            return most
        gc.collect()
        give_back_memory()
        return len(self._streams)

    async def watch(self) -> None:
        """Does for open streams what is due by time alone, for as long as the process lives."""
        most = 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            most = self._given_back(max(most, len(self._streams)))
            now = self._predictor.clock()
            for stream in list(self._streams):
                stream.tick(now)
                if self._draining:
                    stream.drain()
