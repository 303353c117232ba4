"""What a prediction brings back."""

from __future__ import annotations

from dataclasses import dataclass

from inferway import names
from inferway.errors import InferwayError
from inferway.prediction.v1 import prediction_service_pb2
from inferway.status import from_status
from inferway.type.v1 import tensor_pb2
from inferway_client.tensors import Array, decode_all


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one prediction went, as the servers measured it."""

    gateway_queue_seconds: float
    """Waiting in the gateway."""
    worker_wait_seconds: float
    """Waiting in the worker before compute."""
    compute_seconds: float
    """In the model."""
    batch_rows: int
    """Rows in the executed batch that belong to the caller's tenant."""
    dispatch_reason: str
    """Why the batch was closed, as `dispatch_reason_in_words` says it; empty if the server did not say."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one request. Arrays are read-only; their shapes and dtypes are those of the model's signature."""

    outputs: dict[str, Array]
    """Outputs by name."""
    model_version: str
    """The version that answered, for example `models/digits/versions/3`."""
    prediction_id: str
    """Names this prediction in logs, traces and feedback."""
    timing: Timing | None = None
    """Present if asked for."""
    arm: str = ""
    """The endpoint's arm that answered; empty if a version or an alias was asked for."""

    @property
    def version(self) -> int:
        """The number of the version that answered."""
        return names.parse_version(self.model_version)[1]


@dataclass(frozen=True, slots=True, eq=False)
class StreamResult:
    """The answer to one item of a stream: a prediction or the error that only this item met."""

    id: int
    """What `send` returned; for `map`, the position of the item."""
    prediction: Prediction | None
    """Set unless there is an error."""
    error: InferwayError | None
    """Set unless there is a prediction."""

    def unwrap(self) -> Prediction:
        """Returns the prediction; raises the item's error."""
        if self.prediction is None:
            raise self.error or AssertionError("a result has a prediction or an error")
        return self.prediction


def prediction_from(
    message: prediction_service_pb2.PredictResponse | prediction_service_pb2.StreamPrediction,
) -> Prediction:
    """Decodes an answer; raises what `tensors.decode` raises if it contradicts itself."""
    timing = _timing_from(message.timing) if message.HasField("timing") else None
    return Prediction(decode_all(message.outputs), message.model_version, message.prediction_id, timing, message.arm)


def stream_result_from(message: prediction_service_pb2.StreamResult) -> StreamResult:
    """Decodes the answer to an item; an outcome that cannot be decoded is that item's error."""
    if message.HasField("error"):
        return StreamResult(message.id, None, from_status(message.error))
    try:
        return StreamResult(message.id, prediction_from(message.prediction), None)
    except InferwayError as error:
        return StreamResult(message.id, None, error)


def dispatch_reason_in_words(reason: int) -> str:
    """`full`, `idle`, `deadline`, `delay bound` or `unbatched`; empty for a reason that this client does not know."""
    if reason not in tensor_pb2.DispatchReason.values() or not reason:
        return ""
    name = tensor_pb2.DispatchReason.Name(tensor_pb2.DispatchReason.ValueType(reason))
    return name.removeprefix("DISPATCH_REASON_").lower().replace("_", " ")


def _timing_from(message: tensor_pb2.Timing) -> Timing:
    return Timing(
        gateway_queue_seconds=message.gateway_queue_us / 1e6,
        worker_wait_seconds=message.worker_wait_us / 1e6,
        compute_seconds=message.compute_us / 1e6,
        batch_rows=message.batch_rows,
        dispatch_reason=dispatch_reason_in_words(message.dispatch_reason),
    )
