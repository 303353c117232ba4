"""Our own door: `inferway.prediction.v1.PredictionService`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from inferway.errors import TooManyConcurrent
from inferway.prediction.v1 import prediction_service_pb2 as pb
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
from inferway_gateway.envelope import Ask, Prediction
from inferway_gateway.predictor import Predictor


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What streams may take."""

    max_streams: int = 1024
    """Open at once in this process."""
    max_in_flight: int = 32
    """Items unanswered at once on one stream."""
    drain_seconds: float = 10.0
    """Told to clients when the server leaves: the time to half-close."""


class PredictionServicer:
    """Converts, calls the predictor, converts."""

    def __init__(self, predictor: Predictor, time_limits: TimeLimits, stream_limits: StreamLimits) -> None:
        """Serves until `drain` says that the end is near."""
        self._predictor, self._time_limits, self._stream_limits = predictor, time_limits, stream_limits
        self._streams = set[PredictionStream]()

    def Predict(self, request: pb.PredictRequest, head: Head) -> Started[Prediction]:  # noqa: N802
        """One prediction."""
        ask = Ask(
            selector=selector_of(request.target),
            inputs=tensors_of(request.inputs),
            outputs=list(request.output_names),
            unit=request.affinity_key,
            timeout_seconds=self._time_limits.bounded(seconds_left(head)),
            caller=caller(head),
            field_names=FIELD_NAMES,
        )
        request_id = checked_id(request.id)
        return started(self._predictor, ask, partial(to_response, request_id, timing=request.timing_requested))

    async def StreamPredict(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamPredictRequest], context: Context
    ) -> AsyncIterator[pb.StreamPredictResponse]:
        """Predictions for as long as the client likes."""
        limits = self._stream_limits
        if len(self._streams) >= limits.max_streams:
            raise TooManyConcurrent(f"{limits.max_streams} streams are open already", limit=limits.max_streams)
        stream = PredictionStream(self._predictor, self._time_limits, limits.max_in_flight, caller(context))
        self._streams.add(stream)
        try:
            async for response in stream.run(requests):
                yield response
        finally:
            self._streams.discard(stream)

    async def drain(self) -> None:
        """Asks every open stream to end."""
        for stream in self._streams:
            stream.drain(self._stream_limits.drain_seconds)
